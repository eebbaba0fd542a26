//! The settings that all programs have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use data::{ByteSize, LoaderOptions, StorageOptions, StorageSettings};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    ByteSize, Settings, Span, ascending_to, at_least, decay_rate, divides, not_negative, share,
};
use tch::Tensor;

use crate::distributed::ProcessGroup;
use crate::optim::{ClipMode, Ema, OptimizerKind};
use crate::precision::Precision;
use crate::remote::{is_url, working_folder};
use crate::settings;

settings! {
    /// Where a run writes to, and how often.
    #[command(next_help_heading = "Output")]
    pub struct RunSettings {
        /// Folder that the run writes to, here or in object storage: s3://bucket/runs/first
        #[arg(short, value_name = "DIR", alias = "exp_dir", alias = "exp-dir")]
        output: PathBuf;
        /// With --output in object storage, a folder of this machine for what is not there yet;
        /// spark-backbone/runs in the user's cache folder if not given
        #[arg(value_name = "DIR")]
        work_dir: PathBuf;
        /// Name of the run in logs; the folder's if not given
        #[arg(alias = "exp_name", alias = "exp-name")]
        name: String;
        /// Epochs between checkpoints, 0 for none but the last
        #[arg(value_name = "N")]
        checkpoint_epochs: u64 = 1;
        /// Steps between further checkpoints, 0 for none
        #[arg(value_name = "N")]
        checkpoint_steps: u64 = 0;
        /// Past epochs' checkpoints to keep besides last and best
        #[arg(value_name = "N", alias = "keep")]
        keep_checkpoints: usize = 0;
        /// Steps between records in metrics.jsonl and TensorBoard
        #[arg(value_name = "N")]
        log_steps: u64 = 10, at_least(1);
    }
}

settings! {
    /// How weights are learned.
    #[command(next_help_heading = "Optimisation")]
    pub struct OptimSettings {
        /// Images per optimizer step
        #[arg(value_name = "N", alias = "bs")]
        batch_size: usize = 16, at_least(1);
        /// Compute a batch in N parts, one after another, to save memory
        #[arg(value_name = "N")]
        accum_steps: usize = 1, at_least(1);
        /// Passes over the images
        #[arg(value_name = "N", alias = "ep")]
        epochs: u64 = 12, at_least(1);
        /// Optimizer
        #[arg(alias = "opt")]
        optimizer: OptimizerKind = OptimizerKind::Adamw;
        /// Peak learning rate, scaled by the batch: the base rate is for 256 images, in detection
        /// for 16
        #[arg(value_name = "LR", alias = "base_lr", alias = "lr")]
        base_lr: f64 = 2.5e-4, not_negative;
        /// Weight decay
        #[arg(value_name = "WD", alias = "wd")]
        weight_decay: f64 = 1e-4, not_negative;
        /// Clip gradients to this, 0 for no clipping
        #[arg(value_name = "NORM", alias = "clip")]
        clip_grad: f64 = 0.0, not_negative;
        /// What is clipped: the norm of all gradients together, or each value
        clip_mode: ClipMode = ClipMode::Norm;
        /// First beta of LAMB, AdamW and Lion; momentum of SGD
        #[arg(value_name = "BETA")]
        beta1: f64 = 0.9, decay_rate;
        /// Second beta; the optimizer's own if not given, in pretraining the paper's
        #[arg(value_name = "BETA", alias = "ada")]
        beta2: Option<f64>, decay_rate;
        /// Average the weights with this decay, 0 for no averages; they are evaluated and exported
        #[arg(value_name = "DECAY")]
        ema: f64 = 0.0, decay_rate;
        /// Let that decay rise over the first steps, so that short runs average over their own
        /// length
        ema_warmup: bool = true;
    }
}

settings! {
    /// How images are read.
    #[command(next_help_heading = "Data")]
    pub struct LoadingSettings {
        /// Share of unreadable files that stops the run
        #[arg(value_name = "SHARE")]
        max_corrupt: f64 = 0.01, share;
        /// Threads that read images, 0 for as many as cores and at most 16
        #[arg(value_name = "N", alias = "dataloader_workers")]
        workers: usize = 0;
    }
}

settings! {
    /// Which files of a folder are read, and what training crops of them are.
    #[command(next_help_heading = "Data")]
    pub struct CropSettings {
        /// Area of a training crop as a share of the image: smallest,largest
        #[arg(value_name = "MIN,MAX")]
        crop_scale: Span = Span::new(0.08, 1.0), ascending_to(1.0);
        /// Width / height of a training crop: smallest,largest
        #[arg(value_name = "MIN,MAX")]
        crop_ratio: Span = Span::new(3.0 / 4.0, 4.0 / 3.0), ascending_to(f64::MAX);
        /// Probability of a horizontal flip
        #[arg(value_name = "P")]
        hflip: f64 = 0.5, share;
        /// Decode large JPEG files at 1/2, 1/4 or 1/8 of their size, if the scaled crop is still at
        /// least twice the input size
        reduced_decode: bool = true;
        /// List the data anew: listings of large folders are kept in the user's cache folder, and
        /// taken again while the times of the folders stay the same
        #[arg(alias = "relist")]
        refresh_index: bool = false;
        /// Folder that keeps what is read of images in object storage, shared by all processes of a
        /// machine; if not given, nothing is kept
        #[arg(value_name = "DIR")]
        cache: Option<PathBuf>;
        /// Most that this folder holds: a number with MB, GB or TB
        #[arg(value_name = "SIZE")]
        cache_size: ByteSize = ByteSize(100_000_000_000);
    }
}

