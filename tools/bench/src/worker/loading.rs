//! Files to augmented, normalised batches, as `pretrain train` loads them.

use std::sync::Arc;

use anyhow::{Context, Result};
use data::{
    Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions, Normalize,
    PretrainTransform, RandomHorizontalFlip, RandomResizedCrop, StorageOptions,
};
use engine::device::to_device;
use tch::{Device, Kind, Tensor};

use super::{Common, timed};
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Which batches.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Images of a batch
    #[arg(long)]
    batch: usize,
    /// Batches of a round
    #[arg(long)]
    batches: usize,
    /// Side of the crops in pixels
    #[arg(long)]
    size: usize,
    /// Keep what is read of a store in a folder
    #[arg(long)]
    cache: bool,
}

/// Serves batches until the input ends.
///
/// # Errors
/// The photographs cannot be read.
pub fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { common, batch, batches, size, cache } = arguments;
    let memory = Baseline::now()?;
    let kept = cache.then(tempfile::tempdir).transpose()?;
    let folder = kept.as_ref().map(|kept| (kept.path().to_owned(), 10_000_000_000));
    let storage = StorageOptions { cache: folder, ..StorageOptions::default() };
    let options = DatasetOptions { listings: None, storage, ..DatasetOptions::default() };
    let dataset = Arc::new(Dataset::open(&common.inputs, &options)?);
    let sampler = EpochSampler::new(dataset.len(), *batch, 0)?;
    // Whole epochs, so that nothing is loaded that no round takes.
    let epochs = (*batches as u64).div_ceil(sampler.steps());
    let transform = PretrainTransform {
        crop: RandomResizedCrop::new(
            (*size, *size),
            RandomResizedCrop::SCALE,
            RandomResizedCrop::RATIO,
            Interpolation::Bicubic,
        )?,
        flip: RandomHorizontalFlip::new(0.5)?,
        normalize: Normalize::imagenet(),
    };
    let options = LoaderOptions::new(common.threads, 0.0);
    let loader = Loader::new(dataset, Arc::new(transform), sampler, options)?;

    let mut statistics = Statistics::default();
    for loaded in loader.batches(0..epochs, 0) {
        statistics.add(&Tensor::try_from(&*loaded?.images)?);
    }
    let mut done = epochs;
    serve(Ready::default().with("statistics", statistics.finish()?), || {
        let from = done;
        done += epochs;
        let images = (epochs * loader.steps() * *batch as u64) as f64;
        timed(images, &memory, || {
            // Into a tensor, as training takes them and the other side gives them.
            loader.batches(from..from + epochs, 0).try_for_each(|loaded| {
                drop(std::hint::black_box(to_device(&loaded?.images, Device::Cpu, Kind::Float)?));
                Ok(())
            })
        })
    })
}

/// Means and deviations of the channels.
#[derive(Default)]
struct Statistics {
    /// Of values and of their squares, `[C]`, over so many batches.
    means: Option<[Tensor; 2]>,
    batches: f64,
}

impl Statistics {
    /// Takes in `[N, C, H, W]`.
    fn add(&mut self, images: &Tensor) {
        let mean = |values: &Tensor| values.mean_dim([0, 2, 3].as_slice(), false, Kind::Double);
        let [values, squares] = [mean(images), mean(&images.square())];
        self.means = Some(match self.means.take() {
            None => [values, squares],
            Some([sum, sum_of_squares]) => [sum + values, sum_of_squares + squares],
        });
        self.batches += 1.0;
    }

    fn finish(self) -> Result<Vec<f64>> {
        let [mean, square] = self.means.context("no batch was loaded")?;
        let (mean, square) = (mean / self.batches, square / self.batches);
        let deviation = (square - mean.square()).sqrt();
        Ok(Vec::try_from(Tensor::cat(&[mean, deviation], 0))?)
    }
}
