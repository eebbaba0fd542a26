//! Flags of every command that loads a detector.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use engine::device::{parse_device, use_threads};
use engine::settings::read_table;
use tch::Kind;
use toml::Table;

use crate::saved::{Loaded, Wanted};
use crate::train::Preset;

/// Which detector, and how it is run.
#[derive(Debug, Args)]
pub struct ModelFlags {
    /// A run folder, a checkpoint, or a weight file (detectron2's or torchvision's
    /// .pth, .pkl or .safetensors).
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// The detector that a weight file is of; runs and checkpoints tell.
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML file with settings of the detector, see `detect train --dump-config`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whether the detector predicts masks, not boxes alone [default: the run's or preset's].
    #[arg(long, value_name = "BOOL")]
    pub masks: Option<bool>,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads of CPU arithmetic [default: every core].
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl ModelFlags {
    /// Loads the detector, to compute in `kind`, with `more` settings on top.
    ///
    /// # Errors
    /// Those of [`Wanted::load`], a device that is not there, a file that is no
    /// TOML.
    pub fn load(&self, kind: Kind, more: Table) -> Result<Loaded> {
        use_threads(self.threads.unwrap_or(0));
        let mut settings = self.config.as_deref().map(read_table).transpose()?.unwrap_or_default();
        engine::settings::merge(&mut settings, more);
        if let Some(masks) = self.masks {
            settings.insert("masks".into(), masks.into());
        }
        let device = parse_device(&self.device)?;
        Wanted { path: &self.weights, preset: self.preset, settings, device, kind }.load()
    }
}
