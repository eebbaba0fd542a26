//! The `classify` command line: flags become settings, settings become objects;
//! `main` only turns errors into an exit code.

mod evaluate;
mod export;
mod model_flags;
mod predict;
mod probe;
mod train;

use anyhow::Result;
use clap::{Parser, Subcommand};
use engine::training::PresetsArgs;

use crate::train::Preset;

const PRESETS_EXAMPLES: &str = "\
Examples:
  classify presets

  # The settings of one, as a file to change and to give to --config
  classify presets small-data > mine.toml";

/// Fine-tune, evaluate and use image classifiers on pretrained backbones.
#[derive(Debug, Parser)]
#[command(name = "classify", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fine-tune a classifier from a pretrained backbone.
    Train(Box<train::TrainArgs>),
    /// Score a classifier: top-1, top-5, each class, and what it confuses.
    Evaluate(evaluate::EvaluateArgs),
    /// Say what images show.
    Predict(predict::PredictArgs),
    /// Score a backbone without training it: nearest neighbours and a linear
    /// classifier on its frozen features.
    Probe(probe::ProbeArgs),
    /// Write a classifier for other frameworks.
    Export(export::ExportArgs),
    /// List the presets, or print one.
    #[command(after_help = PRESETS_EXAMPLES)]
    Presets(PresetsArgs<Preset>),
}

impl Cli {
    /// Runs the chosen command.
    ///
    /// # Errors
    /// Whatever went wrong, as a sentence for the user.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Train(args) => train::run(*args),
            Command::Evaluate(args) => evaluate::run(args),
            Command::Predict(args) => predict::run(args),
            Command::Probe(args) => probe::run(args),
            Command::Export(args) => export::run(args),
            Command::Presets(args) => {
                args.run();
                Ok(())
            }
        }
    }
}
