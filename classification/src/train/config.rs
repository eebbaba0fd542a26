//! Everything that defines a fine-tuning run.
//!
//! Settings are laid over one another: the defaults, a preset, a file, the
//! command line. The result is validated once and saved with the run.

mod types;

use std::ops::Bound::{Excluded, Included};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use backbone::models;
use data::{IMAGENET_MEAN, IMAGENET_STD, Location};
use engine::optim::OptimizerKind;
use engine::settings;
use engine::settings::{
    CropSettings, ExecutionSettings, LoadingSettings, OptimSettings, RunSettings, Settings as _,
    TrainSettings, at_least, decay_rate, not_negative, share, within,
};

use serde_json::{Map, Value};

pub use types::{AugmentPolicy, CropMode, Preset};

use crate::losses::Loss;

/// Images of a batch that [`TrainConfig::base_lr`] is for.
pub const BASE_BATCH: f64 = 256.0;
/// In this share of the epochs a run is evaluated seldom, then after each.
const SELDOM_SHARE: f64 = 1.0 / 3.0;
/// Epochs between evaluations at first.
const SELDOM: u64 = 5;
/// Drop-path rate of a registered model.
const DROP_PATH: f64 = 0.05;

settings! {
    /// A run's settings; each is a flag of `classify train` and a key of its configuration file.
    /// Defaults are those of SparK's ResNet-50 recipe on ImageNet.
    pub struct TrainConfig {
        ..run: RunSettings = RunSettings::default();
        ..optim: OptimSettings = OptimSettings {
            batch_size: 2048,
            epochs: 300,
            optimizer: OptimizerKind::Lamb,
            base_lr: 2e-3,
            weight_decay: 0.02,
            ema: 0.9999,
            ema_warmup: false,
            ..OptimSettings::default()
        };
        ..crops: CropSettings = CropSettings::default();
        ..loading: LoadingSettings = LoadingSettings::default();
        ..execution: ExecutionSettings = ExecutionSettings::default();

        /// Folder with `train` and `val`, each with one folder of images a class; also a prefix in
        /// object storage, such as s3://bucket/flowers/
        #[arg(value_name = "DIR")]
        data: PathBuf;
        /// Training images, in place of the folder's `train`; or tar shards with .cls or .json
        /// members, such as 's3://bucket/train-{000..099}.tar'
        #[arg(value_name = "PATH")]
        train_data: Option<PathBuf>;
        /// Validation images, in place of the folder's `val`; or such shards
        #[arg(value_name = "PATH")]
        val_data: Option<PathBuf>;

        /// Model, see `pretrain models`, or a .pt2 file that torch.export has written; if not given,
        /// that of the weights where it is one of these
        #[arg(help_heading = "Model")]
        model: String = "resnet50".into();
        /// Side of the square images in pixels
        #[arg(value_name = "PIXELS", help_heading = "Model")]
        input_size: usize = 224, at_least(32);
        /// Drop-path rate of the last block; 0.05, a .pt2 file's own rates, if not given
        #[arg(value_name = "RATE", help_heading = "Model")]
        drop_path: Option<f64>, decay_rate;
        /// Pretrained backbone: a run of `pretrain`, or a weight file of any format, also
        /// hf:owner/name[@revision][/file] and s3://bucket/key
        #[arg(value_name = "PATH", help_heading = "Model")]
        backbone_weights: Option<PathBuf>;
        /// Whole classifier to start from, also hf:owner/name and s3://bucket/key; the run still
        /// begins at step 0
        #[arg(conflicts_with = "backbone_weights", value_name = "PATH", help_heading = "Model")]
        weights: Option<PathBuf>;
        /// Take only the backbone of --weights, and learn a new head
        #[arg(alias = "new-head", help_heading = "Model")]
        reset_head: bool = false;
        /// Factor of the head's initial weights
        #[arg(value_name = "FACTOR", help_heading = "Model")]
        head_init_scale: f64 = 1.0, not_negative;

        /// Epochs of learning-rate warm-up
        #[arg(alias = "wp-ep", value_name = "N", help_heading = "Optimisation")]
        warmup_epochs: u64 = 5;
        /// Loss; if not given, bce with LAMB, else cross-entropy
        #[arg(help_heading = "Optimisation")]
        loss: Option<Loss>;
        /// Layer-wise learning-rate decay factor
        #[arg(alias = "lr-scale", value_name = "FACTOR", help_heading = "Optimisation")]
        layer_decay: f64 = 0.7, within((Excluded(0.0), Included(1.0)), "(0, 1]");

        /// Augmentation besides crop and flip
        #[arg(help_heading = "Data")]
        augment: AugmentPolicy = AugmentPolicy::TrivialWide;
        /// Repeated augmentation: each image so many times in a row; an epoch is as long as with 1
        #[arg(alias = "repeats", alias = "rep-aug", value_name = "N", help_heading = "Data")]
        aug_repeats: usize = 1, at_least(1);
        /// Probability that a random rectangle is replaced by noise
        #[arg(alias = "rep", value_name = "P", help_heading = "Data")]
        random_erasing: f64 = 0.25, share;
        /// Alpha of Mixup, 0 for none
        #[arg(value_name = "ALPHA", help_heading = "Data")]
        mixup: f64 = 0.1, not_negative;
        /// Alpha of CutMix, 0 for none
        #[arg(value_name = "ALPHA", help_heading = "Data")]
        cutmix: f64 = 1.0, not_negative;
        /// Probability that Mixup or CutMix is applied to a batch
        #[arg(alias = "mix-probability", value_name = "P", help_heading = "Data")]
        mixup_prob: f64 = 1.0, share;
        /// Probability of CutMix in place of Mixup, if both are on
        #[arg(alias = "cutmix-share", value_name = "P", help_heading = "Data")]
        mixup_switch_prob: f64 = 0.5, share;
        /// Label smoothing
        #[arg(value_name = "SHARE", help_heading = "Data")]
        label_smoothing: f64 = 0.1, decay_rate;
        /// Centre crop of the resized image in evaluation
        #[arg(alias = "eval-crop", value_name = "SHARE", help_heading = "Data")]
        crop_pct: f64 = 0.95, within((Excluded(0.0), Included(1.0)), "(0, 1]");
        /// How images are brought to a square in evaluation
        #[arg(alias = "eval-squash", num_args = 0..=1, default_missing_value = "squash",
              help_heading = "Data")]
        crop_mode: CropMode = CropMode::Center;

        /// Images evaluated at a time, 0 for as many as are trained on at a time
        #[arg(value_name = "N", help_heading = "Output")]
        eval_batch_size: usize = 0;
        /// Epochs between evaluations, 0 for none but the last; if not given, 5 in the first third
        /// of the run, then 1
        #[arg(value_name = "N", help_heading = "Output")]
        eval_epochs: Option<u64>;

        @
        /// Mean of every channel, for pixels in 0–1.
        mean: [f32; 3] = IMAGENET_MEAN;
        @
        /// Standard deviation of every channel.
        std: [f32; 3] = IMAGENET_STD;
        upgrade = upgrade;
    }
}

