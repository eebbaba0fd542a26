//! `pretrain train`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use engine::training::{ExecutionFlags, Preset as _, RunFlags};
use serde::Serialize;
use toml::Table;

use crate::config::{InputSize, OptimizerKind, Preset, TrainConfig};
use crate::train;

const EXAMPLES: &str = "\
Examples:
  # Photos in any folder structure, settings for small data sets
  pretrain train --data photos --output runs/first --preset small-data

  # Continue after an interruption
  pretrain train --output runs/first --resume

  # The paper's ResNet-50 recipe from tar shards, 512 images at a time
  pretrain train --data 'shards-{000..146}.tar' --output runs/r50 --accum-steps 8 --precision bfloat16

  # Eight GPUs of one machine; the batch is still that of the whole
  torchrun --standalone --no-python --nproc-per-node 8 \
      pretrain train --data photos --output runs/r50

  # See what a set of flags means, and keep it in a file
  pretrain train --data photos --output runs/a --model convnext_small --dump-config > a.toml
  pretrain train --config a.toml";

/// Flags of `pretrain train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct TrainArgs {
    #[command(flatten)]
    settings: Settings,
    /// Settings that suit a situation; other flags override them [default: paper].
    #[arg(long, value_enum)]
    preset: Option<Preset>,
    #[command(flatten)]
    run: RunFlags,
}

