//! Everything that defines a fine-tuning run.
//!
//! Settings are laid over one another: the defaults, a preset, a file, the
//! command line. The result is validated once and saved with the run.

mod types;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use backbone::models::{self, Model};
use engine::data::{IMAGENET_MEAN, IMAGENET_STD};
use engine::precision::Precision;
use engine::settings::{at_least, divides, not_negative, within};
use serde::{Deserialize, Serialize};

pub use types::{OptimizerKind, Policy, Preset};

use crate::losses::Loss;

/// Images of a batch that [`TrainConfig::base_lr`] is for.
pub const BASE_BATCH: f64 = 256.0;
/// In this share of the epochs a run is evaluated seldom, then after each.
const SELDOM_SHARE: f64 = 1.0 / 3.0;
/// Epochs between evaluations at first.
const SELDOM: u64 = 5;

/// A run's settings; every field is an option of `classify train` and a key of
/// its configuration file. Defaults are those of SparK's official ResNet-50
/// recipe on ImageNet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Folder with `train` and `val`, each with one folder a class.
    pub data: PathBuf,
    /// Training images, in place of the folder's `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_data: Option<PathBuf>,
    /// Validation images, in place of the folder's `val`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_data: Option<PathBuf>,
    /// The run's folder.
    pub output: PathBuf,
    /// What the run is called in logs; the folder's name if empty.
    pub name: String,

    /// Registered model.
    pub model: String,
    /// Side of the square images in pixels.
    pub input_size: usize,
    /// Drop-path rate of the last block.
    pub drop_path: f64,
    /// Pretrained backbone, in any format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_weights: Option<PathBuf>,
    /// Whole classifier to start from (weights only; the run starts at step 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Take only the backbone of `weights`, and learn the head anew.
    pub new_head: bool,
    /// What the head's first weights are multiplied by.
    pub head_init_scale: f64,

    /// Images per optimizer step.
    pub batch_size: usize,
    /// Parts a batch is computed in, one after another, to save memory.
    pub accum_steps: usize,
    /// Passes over the images.
    pub epochs: u64,
    /// Epochs during which the learning rate rises.
    pub warmup_epochs: u64,
    /// LAMB or AdamW.
    pub optimizer: OptimizerKind,
    /// What is minimised; the optimizer's official choice if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// Peak learning rate per 256 images of batch.
    pub base_lr: f64,
    /// Share of the learning rate from layer to layer down the backbone.
    pub layer_decay: f64,
    /// Weight decay, constant.
    pub weight_decay: f64,
    /// Largest global gradient norm; 0 switches clipping off.
    pub clip_grad: f64,
    /// First beta.
    pub beta1: f64,
    /// Second beta.
    pub beta2: f64,
    /// Decay of averaged weights, which are evaluated beside the others; 0: none.
    pub ema: f64,
    /// Let that decay rise over the first steps, so that short runs average over
    /// their own length.
    pub ema_warmup: bool,

    /// Augmentation of training images besides crop and flip.
    pub augment: Policy,
    /// Augmentations of each image in a row; an epoch is as long as with 1.
    pub repeats: usize,
    /// Area of a training crop as a share of the image, smallest and largest.
    pub crop_scale: [f64; 2],
    /// Width by height of a training crop, smallest and largest.
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip.
    pub hflip: f64,
    /// Large JPEG files are decoded at a fraction of their size where training crops allow it.
    pub reduced_decode: bool,
    /// Probability that a random rectangle is replaced by noise.
    pub random_erasing: f64,
    /// Alpha of Mixup; 0: none.
    pub mixup: f64,
    /// Alpha of CutMix; 0: none.
    pub cutmix: f64,
    /// Probability that a batch is mixed at all.
    pub mix_probability: f64,
    /// Of mixed batches, the share that CutMix mixes where both are on.
    pub cutmix_share: f64,
    /// Share of a target that is spread over all classes.
    pub label_smoothing: f64,
    /// Evaluation crops this share out of the resized short side's centre.
    pub eval_crop: f64,
    /// Evaluation squeezes the whole image instead, out of proportion.
    pub eval_squash: bool,
    /// Mean of every channel, for pixels in 0–1.
    pub mean: [f32; 3],
    /// Deviation of every channel.
    pub std: [f32; 3],
    /// Share of the files that may be unreadable before the run stops.
    pub max_corrupt: f64,
    /// List the data anew instead of trusting a listing kept from an earlier run.
    pub relist: bool,

    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Arithmetic of convolutions and linear layers.
    pub precision: Precision,
    /// Threads of CPU arithmetic; 0: every core.
    pub threads: usize,
    /// Threads that read images; 0: as many as cores, at most 16.
    pub workers: usize,
    /// Seed of weights, order, augmentation, mixing and drop-path.
    pub seed: u64,
    /// Batch norms of several processes share their statistics.
    pub sync_bn: bool,

    /// Images evaluated at a time; 0: as many as a part of a batch has.
    pub eval_batch_size: usize,
    /// Epochs between evaluations; 0: 5 in the first third of the run, then 1.
    pub eval_epochs: u64,
    /// Epochs between checkpoints.
    pub checkpoint_epochs: u64,
    /// Steps between checkpoints within an epoch; 0: none.
    pub checkpoint_steps: u64,
    /// Checkpoints of past epochs that are kept besides last and best.
    pub keep: usize,
    /// Steps between records in metrics.jsonl and TensorBoard.
    pub log_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            train_data: None,
            val_data: None,
            output: PathBuf::new(),
            name: String::new(),
            model: "resnet50".into(),
            input_size: 224,
            drop_path: 0.05,
            backbone_weights: None,
            weights: None,
            new_head: false,
            head_init_scale: 1.0,
            batch_size: 2048,
            accum_steps: 1,
            epochs: 300,
            warmup_epochs: 5,
            optimizer: OptimizerKind::Lamb,
            loss: None,
            base_lr: 2e-3,
            layer_decay: 0.7,
            weight_decay: 0.02,
            clip_grad: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            ema: 0.9999,
            ema_warmup: false,
            augment: Policy::TrivialWide,
            repeats: 1,
            crop_scale: [0.08, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            hflip: 0.5,
            reduced_decode: true,
            random_erasing: 0.25,
            mixup: 0.1,
            cutmix: 1.0,
            mix_probability: 1.0,
            cutmix_share: 0.5,
            label_smoothing: 0.1,
            eval_crop: 0.95,
            eval_squash: false,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
            max_corrupt: 0.01,
            relist: false,
            device: "auto".into(),
            precision: Precision::Float32,
            threads: 0,
            workers: 0,
            seed: 0,
            sync_bn: true,
            eval_batch_size: 0,
            eval_epochs: 0,
            checkpoint_epochs: 1,
            checkpoint_steps: 0,
            keep: 0,
            log_steps: 10,
        }
    }
}