/// In checkpoints of the first version no interval between evaluations was written as 0.
fn upgrade(config: &mut Map<String, Value>) {
    if config.get("eval-epochs") == Some(&0.into()) {
        config.remove("eval-epochs");
    }
}

impl TrainSettings for TrainConfig {
    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn execution(&self) -> &ExecutionSettings {
        &self.execution
    }

    fn starting_weights(&self) -> Option<&Path> {
        self.weights.as_deref().or(self.backbone_weights.as_deref())
    }

    fn resolve(mut self) -> Result<Self> {
        self.run.resolve_name();
        self.loss.get_or_insert(match self.optim.optimizer {
            OptimizerKind::Lamb => Loss::Bce,
            _ => Loss::CrossEntropy,
        });
        let usual = models::registered(&self.model)?.map_or(0.0, |_| DROP_PATH);
        self.drop_path.get_or_insert(usual);
        self.validate()?;
        Ok(self)
    }
}

impl TrainConfig {
    fn validate(&self) -> Result<()> {
        ensure!(
            !self.data.as_os_str().is_empty()
                || self.train_data.is_some() && self.val_data.is_some(),
            "no data: name a folder with --data, or folders with --train-data and --val-data"
        );
        self.check_each()?;
        self.run.check()?;
        self.optim.check()?;
        ensure!(
            self.warmup_epochs < self.optim.epochs,
            "warmup-epochs is {}, but it must be below epochs {}",
            self.warmup_epochs,
            self.optim.epochs
        );
        ensure!(
            self.weights.is_none() || self.backbone_weights.is_none(),
            "weights and backbone-weights are both given, but a classifier has its own backbone"
        );
        Ok(())
    }

    /// The folders of training and validation images.
    ///
    /// # Errors
    /// One is not there; the message says how to name it.
    pub fn folders(&self) -> Result<[PathBuf; 2]> {
        Ok([self.folder(&self.train_data, "train")?, self.validation_folder()?])
    }

    /// The folder of the validation images.
    ///
    /// # Errors
    /// It is not there; the message says how to name it.
    pub fn validation_folder(&self) -> Result<PathBuf> {
        self.folder(&self.val_data, "val")
    }

    fn folder(&self, named: &Option<PathBuf>, split: &str) -> Result<PathBuf> {
        let path = named.clone().unwrap_or_else(|| self.data.join(split));
        // Of a store it is said when it is listed; shards have their labels beside them.
        let elsewhere =
            path.to_str().is_some_and(|name| Location::is_one(name) || name.contains('{'));
        ensure!(
            elsewhere || path.is_dir() || named.is_some() && path.is_file(),
            "{} is no folder: {split} images are read from one folder a class, in {split} under \
             --data, or where --{split}-data says; shards with labels are named there, such as \
             --{split}-data '{split}-{{000..099}}.tar'",
            path.display()
        );
        Ok(path)
    }

    /// What is minimised; settings are resolved.
    pub fn loss(&self) -> Loss {
        self.loss.unwrap_or(Loss::Bce)
    }

    /// Peak learning rate: the base rate scaled by the batch.
    pub fn peak_lr(&self) -> f64 {
        self.optim.peak_lr(BASE_BATCH)
    }

    /// Whether the run is evaluated after `epoch` (from 1).
    pub fn evaluates_after(&self, epoch: u64) -> bool {
        let epochs = self.optim.epochs;
        let every = match self.eval_epochs {
            None if (epoch as f64) < epochs as f64 * SELDOM_SHARE => SELDOM,
            None => 1,
            Some(every) => every,
        };
        epoch == epochs || every > 0 && epoch.is_multiple_of(every)
    }

    /// Images evaluated at a time, where `part` are trained on at a time.
    pub fn eval_batch(&self, part: usize) -> usize {
        match self.eval_batch_size {
            0 => part,
            size => size,
        }
    }
}

#[cfg(test)]
mod tests;
