//! `classify train`.

use anyhow::Result;
use clap::Args;
use engine::training::TrainFlags;

use crate::train::{self, Preset, TrainConfig};

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
      --weights resnet50.a1_in1k --reset-head

  # See what a set of flags means, and keep it in a file
  classify train --data flowers --output runs/a --preset demo --dump-config > a.toml
  classify train --config a.toml";

/// Flags of `classify train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct TrainArgs {
    #[command(flatten)]
    flags: TrainFlags<TrainConfig, Preset>,
}

/// Resolves the flags and trains.
///
/// # Errors
/// Settings that cannot be run, and whatever stops the run.
pub fn run(args: TrainArgs) -> Result<()> {
    let started = args.flags.begin(TrainConfig::resolve, |config| &config.run.output)?;
    let Some((config, start, world)) = started else { return Ok(()) };
    train::train(config, start, &world)
}
