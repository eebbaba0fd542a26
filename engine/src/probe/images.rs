//! Features of the images in a folder.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Tensor};

use super::Labelled;
use crate::data::{
    Batch, DatasetOptions, EpochSampler, LabelledDataset, LabelledImages, LabelledSource, Loader,
    LoaderOptions, Transform,
};
use crate::{Error, Result};

/// Images to fit a probe on and images to try it on.
pub struct ProbeData {
    training: Loader<LabelledSource>,
    validation: Loader<LabelledSource>,
}

impl ProbeData {
    /// `train` and `val` in `folder`, each with one folder a class, through
    /// `transform`, in batches of `batch_size`.
    ///
    /// # Errors
    /// Those of [`LabelledDataset::open`], or no folder of such a name.
    pub fn open(
        folder: &Path,
        transform: Arc<dyn Transform>,
        batch_size: usize,
        options: &LoaderOptions,
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
            Err(Error::Data(text))
        };
        let (training, validation) = (part("train")?, part("val")?);
        let reading = DatasetOptions::with_channels(transform.channels());
        let training = LabelledDataset::open(training, &reading)?;
        let validation = LabelledDataset::open_as(validation, &reading, training.classes())?;
        let load =
            |dataset| in_order(Arc::new(dataset), Arc::clone(&transform), batch_size, options);
        Ok(Self { training: load(training)?, validation: load(validation)? })
    }

    /// Files that could not be read so far and why, of both parts.
    pub fn left_out(&self) -> Vec<(String, String)> {
        [&self.training, &self.validation]
            .into_iter()
            .flat_map(|loader| loader.corrupt_files().report())
            .collect()
    }

    /// Images in both parts.
    pub fn image_counts(&self) -> [usize; 2] {
        [&self.training, &self.validation].map(|loader| loader.source().dataset().len())
    }

    /// The classes' names.
    pub fn classes(&self) -> &[String] {
        self.training.source().dataset().classes()
    }

    /// What `features` makes of all images of the two parts; `done` hears of every
    /// batch's number of images.
    ///
    /// # Errors
    /// Unreadable images beyond the share allowed, those of `features`.
    pub fn features(
        &self,
        device: Device,
        mut features: impl FnMut(&Tensor) -> Result<Tensor>,
        mut done: impl FnMut(u64),
    ) -> Result<[Labelled; 2]> {
        Ok([
            extract(&self.training, device, &mut features, &mut done)?,
            extract(&self.validation, device, &mut features, &mut done)?,
        ])
    }
}

/// A loader of `dataset` in its own order, each image once.
///
/// # Errors
/// A transform for other channels, options out of range.
pub fn in_order(
    dataset: Arc<LabelledDataset>,
    transform: Arc<dyn Transform>,
    batch_size: usize,
    options: &LoaderOptions,
) -> Result<Loader<LabelledSource>> {
    let sampler = EpochSampler::in_order(dataset.len(), batch_size)?;
    Loader::of(LabelledSource::new(dataset, transform, sampler)?, options.clone())
}

fn extract(
    loader: &Loader<LabelledSource>,
    device: Device,
    features: &mut impl FnMut(&Tensor) -> Result<Tensor>,
    done: &mut impl FnMut(u64),
) -> Result<Labelled> {
    let (mut rows, mut classes) = (Vec::new(), Vec::new());
    for batch in loader.epoch(0, 0) {
        let batch: Batch<LabelledImages> = batch?;
        if let Some((images, labels)) = batch.images.present()? {
            rows.push(tch::no_grad(|| features(&images.to_device(device)))?);
            done(labels.len() as u64);
            classes.extend(labels);
        }
    }
    if rows.is_empty() {
        return Err(Error::Data("none of the images can be read".into()));
    }
    let count = loader.source().dataset().classes().len() as i64;
    Labelled::new(Tensor::cat(&rows, 0), &classes, count)
}
