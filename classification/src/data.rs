//! From folders of images to batches.

use std::sync::Arc;

use anyhow::{Result, ensure};
use data::{
    AutoAugment, DatasetOptions, EpochSampler, Evaluate, FinetuneTransform, IMAGENET_MEAN,
    IMAGENET_STD, Interpolation, LabelledDataset, LabelledSource, Loader, LoaderOptions, Mixup,
    Normalize, RandomErasing, RandomHorizontalFlip, RandomResizedCrop, TrivialAugmentWide,
};
use engine::distributed::ProcessGroup;
use engine::probe::in_order;
use serde::{Deserialize, Serialize};

use crate::train::{AugmentPolicy, CropMode, TrainConfig};

/// How images are prepared for evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageSettings {
    /// Side of the square images in pixels.
    pub size: usize,
    /// Share of the resized short side that is cropped from the centre.
    pub crop: f64,
    /// Whether the centre is cropped at all.
    #[serde(alias = "squash")]
    pub crop_mode: CropMode,
    /// How they are resized.
    pub interpolation: Interpolation,
    /// Mean of every channel, for pixels in 0–1.
    pub mean: [f32; 3],
    /// Deviation of every channel.
    pub std: [f32; 3],
}

impl ImageSettings {
    /// 224 pixels out of 256, ImageNet's mean and deviation.
    pub const IMAGENET: Self = Self {
        size: 224,
        crop: 0.875,
        crop_mode: CropMode::Center,
        interpolation: Interpolation::Bicubic,
        mean: IMAGENET_MEAN,
        std: IMAGENET_STD,
    };

    /// The transform.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn transform(&self) -> Result<Evaluate> {
        let (normalize, filter) = (self.normalize()?, self.interpolation);
        Ok(match self.crop_mode {
            CropMode::Squash => Evaluate::squashed((self.size, self.size), filter, normalize)?,
            CropMode::Center => Evaluate::with_crop_pct(self.size, self.crop, filter, normalize)?,
        })
    }

    fn normalize(&self) -> Result<Normalize> {
        Ok(Normalize::new(self.mean.to_vec(), self.std.to_vec())?)
    }
}

impl From<&TrainConfig> for ImageSettings {
    fn from(config: &TrainConfig) -> Self {
        Self {
            size: config.input_size,
            crop: config.crop_pct,
            crop_mode: config.crop_mode,
            interpolation: Interpolation::Bicubic,
            mean: config.mean,
            std: config.std,
        }
    }
}

/// What images are read as.
pub fn reading() -> DatasetOptions {
    DatasetOptions::default()
}

/// How a run's images are listed.
pub fn dataset_options(config: &TrainConfig, world: &ProcessGroup) -> DatasetOptions {
    let (relist, reduced_decode) = (config.crops.refresh_index, config.crops.reduced_decode);
    let storage = config.crops.storage(world);
    DatasetOptions { relist, reduced_decode, storage, ..reading() }
}

/// The images of a run's `train` and `val`, whose classes are the first's.
///
/// # Errors
/// A folder is missing, has no classes or empty ones, or the second has classes
/// of its own.
pub fn datasets(config: &TrainConfig, world: &ProcessGroup) -> Result<[Arc<LabelledDataset>; 2]> {
    let [training, validation] = world.all_ok(config.folders())?;
    let options = dataset_options(config, world);
    let training = LabelledDataset::open_among(training, &options, world)?;
    let classes = training.classes();
    let validation = LabelledDataset::open_as_among(validation, &options, classes, world)?;
    Ok([Arc::new(training), Arc::new(validation)])
}

/// Augmented images in a new order every epoch.
///
/// # Errors
/// Settings out of range.
pub fn training_loader(
    config: &TrainConfig,
    dataset: Arc<LabelledDataset>,
    world: &ProcessGroup,
) -> Result<Loader<LabelledSource>> {
    use data::Policy as Operations;
    let size = (config.input_size, config.input_size);
    let (scale, ratio) = (config.crops.crop_scale.into(), config.crops.crop_ratio.into());
    let crop = RandomResizedCrop::new(size, scale, ratio, Interpolation::Bicubic)?;
    let normalize = ImageSettings::from(config).normalize()?;
    let policy = match config.augment {
        AugmentPolicy::None => Operations::None,
        AugmentPolicy::TrivialWide => Operations::TrivialAugmentWide(TrivialAugmentWide::default()),
        AugmentPolicy::AutoV0 => Operations::AutoAugment(AutoAugment::with_mean(&normalize)),
    };
    let erasing = (config.random_erasing > 0.0)
        .then(|| RandomErasing::new(config.random_erasing))
        .transpose()?;
    let flip = RandomHorizontalFlip::new(config.crops.hflip)?;
    let transform = Arc::new(FinetuneTransform::new(crop, flip, policy, normalize, erasing)?);
    let own = world.micro_batch_size(config.optim.batch_size, config.optim.accum_steps)?
        * config.optim.accum_steps;
    ensure!(
        world.is_alone() || own.is_multiple_of(2) || mixup(config)?.is_none(),
        "batch-size {} makes {own} images on each of {} processes, but mixing pairs the images of \
         a process, and needs an even number there",
        config.optim.batch_size,
        world.size()
    );
    let (rank, size) = (world.rank(), world.size());
    let sampler = EpochSampler::distributed(dataset.len(), own, config.execution.seed, rank, size)?
        .with_repeats(config.aug_repeats)?;
    Ok(Loader::new(dataset, transform, sampler, config.loading.options(world))?)
}

/// Each image of this process's part of them once, as for evaluation.
///
/// # Errors
/// Settings out of range.
pub fn evaluation_loader(
    dataset: Arc<LabelledDataset>,
    images: &ImageSettings,
    batch_size: usize,
    options: &LoaderOptions,
    world: &ProcessGroup,
) -> Result<Loader<LabelledSource>> {
    Ok(in_order(dataset, Arc::new(images.transform()?), batch_size, options, world)?)
}

/// How batches are mixed; none where that is switched off.
///
/// # Errors
/// Settings out of range.
pub fn mixup(config: &TrainConfig) -> Result<Option<Mixup>> {
    let off = config.mixup == 0.0 && config.cutmix == 0.0 || config.mixup_prob == 0.0;
    let mixup = Mixup::new(config.mixup, config.cutmix, config.mixup_switch_prob)?;
    Ok((!off).then_some(mixup))
}
