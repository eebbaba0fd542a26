//! Everything that defines a training run.
//!
//! Settings are laid over one another: the defaults, a preset, a file, the
//! command line. The result is validated once and saved with the run.

mod files;
mod rules;
mod types;

use std::path::PathBuf;

use anyhow::Result;
use engine::settings;
use engine::settings::{
    ExecutionSettings, LoadingSettings, OptimSettings, RunSettings, Settings as _, TrainSettings,
    share,
};

pub use types::{Preset, Schedule};

use crate::data::TrainTransform;
use crate::settings::{DetectorSettings, InferenceSettings};

/// Images of a batch that the base learning rate is for.
pub const BASE_BATCH: f64 = 16.0;

settings! {
    /// A run's settings; each is a flag of `detect train` and a key of its configuration file.
    /// Defaults are those of SparK's ResNet-50 recipe in detectron2.
    pub struct TrainConfig {
        ..run: RunSettings = RunSettings {
            checkpoint_epochs: 0,
            checkpoint_steps: 5000,
            log_steps: 20,
            ..RunSettings::default()
        };
        ..detector: DetectorSettings = DetectorSettings::default();
        ..inference: InferenceSettings = InferenceSettings::default();
        ..optim: OptimSettings = OptimSettings::default();
        ..loading: LoadingSettings = LoadingSettings::default();
        ..execution: ExecutionSettings = ExecutionSettings::default();

        /// Folder laid out as COCO's: annotations/instances_{train,val}*.json, images beside
        #[arg(value_name = "DIR")]
        data: PathBuf;
        /// Training objects in COCO's format, in place of the folder's
        #[arg(value_name = "FILE")]
        train_annotations: Option<PathBuf>;
        /// Folder of the training images; where COCO has them if not given
        #[arg(value_name = "DIR")]
        train_images: Option<PathBuf>;
        /// Validation objects, in place of the folder's
        #[arg(value_name = "FILE")]
        val_annotations: Option<PathBuf>;
        /// Folder of the validation images; where COCO has them if not given
        #[arg(value_name = "DIR")]
        val_images: Option<PathBuf>;

        /// Pretrained backbone: a run of `pretrain`, or a weight file of any format, also
        /// hf:owner/name[@revision][/file] and s3://bucket/key
        #[arg(value_name = "PATH", help_heading = "Model")]
        backbone_weights: Option<PathBuf>;
        /// Whole detector to start from, also hf:owner/name and s3://bucket/key; the run still
        /// begins at step 0
        #[arg(value_name = "PATH", conflicts_with = "backbone_weights", help_heading = "Model")]
        weights: Option<PathBuf>;
        /// Learn new classes when starting from a detector for others
        #[arg(alias = "new-classes", help_heading = "Model")]
        reset_head: bool = false;

        /// Optimizer steps in all, 0 for as many as the epochs have
        #[arg(value_name = "N", help_heading = "Optimisation")]
        iterations: u64 = 90_000;
        /// How the learning rate falls
        #[arg(help_heading = "Optimisation")]
        schedule: Schedule = Schedule::Step;
        /// Iterations (or epochs, where those define the run) at which it steps down
        #[arg(value_name = "N,N", value_delimiter = ',', help_heading = "Optimisation")]
        milestones: Vec<u64> = vec![60_000, 80_000];
        /// Factor of the learning rate at a milestone
        #[arg(value_name = "FACTOR", help_heading = "Optimisation")]
        gamma: f64 = 0.25, share;
        /// Steps of learning-rate warm-up
        #[arg(value_name = "N", help_heading = "Optimisation")]
        warmup_iterations: u64 = 1000;
        /// Factor of the peak learning rate at the first step of the warm-up
        #[arg(value_name = "FACTOR", help_heading = "Optimisation")]
        warmup_factor: f64 = 0.01, share;
        /// Layer-wise learning-rate decay factor
        #[arg(value_name = "FACTOR", help_heading = "Optimisation")]
        layer_decay: f64 = 0.6, share;
        /// Apply weight decay to biases of convolutions and linear layers, too
        #[arg(help_heading = "Optimisation")]
        decay_biases: bool = true;
        /// Recompute batch-norm statistics over N batches before an evaluation (PreciseBN), 0 for
        /// none
        #[arg(value_name = "N", help_heading = "Optimisation")]
        precise_bn: u64 = 200;

        /// Also train on images without objects
        #[arg(help_heading = "Data")]
        keep_empty: bool = false;

        /// Epochs between evaluations, 0 for none but the last
        #[arg(value_name = "N", help_heading = "Output")]
        eval_epochs: u64 = 0;
        /// Steps between further evaluations, 0 for none
        #[arg(value_name = "N", help_heading = "Output")]
        eval_steps: u64 = 5000;
        /// Validation images in the pictures of predictions, 0 for none
        #[arg(value_name = "N", help_heading = "Output")]
        pictures: usize = 6;

        @
        /// What training images go through.
        augmentation: TrainTransform = TrainTransform::detectron2();
    }
}

impl TrainSettings for TrainConfig {
    fn run(&self) -> &RunSettings {
        &self.run
    }

    fn execution(&self) -> &ExecutionSettings {
        &self.execution
    }

    fn resolve(mut self) -> Result<Self> {
        self.run.resolve_name();
        self.resolve_detector()?;
        self.validate()?;
        Ok(self)
    }
}

impl TrainConfig {
    /// Fills and checks what it takes to run the detector, wherever its training settings lead.
    ///
    /// # Errors
    /// As [`TrainConfig::resolve`].
    pub fn resolve_detector(&mut self) -> Result<()> {
        self.check_each()?;
        self.inference.check()?;
        self.detector.resolve(self.execution.precision)
    }

    /// Peak learning rate: the base rate scaled by the batch.
    pub fn peak_lr(&self) -> f64 {
        self.optim.peak_lr(BASE_BATCH)
    }

    /// Steps of the whole run, of which an epoch has so many.
    pub fn total_steps(&self, steps_per_epoch: u64) -> u64 {
        match self.iterations {
            0 => self.optim.epochs * steps_per_epoch,
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
}

#[cfg(test)]
mod tests;
