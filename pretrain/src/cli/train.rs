//! `pretrain train`.

use anyhow::Result;
use clap::Args;
use engine::training::TrainFlags;

use crate::config::{Preset, TrainConfig};
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
