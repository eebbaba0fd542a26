//! `detect train`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use engine::settings::from_layers;
use engine::training::{ExecutionFlags, Preset as _, RunFlags};
use serde::Serialize;
use toml::Table;

use crate::data::TrainTransform;
use crate::train::{self, Preset, Schedule, TrainConfig};

const EXAMPLES: &str = "\
Examples:
  # One's own data in COCO's format, settings for small data sets, a backbone from pretraining
  detect train --data data --output runs/first --preset small-data --backbone resnet50 \\
      --backbone-weights runs/pretrained

  # Annotation files and image folders of any name
  detect train --train-annotations train.json --train-images photos/train \\
      --val-annotations val.json --val-images photos/val --output runs/first --preset small-data

  # Continue after an interruption
  detect train --output runs/first --resume

  # SparK's recipes on COCO
  detect train --data coco --output runs/r50 --preset mask_rcnn_resnet50_1x \\
      --backbone-weights resnet50_spark.pth
  detect train --data coco --output runs/cnx --preset mask_rcnn_convnext_base_3x \\
      --backbone-weights convnext_base_spark.pth --precision bfloat16 --accum-steps 4

  # See what a set of flags means, and keep it in a file
  detect train --data data --output runs/a --preset demo --dump-config > a.toml
  detect train --config a.toml";

/// Flags of `detect train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct TrainArgs {
    #[command(flatten)]
    settings: Settings,
    /// Short sides that training images are resized to, one drawn for each, then a flip;
    /// in place of the preset's augmentation.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', help_heading = "Data")]
    short_sides: Option<Vec<usize>>,
    /// Longest long side then [default: 1333].
    #[arg(long, value_name = "PIXELS", requires = "short_sides", help_heading = "Data")]
    max_side: Option<usize>,
    /// Settings that suit a situation; other flags override them [default:
    /// mask_rcnn_resnet50_1x].
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    #[command(flatten)]
    run: RunFlags,
}

