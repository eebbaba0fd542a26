//! The `pretrain` command line: flags become settings, settings become
//! objects; `main` only turns errors into an exit code.

mod export;
mod forward;
mod inspect;
mod mask_pattern;
mod models;
mod reconstruct;
mod train;

pub use export::{ExportFormat, timm_config};

use anyhow::Result;
use clap::{Parser, Subcommand};
use engine::training::PresetsArgs;

use crate::config::Preset;

const PRESETS_EXAMPLES: &str = "\
Examples:
  pretrain presets

  # The settings of one, as a file to change and to give to --config
  pretrain presets small-data > mine.toml";

/// Pretrain convolutional backbones by masked image modelling (SparK).
#[derive(Debug, Parser)]
#[command(name = "pretrain", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pretrain a backbone on a folder of images.
    Train(Box<train::TrainArgs>),
    /// Draw original, masked input and reconstruction of given images.
    Reconstruct(reconstruct::ReconstructArgs),
    /// Draw how masked-out regions vanish under dense convolution, and not under sparse.
    MaskPattern(mask_pattern::MaskPatternArgs),
    /// Write a checkpoint's encoder for timm, torchvision, detectron2, mmdet, …
    Export(export::ExportArgs),
    /// Say what a weight file is: format, model, naming, and what matches.
    Inspect(inspect::InspectArgs),
    /// List the models that can be pretrained.
    Models(models::ModelsArgs),
    /// List the presets, or print one.
    #[command(after_help = PRESETS_EXAMPLES)]
    Presets(PresetsArgs<Preset>),
    /// Run one pass on given tensors and write every result, to check against
    /// other implementations.
    Forward(forward::ForwardArgs),
}

impl Cli {
    /// Runs the chosen command.
    ///
    /// # Errors
    /// Whatever went wrong, as a sentence for the user.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Train(args) => train::run(*args),
            Command::Reconstruct(args) => reconstruct::run(args),
            Command::MaskPattern(args) => mask_pattern::run(args),
            Command::Export(args) => export::run(args),
            Command::Inspect(args) => inspect::run(args),
            Command::Models(args) => models::run(args),
            Command::Presets(args) => {
                args.run();
                Ok(())
            }
            Command::Forward(args) => forward::run(args),
        }
    }
}
