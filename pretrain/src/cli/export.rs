//! `pretrain export`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use backbone::models::Model;
use backbone::weights::TimmConfig;
use clap::Args;
pub use engine::export::ExportFormat;
use engine::export::{Card, CardTask, HubFlags, decimals, named_for_timm, write_hub_folder};
use engine::metrics::series;
use engine::outputs::Inputs;
use engine::remote::{Output, is_name};
use engine::run_dir::{display_path, run_of};
use engine::settings::Settings as _;
use words::counted;

use crate::config::TrainConfig;
use crate::saved::LoadedWeights;

const EXAMPLES: &str = "\
Examples:
  # A folder for timm.create_model('local-dir:r50-timm', pretrained=True)
  pretrain export --weights runs/first --format timm --output r50-timm

  # A folder with a model card, for hf upload me/photos-r50 r50-hub
  pretrain export --weights runs/first --format hub --license mit --repo me/photos-r50 --output r50-hub

  # A .pkl for detectron2's MODEL.WEIGHTS
  pretrain export --weights runs/first --format detectron2 --output r50.pkl

  # A network from a .pt2 file by its own names, and for timm if it is one of timm's
  pretrain export --weights runs/own --format official --output own.pth
  pretrain export --weights runs/own --format timm --timm-name efficientnet_b0 --output own-timm

  # To a bucket, from a run that lies there
  pretrain export --weights s3://bucket/runs/first --format official --output s3://bucket/r50.pth

  # mmdet: init_cfg=dict(type='Pretrained', checkpoint='r50.pth', prefix='backbone.')
  pretrain export --weights runs/first --format mmdet --output r50.pth";

/// Flags of `pretrain export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    /// A run folder, a checkpoint, or a weight file of any format; also
    /// hf:owner/name[@revision][/file] and s3://bucket/key.
    #[arg(long, alias = "checkpoint", value_name = "PATH")]
    weights: PathBuf,
    /// Whose names and file form to write.
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// File (for timm and hub: folder) to write, here or in object storage (s3://bucket/w.pth); .pth, .pkl or .safetensors decide the
    /// form; beside the weights if not given
    #[arg(long, short, value_name = "PATH")]
    output: Option<PathBuf>,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    model: Option<String>,
    /// For --format timm and hub: which of timm's models a network from a .pt2 file is
    #[arg(long, value_name = "NAME")]
    timm_name: Option<String>,
    #[command(flatten)]
    hub: HubFlags,
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

/// What the card of an encoder says.
fn card(model: &Model, saved: &LoadedWeights, images: TimmConfig) -> Result<Card> {
    let run = run_of(&saved.file.path);
    let mut facts = Vec::new();
    if let Some(config) = &saved.config {
        let data = config.data.file_name().unwrap_or_default().display();
        facts.push(("data".into(), format!("a set of images called {data}")));
        facts.push(("masked".into(), format!("{} % of the patches", 100.0 * config.mask_ratio)));
        facts.push(("epochs".into(), config.optim.epochs.to_string()));
    }
    if let Some(run) = &run {
        let losses = series(&run.join("metrics.jsonl"), "step", "loss")?;
        facts.extend(losses.last().map(|(step, loss)| {
            ("loss on masked patches".into(), format!("{loss:.4} at step {step}"))
        }));
    }
    let settings = saved.config.as_ref().map(|config| config.to_table());
    Ok(Card { facts, settings, run, ..Card::new(model, CardTask::Features, images) })
}

/// Exports.
pub fn run(args: ExportArgs) -> Result<()> {
    args.hub.check(args.format == ExportFormat::Hub)?;
    ensure!(
        args.output.is_some() || !is_name(&args.weights),
        "--output is not given, but {} is not on this machine, and nothing is written beside it",
        args.weights.display()
    );
    let saved = LoadedWeights::open(&args.weights)?;
    let (model, encoder) = saved.encoder(args.model.as_deref())?;
    let output = args.output.unwrap_or_else(|| {
        let folder = match args.weights.is_dir() {
            true => args.weights.join("export"),
            false => args.weights.parent().map_or_else(PathBuf::new, Path::to_owned),
        };
        folder.join(format!("{}{}", model.name, args.format.suffix(&model)))
    });
    let inputs = Inputs::new([&saved.file.path]);
    let output = Output::new(&output)?;
    inputs.spare(output.path())?;
    inputs.spare(&output.path().join("model.safetensors"))?;
    let config = saved.config.as_ref().map(|config| timm_config(&model, config));
    let config = named_for_timm(&model, config, args.timm_name)?;
    let write = |path: &Path, config| args.format.write(path, &model, &encoder, config);
    if args.format == ExportFormat::Hub {
        let images = config.clone().unwrap_or_else(|| TimmConfig::imagenet(model.name.as_ref()));
        let card = card(&model, &saved, images)?;
        write_hub_folder(&output, &args.hub, &card, |folder| Ok(write(folder, config)?))?;
    } else {
        write(output.path(), config)?;
    }
    println!(
        "{} ({} of {}) → {}",
        display_path(&args.weights),
        counted(encoder.len(), "tensor"),
        model.name,
        output.finish()?
    );
    Ok(())
}
