//! Everything that defines a pretraining run.
//!
//! Settings are laid over one another: the paper's defaults, then a preset,
//! then a file, then the command line. The result is validated once and saved
//! with the run.

mod types;

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use backbone::models::{self, Family, Model};
use engine::data::{IMAGENET_MEAN, IMAGENET_STD};
use engine::settings::{at_least, divides, not_negative, within};
use serde::{Deserialize, Serialize};
use toml::Table;

pub use engine::precision::Precision;
pub use types::{InputSize, OptimizerKind, Preset};

/// A run's settings; every field is an option of `pretrain train` and a key of
/// its configuration file. Defaults are those of the paper and official code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Images: a folder, a list of files, or tar shards.
    pub data: PathBuf,
    /// The run's folder.
    pub output: PathBuf,
    /// What the run is called in logs; the folder's name if empty.
    pub name: String,
    /// Registered model to pretrain.
    pub model: String,
    /// Channels of the images.
    pub in_chans: i64,
    /// Height and width of training crops in pixels.
    pub input_size: InputSize,
    /// Share of patches that is masked.
    pub mask_ratio: f64,
    /// Width of the decoder at the coarsest level.
    pub decoder_width: i64,
    /// Drop-path rate of the last block; the official rate of the model if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// Weights to start from (weights only; the run starts at step 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_weights: Option<PathBuf>,

    /// Images per optimizer step.
    pub batch_size: usize,
    /// Parts a batch is computed in, one after another, to save memory.
    pub accum_steps: usize,
    /// Passes over the images.
    pub epochs: u64,
    /// Epochs during which the learning rate rises.
    pub warmup_epochs: u64,
    /// LAMB, AdamW or SGD.
    pub optimizer: OptimizerKind,
    /// Peak learning rate per 256 images of batch.
    pub base_lr: f64,
    /// Weight decay at the first step.
    pub weight_decay: f64,
    /// Weight decay at the last step.
    pub weight_decay_end: f64,
    /// Largest global gradient norm; 0 switches clipping off.
    pub clip_grad: f64,
    /// First beta of LAMB and AdamW; momentum of SGD.
    pub beta1: f64,
    /// Second beta of LAMB and AdamW; 0.999 for ConvNeXt, else 0.95, if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta2: Option<f64>,

    /// Area of a training crop as a share of the image, smallest and largest.
    pub crop_scale: [f64; 2],
    /// Width by height of a training crop, smallest and largest.
    pub crop_ratio: [f64; 2],
    /// Probability of a horizontal flip.
    pub hflip: f64,
    /// Large JPEG files are decoded at a fraction of their size where training crops allow it.
    pub reduced_decode: bool,
    /// Mean of every channel, for pixels in 0–1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    /// Deviation of every channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// Share of the files that may be unreadable before the run stops.
    pub max_corrupt: f64,
    /// List the data anew instead of trusting a listing kept from an earlier run.
    pub relist: bool,
    /// Each process reads tar shards of its own and no others.
    pub own_shards: bool,

    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Arithmetic of convolutions and linear layers.
    pub precision: Precision,
    /// Threads of CPU arithmetic; 0: every core.
    pub threads: usize,
    /// Threads that read images; 0: as many as cores, at most 16.
    pub workers: usize,
    /// Seed of weights, order, crops, masks and drop-path.
    pub seed: u64,
    /// Batch norms of several processes share their statistics.
    pub sync_bn: bool,

    /// Epochs between checkpoints.
    pub checkpoint_epochs: u64,
    /// Steps between checkpoints within an epoch; 0: none.
    pub checkpoint_steps: u64,
    /// Checkpoints of past epochs that are kept besides last and best.
    pub keep: usize,
    /// Steps between records in metrics.jsonl and TensorBoard.
    pub log_steps: u64,
    /// Epochs between reconstruction pictures; 0: only at the end.
    pub picture_epochs: u64,
    /// Labelled images (`train` and `val`, each with one folder a class) whose
    /// nearest neighbours say what the encoder is worth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<PathBuf>,
    /// Epochs between such probes.
    pub probe_epochs: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            output: PathBuf::new(),
            name: String::new(),
            model: "resnet50".into(),
            in_chans: 3,
            input_size: InputSize::square(224),
            mask_ratio: 0.6,
            decoder_width: 768,
            drop_path: None,
            init_weights: None,
            batch_size: 4096,
            accum_steps: 1,
            epochs: 1600,
            warmup_epochs: 40,
            optimizer: OptimizerKind::Lamb,
            base_lr: 2e-4,
            weight_decay: 0.04,
            weight_decay_end: 0.2,
            clip_grad: 5.0,
            beta1: 0.9,
            beta2: None,
            crop_scale: [0.67, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            hflip: 0.5,
            reduced_decode: true,
            mean: None,
            std: None,
            max_corrupt: 0.1,
            relist: false,
            own_shards: false,
            device: "auto".into(),
            precision: Precision::Float32,
            threads: 0,
            workers: 0,
            seed: 0,
            sync_bn: true,
            checkpoint_epochs: 1,
            checkpoint_steps: 0,
            keep: 0,
            log_steps: 10,
            picture_epochs: 20,
            probe: None,
            probe_epochs: 20,
        }
    }
}