/// One flag a setting; a flag that is not given leaves the setting to the
/// layers below. Names of the official script are accepted as aliases.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Settings {
    /// Images: a folder at any depth, a text list of files, tar shards ({000..009}).
    #[arg(long, value_name = "PATH", alias = "data_path", alias = "data-path")]
    data: Option<PathBuf>,
    /// Folder that the run writes to.
    #[arg(long, short, value_name = "DIR", alias = "exp_dir", alias = "exp-dir")]
    output: Option<PathBuf>,
    /// Name of the run in logs [default: the folder's].
    #[arg(long, alias = "exp_name", alias = "exp-name")]
    name: Option<String>,
    /// Model to pretrain, see `pretrain models` [default: resnet50].
    #[arg(long, help_heading = "Model")]
    model: Option<String>,
    /// Channels of the images [default: 3].
    #[arg(long, value_name = "N", help_heading = "Model")]
    in_chans: Option<i64>,
    /// Size of crops in pixels: 224, or 192x256 for height x width [default: 224].
    #[arg(long, value_name = "PIXELS", alias = "input_size", help_heading = "Model")]
    input_size: Option<InputSize>,
    /// Share of patches that is masked [default: 0.6].
    #[arg(long, value_name = "RATIO", alias = "mask", help_heading = "Model")]
    mask_ratio: Option<f64>,
    /// Width of the decoder at the coarsest level [default: 768].
    #[arg(long, value_name = "N", help_heading = "Model")]
    decoder_width: Option<i64>,
    /// Drop-path rate of the last block [default: the official one of the model].
    #[arg(long, value_name = "RATE", alias = "dp", help_heading = "Model")]
    drop_path: Option<f64>,
    /// Weight file to start from, in any format; the run still begins at step 0.
    #[arg(
        long,
        value_name = "FILE",
        alias = "init_weight",
        alias = "init-weight",
        help_heading = "Model"
    )]
    init_weights: Option<PathBuf>,

    /// Images per optimizer step [default: 4096].
    #[arg(long, value_name = "N", alias = "bs", help_heading = "Optimisation")]
    batch_size: Option<usize>,
    /// Compute a batch in N parts to save memory [default: 1].
    #[arg(long, value_name = "N", help_heading = "Optimisation")]
    accum_steps: Option<usize>,
    /// Passes over the images [default: 1600].
    #[arg(long, value_name = "N", alias = "ep", help_heading = "Optimisation")]
    epochs: Option<u64>,
    /// Epochs of learning-rate warm-up [default: 40].
    #[arg(long, value_name = "N", alias = "wp_ep", alias = "wp-ep", help_heading = "Optimisation")]
    warmup_epochs: Option<u64>,
    /// Optimizer [default: lamb].
    #[arg(long, value_enum, alias = "opt", help_heading = "Optimisation")]
    optimizer: Option<OptimizerKind>,
    /// Peak learning rate per 256 images of batch [default: 2e-4].
    #[arg(long, value_name = "LR", alias = "base_lr", help_heading = "Optimisation")]
    base_lr: Option<f64>,
    /// Weight decay at the first step [default: 0.04].
    #[arg(long, value_name = "WD", alias = "wd", help_heading = "Optimisation")]
    weight_decay: Option<f64>,
    /// Weight decay at the last step [default: 0.2].
    #[arg(long, value_name = "WD", alias = "wde", help_heading = "Optimisation")]
    weight_decay_end: Option<f64>,
    /// Largest global gradient norm, 0 for none [default: 5].
    #[arg(long, value_name = "NORM", alias = "clip", help_heading = "Optimisation")]
    clip_grad: Option<f64>,
    /// First beta of LAMB and AdamW, momentum of SGD [default: 0.9].
    #[arg(long, value_name = "BETA", help_heading = "Optimisation")]
    beta1: Option<f64>,
    /// Second beta [default: 0.95, ConvNeXt 0.999].
    #[arg(long, value_name = "BETA", alias = "ada", help_heading = "Optimisation")]
    beta2: Option<f64>,

    /// Crop area as a share of the image: smallest,largest [default: 0.67,1].
    #[arg(long, value_name = "MIN,MAX", value_parser = pair, help_heading = "Data")]
    crop_scale: Option<[f64; 2]>,
    /// Crop width / height: smallest,largest [default: 0.75,1.333].
    #[arg(long, value_name = "MIN,MAX", value_parser = pair, help_heading = "Data")]
    crop_ratio: Option<[f64; 2]>,
    /// Probability of a horizontal flip [default: 0.5].
    #[arg(long, value_name = "P", help_heading = "Data")]
    hflip: Option<f64>,
    /// Decode large JPEG files at 1/2, 1/4 or 1/8 of their size where that leaves a training crop
    /// twice the input size; false: every pixel [default: true].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Data")]
    reduced_decode: Option<bool>,
    /// Mean of every channel, for pixels in 0–1 [default: ImageNet's].
    #[arg(long, value_name = "M,M,M", value_delimiter = ',', help_heading = "Data")]
    mean: Option<Vec<f32>>,
    /// Deviation of every channel [default: ImageNet's].
    #[arg(long, value_name = "S,S,S", value_delimiter = ',', help_heading = "Data")]
    std: Option<Vec<f32>>,
    /// Share of unreadable files that stops the run [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = "Data")]
    max_corrupt: Option<f64>,
    /// List the data anew: listings of large folders are kept in the user's cache folder, and taken
    /// again while the times of the folders stay the same.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          help_heading = "Data")]
    relist: Option<bool>,
    /// Each of several processes reads tar shards of its own and none of the others'.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true",
          help_heading = "Data")]
    own_shards: Option<bool>,
    /// Threads that read images [default: as many as cores].
    #[arg(long, value_name = "N", alias = "dataloader_workers", help_heading = "Data")]
    workers: Option<usize>,

    #[command(flatten)]
    #[serde(flatten)]
    execution: ExecutionFlags,

    /// Epochs between checkpoints [default: 1].
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
    /// Epochs between reconstruction pictures, 0: only at the end [default: 20].
    #[arg(long, value_name = "N", help_heading = "Output")]
    picture_epochs: Option<u64>,
    /// Labelled images, train/CLASS/… and val/CLASS/…, to tell by nearest neighbours what the
    /// encoder is worth.
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    probe: Option<PathBuf>,
    /// Epochs between such probes [default: 20].
    #[arg(long, value_name = "N", help_heading = "Output")]
    probe_epochs: Option<u64>,
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
    TrainConfig::from_layers(args.run.layers(preset, flags)?)?.resolve()
}
