//! `pretrain export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use backbone::models::Model;
use backbone::weights::TimmConfig;
use clap::Args;
pub use engine::export::ExportFormat;
use engine::export::{decimals, named_for_timm};
use engine::outputs::Inputs;
use engine::run_dir::{display_path, resolve_checkpoint};

use crate::config::TrainConfig;
use crate::saved::LoadedWeights;

const EXAMPLES: &str = "\
Examples:
  # A folder for timm.create_model('local-dir:r50-timm', pretrained=True)
  pretrain export --weights runs/first --format timm --output r50-timm

  # A .pkl for detectron2's MODEL.WEIGHTS
  pretrain export --weights runs/first --format detectron2 --output r50.pkl

  # A network from a .pt2 file by its own names, and for timm if it is one of timm's
  pretrain export --weights runs/own --format official --output own.pth
  pretrain export --weights runs/own --format timm --timm-name efficientnet_b0 --output own-timm

  # mmdet: init_cfg=dict(type='Pretrained', checkpoint='r50.pth', prefix='backbone.')
  pretrain export --weights runs/first --format mmdet --output r50.pth";

/// Flags of `pretrain export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// A run folder, a checkpoint, or a weight file of any format.
    #[arg(long, alias = "checkpoint", value_name = "PATH")]
    weights: PathBuf,
    /// Whose names and file form to write.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// File (for timm: folder) to write; .pth, .pkl or .safetensors decide the
    /// form; beside the weights if not given
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    model: Option<String>,
    /// For --format timm: which of timm's models a network from a .pt2 file is
    #[arg(long, value_name = "NAME")]
    timm_name: Option<String>,
}

/// What timm is told of a run's images.
pub fn timm_config(model: &Model, config: &TrainConfig) -> TimmConfig {
    let timm = TimmConfig::imagenet(model.name.as_ref());
    TimmConfig {
        input_size: (config.input_size.height, config.input_size.width),
        mean: config.mean.as_deref().map_or(timm.mean, decimals),
        std: config.std.as_deref().map_or(timm.std, decimals),
        ..timm
    }
}

/// Exports.
///
/// # Errors
/// The checkpoint cannot be read or fits no model; the file cannot be written.
pub fn run(args: ExportArgs) -> Result<()> {
    let saved = LoadedWeights::open(&args.weights)?;
    let (model, encoder) = saved.encoder(args.model.as_deref())?;
    let output = args.output.unwrap_or_else(|| {
        let folder = match args.weights.is_dir() {
            true => args.weights.join("export"),
            false => args.weights.parent().map_or_else(PathBuf::new, Path::to_owned),
        };
        folder.join(format!("{}{}", model.name, args.format.suffix(&model)))
    });
    let inputs = Inputs::new([resolve_checkpoint(&args.weights)?]);
    inputs.spare(&output)?;
    inputs.spare(&output.join("model.safetensors"))?;
    if let Some(folder) = output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let config = saved.config.as_ref().map(|config| timm_config(&model, config));
    let config = named_for_timm(&model, config, args.timm_name)?;
    args.format.write(&output, &model, &encoder, config)?;
    println!(
        "{} ({} tensors of {}) → {}",
        display_path(&args.weights),
        encoder.len(),
        model.name,
        display_path(&output)
    );
    Ok(())
}
