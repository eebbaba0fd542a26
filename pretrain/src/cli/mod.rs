//! The `pretrain` command line: flags become settings, settings become
//! objects; `main` only turns errors into an exit code.

mod compare;
mod export;
mod features;
mod forward;
mod image_flags;
mod inspect;
mod mask_pattern;
mod models;
mod playground;
mod reconstruct;
mod shards;

pub use export::{ExportFormat, timm_config};

use anyhow::Result;
use clap::Parser;
use engine::training::{PresetsArgs, TrainFlags, presets_examples};

use crate::config::{Preset, TrainConfig};
use crate::train;

const TRAIN_EXAMPLES: &str = "\
Examples:
  # Photos in any folder structure; settings are chosen by them and the machine
  pretrain train --data photos --output runs/first

  # Continue after an interruption
  pretrain train --output runs/first --resume

  # The paper's ResNet-50 recipe from tar shards, 512 images at a time
  pretrain train --preset paper --data 'shards-{000..146}.tar' --output runs/r50 \
      --accum-steps 8 --precision bfloat16

  # Eight GPUs of one machine; the batch is still that of the whole
  torchrun --standalone --no-python --nproc-per-node 8 \
      pretrain train --preset paper --data photos --output runs/r50

  # See what would be chosen or what flags mean, and keep it in a file
  pretrain train --data photos --output runs/a --model convnext_small --dump-config > a.toml
  pretrain train --config a.toml";

/// Pretrain convolutional backbones by masked image modelling (SparK).
#[derive(Debug, Parser)]
#[command(name = "pretrain", version, arg_required_else_help = true, max_term_width = 100)]
pub enum Cli {
    /// Pretrain a backbone on a folder of images.
    #[command(after_help = TRAIN_EXAMPLES, args_override_self = true)]
    Train(Box<TrainFlags<TrainConfig, Preset>>),
    /// Measure what pretraining is worth on images of one's own, within a given time.
    #[command(args_override_self = true)]
    Compare(compare::CompareArgs),
    /// Draw original, masked input and reconstruction of given images.
    Reconstruct(reconstruct::ReconstructArgs),
    /// Draw what the encoder sees in given images: its features as colours.
    Features(features::FeaturesArgs),
    /// Show on a page in the browser what a checkpoint makes of pictures: paint masks, look at
    /// features.
    Playground(playground::PlaygroundArgs),
    /// Draw how masked-out regions vanish under dense convolution, and not under sparse.
    MaskPattern(mask_pattern::MaskPatternArgs),
    /// Write a checkpoint's encoder for timm, torchvision, detectron2, mmdet, …
    Export(export::ExportArgs),
    /// Say what a weight file is: format, model, naming, and what matches.
    Inspect(inspect::InspectArgs),
    /// Pack images into tar shards, or check such.
    Shards(shards::ShardsArgs),
    /// List the models that can be pretrained.
    Models(models::ModelsArgs),
    /// List the presets, or print one.
    #[command(after_help = presets_examples("pretrain"))]
    Presets(PresetsArgs<Preset>),
    /// Run one pass on given tensors and write every result, to check against
    /// other implementations.
    Forward(forward::ForwardArgs),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Train(args) => args.run(train::prepare),
            Self::Compare(args) => compare::run(args),
            Self::Reconstruct(args) => reconstruct::run(args),
            Self::Features(args) => features::run(args),
            Self::Playground(args) => playground::run(args),
            Self::MaskPattern(args) => mask_pattern::run(args),
            Self::Export(args) => export::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Shards(args) => shards::run(args),
            Self::Models(args) => models::run(args),
            Self::Presets(args) => {
                args.run();
                Ok(())
            }
            Self::Forward(args) => forward::run(args),
        }
    }
}
