//! The `detect` command line: flags become settings, settings become objects;
//! `main` only turns errors into an exit code.

mod check_data;
mod evaluate;
mod export;
mod forward;
mod make_demo;
mod model_flags;
mod playground;
mod predict;
mod train;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use engine::training::{PresetsArgs, presets_examples};

use crate::train::Preset;

/// Train, evaluate and use Mask R-CNN on data in COCO's format.
#[derive(Debug, Parser)]
#[command(name = "detect", version, arg_required_else_help = true, max_term_width = 100)]
pub enum Cli {
    /// Fine-tune a detector from a pretrained backbone.
    Train(Box<train::TrainArgs>),
    /// Score a detector, or a file of its results, as COCO does.
    Evaluate(evaluate::EvaluateArgs),
    /// Detect objects in images and draw them.
    Predict(predict::PredictArgs),
    /// Show on a page in the browser what a detector finds in pictures.
    Playground(playground::PlaygroundArgs),
    /// Write a detector for other frameworks, or for the Hugging Face hub.
    Export(export::ExportArgs),
    /// Run one pass on a given image tensor and write what it computes, to check
    /// against other implementations.
    Forward(forward::ForwardArgs),
    /// Make a small data set with known masks out of photographs.
    MakeDemo(make_demo::MakeDemoArgs),
    /// Look through a data set: what it holds, and what is wrong with it.
    CheckData(check_data::CheckDataArgs),
    /// List the presets, or print one.
    #[command(after_help = presets_examples("detect"))]
    Presets(PresetsArgs<Preset>),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> Result<ExitCode> {
        match self {
            Self::Train(args) => train::run(*args)?,
            Self::Evaluate(args) => evaluate::run(args)?,
            Self::Predict(args) => predict::run(args)?,
            Self::Playground(args) => playground::run(args)?,
            Self::Export(args) => export::run(args)?,
            Self::Forward(args) => forward::run(args)?,
            Self::MakeDemo(args) => make_demo::run(args)?,
            Self::CheckData(args) => return check_data::run(args),
            Self::Presets(args) => args.run(),
        }
        Ok(ExitCode::SUCCESS)
    }
}
