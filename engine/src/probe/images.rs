//! Features of the images in a folder.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Tensor};

use super::FeatureBank;
use crate::distributed::ProcessGroup;
use crate::{Error, Result};
use data::{
    Batch, DatasetOptions, EpochSampler, LabelledDataset, LabelledImages, LabelledSource, Loader,
    LoaderOptions, Transform,
};

/// Images to fit a probe on and images to try it on.
pub struct ProbeData {
    training: Loader<LabelledSource>,
    validation: Loader<LabelledSource>,
    world: ProcessGroup,
}

impl ProbeData {
    /// `train` and `val` in `folder`, each with one folder a class, through
    /// `transform`, in batches of `batch_size`.
    ///
    /// Each process of `world` reads its part of them; all call.
    ///
    /// # Errors
    /// Those of [`LabelledDataset::open`], or no folder of such a name.
    pub fn open(
        folder: &Path,
        transform: Arc<dyn Transform>,
        batch_size: usize,
        options: &LoaderOptions,
        world: &ProcessGroup,
    ) -> Result<Self> {
        let part = |name: &str| {
            let path = folder.join(name);
            if path.is_dir() {
                return Ok(path);
            }
            let text = format!(
                "{} has no folder {name:?}: a probe is fitted on train/CLASS/… and tried on \
                 val/CLASS/…",
                folder.display()
            );
            Err(Error::data(text))
        };
        let parts = part("train").and_then(|train| Ok((train, part("val")?)));
        let (training, validation) = world.all_ok(parts)?;
        let reading = DatasetOptions::with_channels(transform.shape()[0]);
        let training = LabelledDataset::open_among(training, &reading, world)?;
        let classes = training.classes();
        let validation = LabelledDataset::open_as_among(validation, &reading, classes, world)?;
        let load = |dataset| {
            in_order(Arc::new(dataset), Arc::clone(&transform), batch_size, options, world)
        };
        let world = world.clone();
        Ok(Self { training: load(training)?, validation: load(validation)?, world })
    }

    /// Files that this process could not read so far and why, of both parts.
    pub fn left_out(&self) -> Vec<(String, String)> {
        [&self.training, &self.validation]
            .into_iter()
            .flat_map(|loader| loader.corrupt_files().report())
            .collect()
    }

    /// What is worth a look in the class folders: see [`LabelledDataset::notes`].
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        let parts = [&self.training, &self.validation].into_iter();
        parts.flat_map(|loader| loader.dataset().notes())
    }

    /// Images in both parts.
    pub fn image_counts(&self) -> [usize; 2] {
        [&self.training, &self.validation].map(|loader| loader.dataset().len())
    }

    /// The classes' names.
    pub fn classes(&self) -> &[String] {
        self.training.dataset().classes()
    }

    /// What `features` makes of all images of the two parts, each process of its own, together on
    /// all; `done` hears of every batch's number of images.
    ///
    /// # Errors
    /// Unreadable images beyond the share allowed, those of `features`.
    pub fn features(
        &self,
        device: Device,
        mut features: impl FnMut(&Tensor) -> Result<Tensor>,
        mut done: impl FnMut(u64),
    ) -> Result<[FeatureBank; 2]> {
        Ok([
            self.extract(&self.training, device, &mut features, &mut done)?,
            self.extract(&self.validation, device, &mut features, &mut done)?,
        ])
    }

    fn extract(
        &self,
        loader: &Loader<LabelledSource>,
        device: Device,
        features: &mut impl FnMut(&Tensor) -> Result<Tensor>,
        done: &mut impl FnMut(u64),
    ) -> Result<FeatureBank> {
        let own = self.world.all_ok(own_features(loader, device, features, done))?;
        let (rows, classes) = match own {
            Some((rows, classes)) => (Some(rows), classes),
            None => (None, Vec::new()),
        };
        let classes = self.world.gather(&classes)?.concat();
        if classes.is_empty() {
            return Err(Error::data("none of the images can be read"));
        }
        // One that has no images of its own takes the width from the others.
        let width = rows.as_ref().map_or(0, |rows| rows.size()[1]);
        let mut widest = [width as f64];
        self.world.max(&mut widest)?;
        let rows = rows
            .unwrap_or_else(|| Tensor::zeros([0, widest[0] as i64], (tch::Kind::Float, device)));
        let rows = self.world.gather_rows(&rows)?;
        let count = loader.dataset().classes().len() as i64;
        FeatureBank::new(rows, &classes, count)
    }
}

/// A loader of the part of `dataset` that this process of `world` has, in the data set's order,
/// each image once.
///
/// # Errors
/// A transform for other channels, options out of range.
pub fn in_order(
    dataset: Arc<LabelledDataset>,
    transform: Arc<dyn Transform>,
    batch_size: usize,
    options: &LoaderOptions,
    world: &ProcessGroup,
) -> Result<Loader<LabelledSource>> {
    let (rank, size) = (world.rank(), world.size());
    let sampler = EpochSampler::in_order_among(dataset.len(), batch_size, rank, size)?;
    Ok(Loader::new(dataset, transform, sampler, options.clone())?)
}

/// Features `[N, D]` and classes of this process's images; none if none can be read.
fn own_features(
    loader: &Loader<LabelledSource>,
    device: Device,
    features: &mut impl FnMut(&Tensor) -> Result<Tensor>,
    done: &mut impl FnMut(u64),
) -> Result<Option<(Tensor, Vec<i64>)>> {
    let (mut rows, mut classes) = (Vec::new(), Vec::new());
    for batch in loader.epoch(0, 0) {
        let batch: Batch<LabelledImages> = batch?;
        if let Some((images, labels)) = batch.images.present()? {
            rows.push(tch::no_grad(|| features(&images.to_device(device)))?);
            done(labels.len() as u64);
            classes.extend(labels);
        }
    }
    Ok((!rows.is_empty()).then(|| (Tensor::cat(&rows, 0), classes)))
}