impl TrainConfig {
    /// The defaults with `layers` laid over them, later ones on top.
    ///
    /// # Errors
    /// A layer has a key that is no setting, or a value of another type.
    pub fn from_layers(layers: impl IntoIterator<Item = Table>) -> Result<Self> {
        Ok(engine::settings::from_layers(layers)?)
    }

    /// Fills what depends on other settings and refuses what cannot be run.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with its value and the rule.
    pub fn resolve(mut self) -> Result<Self> {
        let model = self.registered_model()?;
        if self.name.is_empty() {
            self.name =
                self.output.file_name().map_or_else(String::new, |n| n.to_string_lossy().into());
        }
        self.drop_path.get_or_insert(model.pretrain_drop_path);
        let convnext = model.family() == Family::ConvNeXt;
        self.beta2.get_or_insert(if convnext { 0.999 } else { 0.95 });
        let (mean, std) = self.default_statistics();
        self.mean = self.mean.or(mean);
        self.std = self.std.or(std);
        self.validate()?;
        Ok(self)
    }

    /// Statistics for the number of channels, where there are usual ones.
    fn default_statistics(&self) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
        match self.in_chans {
            // The grey value's, from ImageNet's channel means.
            1 => (Some(vec![0.449]), Some(vec![0.226])),
            3 => (Some(IMAGENET_MEAN.into()), Some(IMAGENET_STD.into())),
            _ => (None, None),
        }
    }

    fn validate(&self) -> Result<()> {
        ensure!(!self.data.as_os_str().is_empty(), "no images: name a folder with --data");
        ensure!(!self.output.as_os_str().is_empty(), "no run folder: name one with --output");
        at_least("in-chans", self.in_chans, 1)?;
        at_least("batch-size", self.batch_size, 1)?;
        at_least("accum-steps", self.accum_steps, 1)?;
        at_least("epochs", self.epochs, 1)?;
        at_least("checkpoint-epochs", self.checkpoint_epochs, 1)?;
        at_least("log-steps", self.log_steps, 1)?;
        at_least("probe-epochs", self.probe_epochs, 1)?;
        divides("accum-steps", self.accum_steps, "batch-size", self.batch_size)?;
        ensure!(
            self.warmup_epochs < self.epochs,
            "warmup-epochs is {}, but it must be below epochs {}",
            self.warmup_epochs,
            self.epochs
        );
        within(
            "mask-ratio",
            self.mask_ratio,
            self.mask_ratio > 0.0 && self.mask_ratio < 1.0,
            "(0, 1)",
        )?;
        within("hflip", self.hflip, (0.0..=1.0).contains(&self.hflip), "[0, 1]")?;
        within("max-corrupt", self.max_corrupt, (0.0..=1.0).contains(&self.max_corrupt), "[0, 1]")?;
        within("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "[0, 1)")?;
        let beta2 = self.beta2();
        within("beta2", beta2, (0.0..1.0).contains(&beta2), "[0, 1)")?;
        for (name, value) in [
            ("base-lr", self.base_lr),
            ("weight-decay", self.weight_decay),
            ("weight-decay-end", self.weight_decay_end),
            ("clip-grad", self.clip_grad),
        ] {
            not_negative(name, value)?;
        }
        for (name, [low, high], limit) in
            [("crop-scale", self.crop_scale, 1.0), ("crop-ratio", self.crop_ratio, f64::MAX)]
        {
            ensure!(
                low > 0.0 && low <= high && high <= limit,
                "{name} is {low}–{high}, but it must ascend from above 0{}",
                if limit == 1.0 { " to at most 1" } else { "" }
            );
        }
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            let Some(values) = values else {
                bail!(
                    "{} channels have no usual statistics: give --mean and --std, one value a \
                     channel, for pixels in 0–1",
                    self.in_chans
                );
            };
            ensure!(
                values.len() as i64 == self.in_chans,
                "{name} has {} values, but the images have {} channels",
                values.len(),
                self.in_chans
            );
        }
        let std = self.std.as_deref().unwrap_or_default();
        ensure!(std.iter().all(|&s| s > 0.0), "std is {std:?}, but every value must be positive");
        self.check_statistics(self.batch_size / self.accum_steps)
    }

    /// Refuses `part` images at a time if they leave batch norms one value a channel: a visible
    /// patch is one position of the coarsest map.
    ///
    /// # Errors
    /// They do, or the mask ratio leaves no patch visible or none masked.
    pub fn check_statistics(&self, part: usize) -> Result<()> {
        let keep = self.keep_count(self.patch_grid()?)?;
        ensure!(
            part * keep > 1,
            "a part of a batch is {part} image with {keep} visible patch, but batch norm needs \
             statistics of at least two; raise batch-size or input-size"
        );
        Ok(())
    }

    /// Patches (rows, columns) of a crop.
    fn patch_grid(&self) -> Result<(i64, i64)> {
        // Every registered model has total stride 32.
        const STRIDE: i64 = 32;
        let InputSize { height, width } = self.input_size;
        ensure!(
            height > 0 && height % STRIDE == 0 && width > 0 && width % STRIDE == 0,
            "input-size is {}, but its sides must be positive multiples of {STRIDE}, the \
             model's total stride",
            self.input_size
        );
        Ok((height / STRIDE, width / STRIDE))
    }

    /// Visible patches of an image cut into `(rows, cols)` patches.
    ///
    /// # Errors
    /// The ratio would leave none visible, or none masked.
    pub fn keep_count(&self, (rows, cols): (i64, i64)) -> Result<usize> {
        let total = (rows * cols) as usize;
        let keep = crate::mask::keep_count(total, self.mask_ratio);
        ensure!(
            keep > 0 && keep < total,
            "mask-ratio is {}, but of {rows}×{cols} patches it would leave {keep} visible; at \
             least one must be visible and one masked",
            self.mask_ratio
        );
        Ok(keep)
    }

    /// The registered model.
    ///
    /// # Errors
    /// No model has that name.
    pub fn registered_model(&self) -> Result<&'static Model> {
        Ok(models::find(&self.model)?)
    }

    /// Peak learning rate: the base rate scaled by the batch.
    pub fn peak_lr(&self) -> f64 {
        self.base_lr * self.batch_size as f64 / 256.0
    }

    /// Second beta, resolved.
    pub fn beta2(&self) -> f64 {
        self.beta2.unwrap_or(0.95)
    }
}
