//! `pretrain export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use backbone::models::Model;
use backbone::weights::{self, Naming, StateDict, TimmConfig};
use clap::{Args, ValueEnum};
use engine::run_dir::shown;

use crate::config::TrainConfig;
use crate::saved::Saved;

const EXAMPLES: &str = "\
Examples:
  # A folder for timm.create_model('local-dir:r50-timm', pretrained=True)
  pretrain export --checkpoint runs/first --format timm --output r50-timm

  # A .pkl for detectron2's MODEL.WEIGHTS
  pretrain export --checkpoint runs/first --format detectron2 --output r50.pkl

  # mmdet: init_cfg=dict(type='Pretrained', checkpoint='r50.pth', prefix='backbone.')
  pretrain export --checkpoint runs/first --format mmdet --output r50.pth";

/// Flags of `pretrain export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// A run folder, a checkpoint, or a weight file of any format.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,
    /// Whose names and file form to write.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// File (for timm: folder) to write; .pth, .pkl or .safetensors decide the
    /// form [default: beside the checkpoint].
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// The model, if the file does not tell.
    #[arg(long)]
    model: Option<String>,
}

/// A framework to export to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    /// Folder with config.json and model.safetensors.
    Timm,
    /// Names of the official repositories, .pth.
    Official,
    /// torchvision's names, .pth.
    Torchvision,
    /// detectron2's names, .pkl.
    Detectron2,
    /// mmdet's and mmpretrain's names under `backbone.`, .pth.
    Mmdet,
}

impl ExportFormat {
    fn naming(self) -> Naming {
        match self {
            Self::Timm => Naming::Timm,
            Self::Official => Naming::Official,
            Self::Torchvision => Naming::Torchvision,
            Self::Detectron2 => Naming::Detectron2,
            Self::Mmdet => Naming::Mmdet,
        }
    }

    /// What a file without a name of its own ends in.
    fn suffix(self) -> &'static str {
        match self {
            Self::Timm => "_timm",
            Self::Official => "_official.pth",
            Self::Torchvision => "_torchvision.pth",
            Self::Detectron2 => "_detectron2.pkl",
            Self::Mmdet => "_mmdet.pth",
        }
    }

    /// Writes the encoder's tensors (canonical names) to `path`.
    ///
    /// # Errors
    /// The framework has no such model, or the file cannot be written.
    pub fn write(
        self,
        path: &Path,
        model: &Model,
        encoder: &StateDict,
        config: Option<&TrainConfig>,
    ) -> Result<()> {
        if self == Self::Timm {
            let tensors = weights::export(model.family(), self.naming(), encoder)?;
            let config = timm_config(model, encoder, config);
            return Ok(weights::write_timm_folder(path, &config, &tensors)?);
        }
        Ok(weights::save(path, model.family(), self.naming(), encoder)?)
    }
}

fn timm_config(model: &Model, encoder: &StateDict, config: Option<&TrainConfig>) -> TimmConfig {
    let stem = ["conv1.weight", "downsample_layers.0.0.weight"];
    let in_chans = stem.iter().find_map(|name| encoder.get(*name)).map_or(3, |t| t.size()[1]);
    let mut timm = TimmConfig { in_chans, ..TimmConfig::imagenet(model.name) };
    let wide = |values: &[f32]| values.iter().map(|&v| decimal(v)).collect::<Vec<f64>>();
    if let Some(config) = config {
        timm.input_size = (config.input_size.height, config.input_size.width);
        timm.mean = config.mean.as_deref().map_or(timm.mean, wide);
        timm.std = config.std.as_deref().map_or(timm.std, wide);
    }
    // Statistics of another number of channels say nothing.
    timm.mean.resize(in_chans as usize, 0.5);
    timm.std.resize(in_chans as usize, 0.5);
    timm
}

/// The shortest decimal that is this float32, as a float64.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// Exports.
///
/// # Errors
/// The checkpoint cannot be read or fits no model; the file cannot be written.
pub fn run(args: ExportArgs) -> Result<()> {
    let saved = Saved::open(&args.checkpoint)?;
    let (model, encoder) = saved.encoder(args.model.as_deref())?;
    let output = args.output.unwrap_or_else(|| {
        let folder = match args.checkpoint.is_dir() {
            true => args.checkpoint.join("export"),
            false => args.checkpoint.parent().map_or_else(PathBuf::new, Path::to_owned),
        };
        folder.join(format!("{}{}", model.name, args.format.suffix()))
    });
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    args.format.write(&output, model, &encoder, saved.config.as_ref())?;
    println!(
        "{} ({} tensors of {}) → {}",
        shown(&args.checkpoint),
        encoder.len(),
        model.name,
        shown(&output)
    );
    Ok(())
}
