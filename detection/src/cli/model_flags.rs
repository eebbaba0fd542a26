//! Flags of every command that loads a detector.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use engine::device::DeviceFlags;
use engine::precision::Precision;
use engine::settings::{merge, put, read_table};
use tch::Kind;
use toml::Table;

use crate::saved::{LoadSpec, LoadedModel};
use crate::train::Preset;

/// Which detector, and how it is run.
#[derive(Debug, Args)]
pub struct ModelFlags {
    /// A run folder, a checkpoint, or a weight file (detectron2's or torchvision's
    /// .pth, .pkl or .safetensors); any of these on the Hugging Face hub as
    /// hf:owner/name[@revision][/file], or in object storage as s3://bucket/key.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    #[command(flatten)]
    pub options: ModelOptions,
}

/// What a weight file does not tell of its detector, and how it is run.
#[derive(Debug, Args)]
pub struct ModelOptions {
    /// The detector that a weight file is of; runs and checkpoints tell
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// TOML file with settings of the detector, see `detect train --dump-config`
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Whether the detector predicts masks, not boxes alone; as in the run or preset if not given
    #[arg(long, value_name = "BOOL")]
    pub masks: Option<bool>,
    #[command(flatten)]
    pub compute: DeviceFlags,
}

/// How images are fed to the detector.
#[derive(Debug, Args)]
pub struct FeedFlags {
    /// Short side of the images as they are fed; the detector's if not given
    #[arg(long, value_name = "PIXELS")]
    short_side: Option<usize>,
    /// Longest long side; the detector's if not given
    #[arg(long, value_name = "PIXELS")]
    max_side: Option<usize>,
    /// Arithmetic of convolutions and linear layers; the run's if not given
    #[arg(long, value_enum)]
    precision: Option<Precision>,
}

impl FeedFlags {
    /// The settings given, as a layer.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        put(&mut table, "eval-short-side", &self.short_side);
        put(&mut table, "eval-max-side", &self.max_side);
        put(&mut table, "precision", &self.precision);
        table
    }
}

impl ModelOptions {
    /// Refuses what only a detector takes, where there is none.
    pub fn refuse(&self) -> Result<()> {
        let given = [
            ("preset", self.preset.is_some()),
            ("config", self.config.is_some()),
            ("masks", self.masks.is_some()),
        ];
        let given = given.into_iter().find(|(_, given)| *given);
        given.map_or(Ok(()), |(name, _)| {
            bail!("--{name} says what --weights are of: there are none")
        })
    }

    /// Loads the detector in `weights`, to compute in `kind`, with `more` settings on top.
    pub fn load(&self, weights: &Path, kind: Kind, more: Table) -> Result<LoadedModel> {
        let device = self.compute.open()?;
        let mut settings = self.config.as_deref().map(read_table).transpose()?.unwrap_or_default();
        merge(&mut settings, more);
        put(&mut settings, "masks", &self.masks);
        LoadSpec { path: weights, preset: self.preset, settings, device, kind }.load()
    }
}