settings! {
    /// How a run is computed.
    #[command(next_help_heading = "Execution")]
    pub struct ExecutionSettings {
        /// auto, cpu, cuda or cuda:N
        device: String = "auto".into();
        /// Arithmetic of convolutions and linear layers
        precision: Precision = Precision::Float32;
        /// Threads of CPU arithmetic, 0 for every core
        #[arg(value_name = "N")]
        threads: usize = 0;
        /// Seed of weights, order and everything else that is drawn
        seed: u64 = 0;
        /// Use SyncBatchNorm: batch norms of several processes share their statistics, so that a
        /// run comes out the same on any number of processes
        #[arg(alias = "sbn")]
        sync_bn: bool = true;
    }
}

/// All settings of a run, as a `train` command takes them.
pub trait TrainSettings: Settings + Clone + Serialize + DeserializeOwned {
    /// Where and how often the run writes.
    fn run(&self) -> &RunSettings;

    /// How the run is computed.
    fn execution(&self) -> &ExecutionSettings;

    /// The weights that a new run starts from, which tell the model where no setting does; none
    /// where there are none, or the model is not a setting called `model`.
    fn starting_weights(&self) -> Option<&Path> {
        None
    }

    /// Fills what depends on other settings and refuses what cannot be run.
    ///
    /// # Errors
    /// The first setting that breaks a rule, with its value and the rule.
    fn resolve(self) -> Result<Self>;
}

impl RunSettings {
    /// Names the run after its folder, if it has no name.
    pub fn resolve_name(&mut self) {
        if self.name.is_empty() {
            let folder = self.output.file_name();
            self.name = folder.map_or_else(String::new, |name| name.to_string_lossy().into());
        }
    }

    /// Refuses a run without folder.
    ///
    /// # Errors
    /// It has none.
    pub fn check(&self) -> Result<()> {
        ensure!(!self.output.as_os_str().is_empty(), "no run folder: name one with --output");
        let is_here = self.work_dir.as_os_str().is_empty() || is_url(&self.output);
        ensure!(
            is_here,
            "work-dir is {}, but the run is written to {}, on this machine: only one in object \
             storage has a folder to work in",
            self.work_dir.display(),
            self.output.display()
        );
        self.folder()?;
        Ok(())
    }

    /// The folder on this machine that the run works in: `output`, unless that is in object storage.
    ///
    /// # Errors
    /// Those of [`working_folder`].
    pub fn folder(&self) -> crate::Result<PathBuf> {
        working_folder(&self.output, &self.work_dir)
    }
}

impl CropSettings {
    /// How images in object storage are read by a process of `world`: no request takes longer than
    /// the processes wait for each other.
    pub fn storage(&self, world: &ProcessGroup) -> StorageOptions {
        let cache = self.cache.clone().map(|folder| (folder, self.cache_size.0));
        // Whoever waits must hear of it before it gives up itself.
        let settings = StorageSettings::within(world.timeout().mul_f64(0.75));
        StorageOptions { cache, settings }
    }
}

impl LoadingSettings {
    /// The same for a loader in a process of `world`.
    pub fn options(&self, world: &ProcessGroup) -> LoaderOptions {
        LoaderOptions::on_cores(self.workers, self.max_corrupt, world.cores())
    }
}

impl OptimSettings {
    /// Refuses a batch that cannot be cut into its parts.
    ///
    /// # Errors
    /// It is no multiple of them.
    pub fn check(&self) -> Result<()> {
        Ok(divides("accum-steps", self.accum_steps, "batch-size", self.batch_size)?)
    }

    /// Peak learning rate: the base rate, which is for `base_batch` images, scaled by the batch.
    pub fn peak_lr(&self, base_batch: f64) -> f64 {
        self.base_lr * self.batch_size as f64 / base_batch
    }

    /// The peak learning rate and where it comes from, as a person is told.
    pub fn describe_lr(&self, base_batch: f64) -> String {
        let (peak, base, batch) = (self.peak_lr(base_batch), self.base_lr, self.batch_size);
        format!("{peak:.3e} at its peak ({base:e} · {batch} / {base_batch})")
    }

    /// The betas; the second is the optimizer's own if none is set.
    pub fn betas(&self) -> (f64, f64) {
        (self.beta1, self.beta2.unwrap_or(self.optimizer.beta2()))
    }

    /// Averages that begin with the values of `variables` now, if there are to be any.
    ///
    /// # Errors
    /// A decay out of range.
    pub fn build_ema(&self, variables: &BTreeMap<String, Tensor>) -> Result<Option<Ema>> {
        if self.ema == 0.0 {
            return Ok(None);
        }
        let ema = Ema::new(variables, self.ema)?;
        Ok(Some(if self.ema_warmup { ema } else { ema.with_constant_decay() }))
    }
}