/// One flag a setting; a flag that is not given leaves the setting to the
/// layers below.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    /// Folder laid out as COCO's: annotations/instances_{train,val}*.json, images beside.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Training objects in COCO's format, in place of the folder's.
    #[arg(long, value_name = "FILE")]
    train_annotations: Option<PathBuf>,
    /// Folder of the training images [default: where COCO has them].
    #[arg(long, value_name = "DIR")]
    train_images: Option<PathBuf>,
    /// Validation objects, in place of the folder's.
    #[arg(long, value_name = "FILE")]
    val_annotations: Option<PathBuf>,
    /// Folder of the validation images [default: where COCO has them].
    #[arg(long, value_name = "DIR")]
    val_images: Option<PathBuf>,
    /// Folder that the run writes to.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Name of the run in logs [default: the folder's].
    #[arg(long)]
    name: Option<String>,

    /// mask_rcnn_resnet50, mask_rcnn_convnext_base or mask_rcnn_torchvision [default: the first].
    #[arg(long, help_heading = "Model")]
    detector: Option<String>,
    /// Narrower heads and smaller anchors, for small images.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    small: Option<bool>,
    /// Predict masks, not boxes alone [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    masks: Option<bool>,
    /// Backbone, see `pretrain models` [default: the detector's].
    #[arg(long, help_heading = "Model")]
    backbone: Option<String>,
    /// Shared library that makes the backbone; --backbone is what it is told to make.
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    backbone_plugin: Option<PathBuf>,
    /// Drop-path rate of the backbone's last block [default: the detector's].
    #[arg(long, value_name = "RATE", help_heading = "Model")]
    drop_path: Option<f64>,
    /// Pretrained backbone: a run of `pretrain`, or a weight file of any format.
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    backbone_weights: Option<PathBuf>,
    /// Whole detector to start from; the run still begins at step 0.
    #[arg(long, value_name = "PATH", conflicts_with = "backbone_weights", help_heading = "Model")]
    weights: Option<PathBuf>,
    /// Learn the classes anew when starting from a detector for others.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    new_classes: Option<bool>,
    /// Leave the first N parts of the backbone as they are: 1 the stem, 2 and the first stage, …
    /// [default: 0].
    #[arg(long, value_name = "N", help_heading = "Model")]
    freeze: Option<usize>,
    /// Keep the running statistics of the backbone's batch norms.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    norm_eval: Option<bool>,

    /// Images per optimizer step [default: 16].
    #[arg(long, value_name = "N", alias = "bs", help_heading = "Optimisation")]
    batch_size: Option<usize>,
    /// Compute a batch in N parts to save memory [default: 1].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    accum_steps: Option<usize>,
    /// Passes over the images, where --iterations is 0.
    #[arg(long, value_name = "N", alias = "ep", help_heading = "Optimisation")]
    epochs: Option<u64>,
    /// Optimizer steps in all, 0 for as many as the epochs have [default: 90000].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    iterations: Option<u64>,
    /// How the learning rate falls [default: step].
    #[arg(long, value_enum, help_heading = "Optimisation")]
    schedule: Option<Schedule>,
    /// Iterations (or epochs, where those define the run) at which it steps down.
    #[arg(long, value_name = "N,N", value_delimiter = ',', help_heading = "Optimisation")]
    milestones: Option<Vec<u64>>,
    /// What it is multiplied by there [default: 0.25].
    #[arg(long, value_name = "FACTOR", help_heading = "Optimisation")]
    gamma: Option<f64>,
    /// Steps of learning-rate warm-up [default: 1000].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    warmup_iterations: Option<u64>,
    /// Share of the peak that it begins with [default: 0.01].
    #[arg(long, value_name = "FACTOR", help_heading = "Optimisation")]
    warmup_factor: Option<f64>,
    /// Peak learning rate per 16 images of batch [default: 2.5e-4].
    #[arg(long, value_name = "LR", alias = "lr", help_heading = "Optimisation")]
    base_lr: Option<f64>,
    /// Share of the learning rate from layer to layer down the backbone [default: 0.6].
    #[arg(long, value_name = "FACTOR", help_heading = "Optimisation")]
    layer_decay: Option<f64>,
    /// Weight decay [default: 1e-4].
    #[arg(long, value_name = "WD", alias = "wd", help_heading = "Optimisation")]
    weight_decay: Option<f64>,
    /// Let biases of convolutions and linear layers decay, too [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Optimisation")]
    decay_biases: Option<bool>,
    /// Largest global gradient norm, 0 for none [default: 0].
    #[arg(long, value_name = "NORM", alias = "clip", help_heading = "Optimisation")]
    clip_grad: Option<f64>,
    /// First beta of AdamW [default: 0.9].
    #[arg(long, value_name = "BETA", help_heading = "Optimisation")]
    beta1: Option<f64>,
    /// Second beta [default: 0.999].
    #[arg(long, value_name = "BETA", help_heading = "Optimisation")]
    beta2: Option<f64>,
    /// Average the weights with this decay, and evaluate and export the averages; 0 for none
    /// [default: 0].
    #[arg(long, value_name = "DECAY", help_heading = "Optimisation")]
    ema: Option<f64>,
    /// Renew batch norms' statistics over N batches before an evaluation, 0 for none
    /// [default: 200].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    precise_bn: Option<u64>,

    /// Also train on images without objects.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    keep_empty: Option<bool>,
    /// Share of unreadable or missing files that stops the run [default: 0.01].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    max_corrupt: Option<f64>,
    /// Short side of images in evaluation [default: 800].
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    eval_short_side: Option<usize>,
    /// Longest long side in evaluation [default: 1333].
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    eval_max_side: Option<usize>,
    /// Threads that read images [default: as many as cores].
    #[arg(long, value_name = "N", help_heading = "Data")]
    workers: Option<usize>,

    #[command(flatten)]
    #[serde(flatten)]
    execution: ExecutionFlags,

    /// Epochs between checkpoints, 0 for none but the last [default: 0].
    #[arg(long, value_name = "N", help_heading = "Output")]
    checkpoint_epochs: Option<u64>,
    /// Steps between further checkpoints, 0 for none [default: 5000].
    #[arg(long, value_name = "N", help_heading = "Output")]
    checkpoint_steps: Option<u64>,
    /// Epochs between evaluations, 0: only at the end [default: 0].
    #[arg(long, value_name = "N", help_heading = "Output")]
    eval_epochs: Option<u64>,
    /// Steps between further evaluations, 0 for none [default: 5000].
    #[arg(long, value_name = "N", help_heading = "Output")]
    eval_steps: Option<u64>,
    /// Past epochs' checkpoints to keep besides last and best [default: 0].
    #[arg(long, value_name = "N", help_heading = "Output")]
    keep: Option<usize>,
    /// Steps between records in metrics.jsonl and TensorBoard [default: 20].
    #[arg(long, value_name = "N", help_heading = "Output")]
    log_steps: Option<u64>,
    /// Validation images in the pictures of predictions, 0 for none [default: 6].
    #[arg(long, value_name = "N", help_heading = "Output")]
    pictures: Option<usize>,
}

/// Resolves the flags and trains.
///
/// # Errors
/// Settings that cannot be run, and whatever stops the run.
pub fn run(args: TrainArgs) -> Result<()> {
    let settled = args.run.begin(|| resolve(&args), |config| &config.output)?;
    let Some((config, start, world)) = settled else { return Ok(()) };
    train::train(config, start, &world)
}

/// The flags over the file over (when continuing) the run's own settings over
/// the preset over the defaults.
fn resolve(args: &TrainArgs) -> Result<TrainConfig> {
    let mut flags = Table::try_from(&args.settings)?;
    if let Some(sides) = &args.short_sides {
        let transform = TrainTransform::multi_scale(sides.clone(), args.max_side.unwrap_or(1333))?;
        flags.insert("augmentation".into(), toml::Value::try_from(transform)?);
    }
    let preset = args.preset.map(|preset| preset.toml().parse()).transpose()?.unwrap_or_default();
    let config: TrainConfig = from_layers(args.run.layers(preset, flags)?)?;
    config.resolve()
}