impl TrainConfig {
    /// Fills what depends on other settings and refuses what cannot be run.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with its value and the rule.
    pub fn resolve(mut self) -> Result<Self> {
        if self.name.is_empty() {
            self.name =
                self.output.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
        }
        self.loss.get_or_insert(match self.optimizer {
            OptimizerKind::Lamb => Loss::Bce,
            OptimizerKind::Adamw => Loss::CrossEntropy,
        });
        self.validate()?;
        Ok(self)
    }

    fn validate(&self) -> Result<()> {
        ensure!(
            !self.data.as_os_str().is_empty()
                || self.train_data.is_some() && self.val_data.is_some(),
            "no data: name a folder with --data, or folders with --train-data and --val-data"
        );
        ensure!(!self.output.as_os_str().is_empty(), "no run folder: name one with --output");
        self.registered_model()?;
        at_least("input-size", self.input_size, 32)?;
        at_least("batch-size", self.batch_size, 1)?;
        at_least("accum-steps", self.accum_steps, 1)?;
        at_least("epochs", self.epochs, 1)?;
        at_least("checkpoint-epochs", self.checkpoint_epochs, 1)?;
        at_least("log-steps", self.log_steps, 1)?;
        at_least("repeats", self.repeats, 1)?;
        within(
            "warmup-epochs",
            self.warmup_epochs as f64,
            self.warmup_epochs < self.epochs,
            &format!("[0, {}): the run has {} epochs", self.epochs, self.epochs),
        )?;
        divides("accum-steps", self.accum_steps, "batch-size", self.batch_size)?;
        for (name, value) in [
            ("hflip", self.hflip),
            ("random-erasing", self.random_erasing),
            ("mix-probability", self.mix_probability),
            ("cutmix-share", self.cutmix_share),
            ("max-corrupt", self.max_corrupt),
        ] {
            within(name, value, (0.0..=1.0).contains(&value), "[0, 1]")?;
        }
        for (name, value) in [
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("ema", self.ema),
            ("drop-path", self.drop_path),
            ("label-smoothing", self.label_smoothing),
        ] {
            within(name, value, (0.0..1.0).contains(&value), "[0, 1)")?;
        }
        for (name, value) in [
            ("base-lr", self.base_lr),
            ("weight-decay", self.weight_decay),
            ("clip-grad", self.clip_grad),
            ("mixup", self.mixup),
            ("cutmix", self.cutmix),
            ("head-init-scale", self.head_init_scale),
        ] {
            not_negative(name, value)?;
        }
        for (name, value) in [("layer-decay", self.layer_decay), ("eval-crop", self.eval_crop)] {
            within(name, value, value > 0.0 && value <= 1.0, "(0, 1]")?;
        }
        ensure!(
            self.weights.is_none() || self.backbone_weights.is_none(),
            "weights and backbone-weights are both given, but a classifier has its own backbone"
        );
        Ok(())
    }

    /// The model's entry in the registry.
    ///
    /// # Errors
    /// There is no such model.
    pub fn registered_model(&self) -> Result<&'static Model> {
        Ok(models::find(&self.model)?)
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
        ensure!(
            path.is_dir(),
            "{} is no folder: {split} images are read from one folder a class, in {split} under \
             --data, or where --{split}-data says",
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
        self.base_lr * self.batch_size as f64 / BASE_BATCH
    }

    /// Whether the run is evaluated after `epoch` (from 1).
    pub fn evaluates_after(&self, epoch: u64) -> bool {
        let every = match self.eval_epochs {
            0 if (epoch as f64) < self.epochs as f64 * SELDOM_SHARE => SELDOM,
            0 => 1,
            every => every,
        };
        epoch == self.epochs || epoch.is_multiple_of(every)
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
