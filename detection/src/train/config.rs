//! Everything that defines a training run.
//!
//! Settings are laid over one another: the defaults, a preset, a file, the
//! command line. The result is validated once and saved with the run.

mod files;
mod rules;
mod types;

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, ensure};
use engine::precision::Precision;
use engine::settings::lay_over;
use serde::{Deserialize, Serialize};
use toml::Table;

pub use types::{Preset, Schedule};

use crate::data::{EvalTransform, TrainTransform};
use crate::modeling::ModelConfig;
use crate::modeling::config::BackboneNorm;

/// Images of a batch that [`TrainConfig::base_lr`] is for.
pub const BASE_BATCH: f64 = 16.0;
/// Keys of a [`ModelConfig`] that are settings of their own, or come from the
/// data.
const OWN_KEYS: [&str; 3] = ["backbone", "drop-path", "num-classes"];

/// A run's settings; every field is an option of `detect train` and a key of its
/// configuration file. Defaults are those of SparK's ResNet-50 recipe in
/// detectron2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainConfig {
    /// Folder laid out as COCO's: `annotations/instances_train*.json`,
    /// `annotations/instances_val*.json`, and the images beside.
    pub data: PathBuf,
    /// Training objects, in place of the folder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_annotations: Option<PathBuf>,
    /// Folder of the training images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_images: Option<PathBuf>,
    /// Validation objects, in place of the folder's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_annotations: Option<PathBuf>,
    /// Folder of the validation images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub val_images: Option<PathBuf>,
    /// The run's folder.
    pub output: PathBuf,
    /// What the run is called in logs; the folder's name if empty.
    pub name: String,

    /// Detector that `[model]` changes: a name of [`ModelConfig::PRESETS`].
    pub detector: String,
    /// Narrower heads and smaller anchors, see [`ModelConfig::small`].
    pub small: bool,
    /// Predict masks, not boxes alone.
    pub masks: bool,
    /// Registered backbone, or what the plugin is told to create; the detector's
    /// own if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone: Option<String>,
    /// Shared library that the backbone comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_plugin: Option<PathBuf>,
    /// Drop-path rate of the backbone's last block; the detector's own if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drop_path: Option<f64>,
    /// Pretrained backbone, in any format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backbone_weights: Option<PathBuf>,
    /// Whole detector to start from (weights only; the run starts at step 0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Learn the classes anew when starting from a detector for others.
    pub new_classes: bool,
    /// Parts of the backbone that stay as they are: 1 the stem, 2 and the first
    /// stage, …
    pub freeze: usize,
    /// The backbone's batch norms keep their running statistics.
    pub norm_eval: bool,

    /// Images per optimizer step.
    pub batch_size: usize,
    /// Parts a batch is computed in, one after another, to save memory.
    pub accum_steps: usize,
    /// Passes over the images, where no iterations are given.
    pub epochs: u64,
    /// Optimizer steps in all; 0: as many as the epochs have.
    pub iterations: u64,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Where it steps down: after so many iterations, or epochs where those
    /// define the run.
    pub milestones: Vec<u64>,
    /// What it is multiplied by there.
    pub gamma: f64,
    /// Steps during which it rises.
    pub warmup_iterations: u64,
    /// What it rises from, as a share of its peak.
    pub warmup_factor: f64,
    /// Peak learning rate per 16 images of batch.
    pub base_lr: f64,
    /// Share of the learning rate from layer to layer down the backbone.
    pub layer_decay: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Whether it holds for biases of convolutions and linear layers, too.
    pub decay_biases: bool,
    /// Largest global gradient norm; 0 switches clipping off.
    pub clip_grad: f64,
    /// AdamW's first beta.
    pub beta1: f64,
    /// AdamW's second beta.
    pub beta2: f64,
    /// Decay of averaged weights, which are then evaluated and exported; 0: none.
    pub ema: f64,
    /// Batches that batch norms' statistics are renewed over before an
    /// evaluation; 0: none.
    pub precise_bn: u64,

    /// Also train on images without objects.
    pub keep_empty: bool,
    /// Share of the files that may be unreadable before the run stops.
    pub max_corrupt: f64,
    /// Short side of images in evaluation, in pixels.
    pub eval_short_side: usize,
    /// Longest long side in evaluation.
    pub eval_max_side: usize,

    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Arithmetic of convolutions and linear layers.
    pub precision: Precision,
    /// Threads of CPU arithmetic; 0: every core.
    pub threads: usize,
    /// Threads that read images; 0: as many as cores, at most 16.
    pub workers: usize,
    /// Seed of weights, order, augmentation, sampling and drop-path.
    pub seed: u64,
    /// Batch norms of several processes share their statistics.
    pub sync_bn: bool,

    /// Epochs between checkpoints; 0: none but the last.
    pub checkpoint_epochs: u64,
    /// Steps between further checkpoints; 0: none.
    pub checkpoint_steps: u64,
    /// Epochs between evaluations; 0: only at the end.
    pub eval_epochs: u64,
    /// Steps between further evaluations; 0: none.
    pub eval_steps: u64,
    /// Checkpoints of past epochs that are kept besides last and best.
    pub keep: usize,
    /// Steps between records in metrics.jsonl and TensorBoard.
    pub log_steps: u64,
    /// Validation images in the pictures of predictions; 0: no pictures.
    pub pictures: usize,

    /// What training images go through.
    pub augmentation: TrainTransform,
    /// What differs from the detector's preset, in the end all of it.
    pub model: Table,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            train_annotations: None,
            train_images: None,
            val_annotations: None,
            val_images: None,
            output: PathBuf::new(),
            name: String::new(),
            detector: "mask_rcnn_resnet50".into(),
            small: false,
            masks: true,
            backbone: None,
            backbone_plugin: None,
            drop_path: None,
            backbone_weights: None,
            weights: None,
            new_classes: false,
            freeze: 0,
            norm_eval: false,
            batch_size: 16,
            accum_steps: 1,
            epochs: 12,
            iterations: 90_000,
            schedule: Schedule::Step,
            milestones: vec![60_000, 80_000],
            gamma: 0.25,
            warmup_iterations: 1000,
            warmup_factor: 0.01,
            base_lr: 2.5e-4,
            layer_decay: 0.6,
            weight_decay: 1e-4,
            decay_biases: true,
            clip_grad: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            ema: 0.0,
            precise_bn: 200,
            keep_empty: false,
            max_corrupt: 0.01,
            eval_short_side: 800,
            eval_max_side: 1333,
            device: "auto".into(),
            precision: Precision::Float32,
            threads: 0,
            workers: 0,
            seed: 0,
            sync_bn: true,
            checkpoint_epochs: 0,
            checkpoint_steps: 5000,
            eval_epochs: 0,
            eval_steps: 5000,
            keep: 0,
            log_steps: 20,
            pictures: 6,
            augmentation: TrainTransform::detectron2(),
            model: Table::new(),
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
        let mut model = self.detector_config()?;
        if !self.masks {
            model.mask_head = None;
        }
        self.backbone = Some(self.backbone.unwrap_or(model.backbone.clone()));
        let usual = if self.backbone_plugin.is_none() { model.drop_path } else { 0.0 };
        self.drop_path = Some(self.drop_path.unwrap_or(usual));
        self.model = Table::try_from(&model)?;
        self.model.retain(|key, _| !OWN_KEYS.contains(&key));
        self.validate()?;
        Ok(self)
    }

    /// The detector's preset with `[model]` laid over it.
    fn detector_config(&self) -> Result<ModelConfig> {
        let mut preset = ModelConfig::preset(&self.detector)
            .map_err(|error| anyhow!("{}", error.to_string().replacen("preset", "detector", 1)))?;
        if self.small {
            preset = preset.small();
        }
        let mut table = Table::try_from(&preset)?;
        for key in OWN_KEYS {
            ensure!(
                !self.model.contains_key(key),
                "[model] has {key}, but that is a setting of its own, or comes from the data"
            );
        }
        lay_over(&mut table, self.model.clone());
        table.try_into().context("[model] does not describe a detector")
    }

    /// The whole detector, for so many classes.
    ///
    /// # Errors
    /// Settings of the detector out of range.
    pub fn model(&self, num_classes: i64) -> Result<ModelConfig> {
        let mut model = self.detector_config()?.with_classes(num_classes);
        if !self.masks {
            model.mask_head = None;
        }
        if self.norm_eval {
            model.backbone_norm = BackboneNorm::Frozen;
        }
        if let Some(backbone) = &self.backbone {
            model.backbone = backbone.clone();
        }
        if let Some(rate) = self.drop_path {
            model.drop_path = rate;
        }
        model.check()?;
        Ok(model)
    }

    /// The backbone's name, resolved.
    pub fn backbone(&self) -> &str {
        self.backbone.as_deref().unwrap_or_default()
    }

    /// Peak learning rate: the base rate scaled by the batch.
    pub fn peak_lr(&self) -> f64 {
        self.base_lr * self.batch_size as f64 / BASE_BATCH
    }

    /// Steps of the whole run, of which an epoch has so many.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        match self.iterations {
            0 => self.epochs * steps_per_epoch,
            iterations => iterations,
        }
    }

    /// Learning rate of a step (from 0) of the run.
    pub fn lr(&self, step: u64, steps_per_epoch: u64) -> f64 {
        let total = self.total_steps(steps_per_epoch);
        let warmup = self.warmup_iterations;
        match self.schedule {
            Schedule::Cosine => {
                engine::schedule::cosine_lr(self.peak_lr(), step, total, warmup.min(total / 2))
            }
            Schedule::Step => {
                let unit = if self.iterations == 0 { steps_per_epoch } else { 1 };
                let milestones: Vec<u64> = self.milestones.iter().map(|at| at * unit).collect();
                let warmup = (warmup, self.warmup_factor);
                engine::schedule::step_lr(self.peak_lr(), step, &milestones, self.gamma, warmup)
            }
        }
    }

    /// What images go through in evaluation.
    pub fn eval_transform(&self) -> EvalTransform {
        EvalTransform { short: self.eval_short_side, max: self.eval_max_side }
    }
}

#[cfg(test)]
mod tests;
