//! `classify train`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use engine::settings::from_layers;
use engine::training::{ExecutionFlags, Preset as _, RunFlags};
use serde::Serialize;
use toml::Table;

use crate::losses::Loss;
use crate::train::{self, OptimizerKind, Policy, Preset, TrainConfig};

const EXAMPLES: &str = "\
Examples:
  # One's own images, in flowers/train/CLASS and flowers/val/CLASS, a backbone from pretraining
  classify train --data flowers --output runs/first --preset small-data --model resnet50 \\
      --backbone-weights runs/pretrained

  # Continue after an interruption
  classify train --output runs/first --resume

  # SparK's recipes on ImageNet
  classify train --data imagenet --output runs/r50 --preset resnet50 --accum-steps 8 \\
      --precision bfloat16 --backbone-weights resnet50_1kpretrained_timm_style.pth

  # From somebody's classifier to classes of one's own
  classify train --data flowers --output runs/second --preset small-data --model resnet50 \\
      --weights resnet50.a1_in1k --new-head

  # See what a set of flags means, and keep it in a file
  classify train --data flowers --output runs/a --preset demo --dump-config > a.toml
  classify train --config a.toml";

/// Flags of `classify train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct TrainArgs {
    #[command(flatten)]
    settings: Settings,
    /// Settings that suit a situation; other flags override them [default: resnet50].
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
    /// Folder with `train` and `val`, each with one folder of images a class.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Training images, in place of the folder's `train`.
    #[arg(long, value_name = "DIR")]
    train_data: Option<PathBuf>,
    /// Validation images, in place of the folder's `val`.
    #[arg(long, value_name = "DIR")]
    val_data: Option<PathBuf>,
    /// Folder that the run writes to.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Name of the run in logs [default: the folder's].
    #[arg(long)]
    name: Option<String>,

    /// Model, see `pretrain models` [default: resnet50].
    #[arg(long, help_heading = "Model")]
    model: Option<String>,
    /// Side of the images in pixels [default: 224].
    #[arg(long, value_name = "PIXELS", help_heading = "Model")]
    input_size: Option<usize>,
    /// Drop-path rate of the last block [default: 0.05].
    #[arg(long, value_name = "RATE", help_heading = "Model")]
    drop_path: Option<f64>,
    /// Pretrained backbone: a run of `pretrain`, or a weight file of any format.
    #[arg(long, value_name = "PATH", help_heading = "Model")]
    backbone_weights: Option<PathBuf>,
    /// Whole classifier to start from; the run still begins at step 0.
    #[arg(long, conflicts_with = "backbone_weights", value_name = "PATH", help_heading = "Model")]
    weights: Option<PathBuf>,
    /// Take only the backbone of --weights, and learn the head anew.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Model")]
    new_head: Option<bool>,
    /// What the head's first weights are multiplied by [default: 1].
    #[arg(long, value_name = "FACTOR", help_heading = "Model")]
    head_init_scale: Option<f64>,

    /// Images per optimizer step [default: 2048].
    #[arg(long, alias = "bs", value_name = "N", help_heading = "Optimisation")]
    batch_size: Option<usize>,
    /// Compute a batch in N parts to save memory [default: 1].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    accum_steps: Option<usize>,
    /// Passes over the images [default: 300].
    #[arg(long, alias = "ep", value_name = "N", help_heading = "Optimisation")]
    epochs: Option<u64>,
    /// Epochs of learning-rate warm-up [default: 5].
    #[arg(long, alias = "wp-ep", value_name = "N", help_heading = "Optimisation")]
    warmup_epochs: Option<u64>,
    /// Optimizer [default: lamb].
    #[arg(long, value_enum, alias = "opt", help_heading = "Optimisation")]
    optimizer: Option<OptimizerKind>,
    /// Loss [default: bce with LAMB, cross-entropy with AdamW].
    #[arg(long, value_enum, help_heading = "Optimisation")]
    loss: Option<Loss>,
    /// Peak learning rate per 256 images of batch [default: 2e-3].
    #[arg(long, alias = "lr", value_name = "LR", help_heading = "Optimisation")]
    base_lr: Option<f64>,
    /// Share of the learning rate from layer to layer down the backbone [default: 0.7].
    #[arg(long, alias = "lr-scale", value_name = "FACTOR", help_heading = "Optimisation")]
    layer_decay: Option<f64>,
    /// Weight decay [default: 0.02].
    #[arg(long, alias = "wd", value_name = "WD", help_heading = "Optimisation")]
    weight_decay: Option<f64>,
    /// Largest global gradient norm, 0 for none [default: 0].
    #[arg(long, alias = "clip", value_name = "NORM", help_heading = "Optimisation")]
    clip_grad: Option<f64>,
    /// First beta [default: 0.9].
    #[arg(long, value_name = "BETA", help_heading = "Optimisation")]
    beta1: Option<f64>,
    /// Second beta [default: 0.999].
    #[arg(long, value_name = "BETA", help_heading = "Optimisation")]
    beta2: Option<f64>,
    /// Average the weights with this decay, and evaluate the averages too; 0 for none
    /// [default: 0.9999].
    #[arg(long, value_name = "DECAY", help_heading = "Optimisation")]
    ema: Option<f64>,
    /// Let that decay rise over the first steps, for short runs.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Optimisation")]
    ema_warmup: Option<bool>,

    /// Augmentation besides crop and flip [default: trivial-wide].
    #[arg(long, value_enum, help_heading = "Data")]
    augment: Option<Policy>,
    /// Augmentations of each image in a row [default: 1].
    #[arg(long, alias = "rep-aug", value_name = "N", help_heading = "Data")]
    repeats: Option<usize>,
    /// Area of a crop as a share of the image [default: 0.08,1].
    #[arg(long, value_parser = pair, value_name = "MIN,MAX", help_heading = "Data")]
    crop_scale: Option<[f64; 2]>,
    /// Width by height of a crop [default: 0.75,1.3333].
    #[arg(long, value_parser = pair, value_name = "MIN,MAX", help_heading = "Data")]
    crop_ratio: Option<[f64; 2]>,
    /// Probability of a horizontal flip [default: 0.5].
    #[arg(long, value_name = "P", help_heading = "Data")]
    hflip: Option<f64>,
    /// Decode large JPEG files at 1/2, 1/4 or 1/8 of their size where that leaves a training crop
    /// twice the input size; false: every pixel [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    reduced_decode: Option<bool>,
    /// Probability that a random rectangle becomes noise [default: 0.25].
    #[arg(long, alias = "rep", value_name = "P", help_heading = "Data")]
    random_erasing: Option<f64>,
    /// Alpha of Mixup, 0 for none [default: 0.1].
    #[arg(long, value_name = "ALPHA", help_heading = "Data")]
    mixup: Option<f64>,
    /// Alpha of CutMix, 0 for none [default: 1].
    #[arg(long, value_name = "ALPHA", help_heading = "Data")]
    cutmix: Option<f64>,
    /// Probability that a batch is mixed at all [default: 1].
    #[arg(long, value_name = "P", help_heading = "Data")]
    mix_probability: Option<f64>,
    /// Of mixed batches, the share that CutMix mixes [default: 0.5].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    cutmix_share: Option<f64>,
    /// Share of a target that is spread over all classes [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    label_smoothing: Option<f64>,
    /// Share of the resized short side that evaluation crops [default: 0.95].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    eval_crop: Option<f64>,
    /// Squeeze the whole image in evaluation instead, out of proportion.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    eval_squash: Option<bool>,
    /// Share of unreadable files that stops the run [default: 0.01].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    max_corrupt: Option<f64>,
    /// List the data anew: listings of large folders are kept in the user's cache folder, and taken
    /// again while the times of the folders stay the same.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    relist: Option<bool>,
    /// Threads that read images [default: as many as cores].
    #[arg(long, value_name = "N", help_heading = "Data")]
    workers: Option<usize>,

    /// Images evaluated at a time [default: a part of a batch].
    #[arg(long, value_name = "N", help_heading = "Output")]
    eval_batch_size: Option<usize>,
    /// Epochs between evaluations [default: 5 in the first third of the run, then 1].
    #[arg(long, value_name = "N", help_heading = "Output")]
    eval_epochs: Option<u64>,
    /// Epochs between checkpoints besides those of evaluations [default: 1].
    #[arg(long, value_name = "N", help_heading = "Output")]
    checkpoint_epochs: Option<u64>,
    /// Steps between further checkpoints, 0 for none [default: 0].
    #[arg(long, value_name = "N", help_heading = "Output")]
    checkpoint_steps: Option<u64>,
    /// Past epochs' checkpoints to keep besides last and best [default: 0].
    #[arg(long, value_name = "N", help_heading = "Output")]
    keep: Option<usize>,
    /// Steps between records in metrics.jsonl and TensorBoard [default: 10].
    #[arg(long, value_name = "N", help_heading = "Output")]
    log_steps: Option<u64>,

    #[command(flatten)]
    #[serde(flatten)]
    execution: ExecutionFlags,
}

fn pair(text: &str) -> Result<[f64; 2], String> {
    text.split_once(',')
        .and_then(|(low, high)| Some([low.trim().parse().ok()?, high.trim().parse().ok()?]))
        .ok_or_else(|| format!("{text:?} is not two numbers like 0.67,1"))
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
    let flags = Table::try_from(&args.settings)?;
    let preset = args.preset.map(|preset| preset.toml().parse()).transpose()?.unwrap_or_default();
    let config: TrainConfig = from_layers(args.run.layers(preset, flags)?)?;
    config.resolve()
}
