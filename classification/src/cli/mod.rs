//! The `classify` command line: flags become settings, settings become objects;
//! `main` only turns errors into an exit code.

mod evaluate;
mod export;
mod model_flags;
mod playground;
mod predict;
mod probe;

use anyhow::Result;
use clap::Parser;
use engine::training::{PresetsArgs, TrainFlags, presets_examples};

use crate::train::{self, Preset, TrainConfig};

const TRAIN_EXAMPLES: &str = "\
Examples:
  # One's own images, in flowers/train/CLASS and flowers/val/CLASS, a backbone from pretraining;
  # settings are chosen by the images and the machine
  classify train --data flowers --output runs/first --backbone-weights runs/pretrained

  # Continue after an interruption
  classify train --output runs/first --resume

  # SparK's recipes on ImageNet
  classify train --data imagenet --output runs/r50 --preset resnet50 --accum-steps 8 \\
      --precision bfloat16 --backbone-weights resnet50_1kpretrained_timm_style.pth

  # From somebody's classifier to classes of one's own
  classify train --data flowers --output runs/second --weights resnet50.a1_in1k --reset-head

  # See what would be chosen or what flags mean, and keep it in a file
  classify train --data flowers --output runs/a --preset demo --dump-config > a.toml
  classify train --config a.toml";

/// Fine-tune, evaluate and use image classifiers on pretrained backbones.
#[derive(Debug, Parser)]
#[command(name = "classify", version, arg_required_else_help = true, max_term_width = 100)]
pub enum Cli {
    /// Fine-tune a classifier from a pretrained backbone.
    #[command(after_help = TRAIN_EXAMPLES, args_override_self = true)]
    Train(Box<TrainFlags<TrainConfig, Preset>>),
    /// Score a classifier: top-1, top-5, each class, and what it confuses.
    Evaluate(evaluate::EvaluateArgs),
    /// Say what images show.
    Predict(predict::PredictArgs),
    /// Show on a page in the browser what a classifier makes of pictures.
    Playground(playground::PlaygroundArgs),
    /// Score a backbone without training it: nearest neighbours and a linear
    /// classifier on its frozen features.
    Probe(probe::ProbeArgs),
    /// Write a classifier for other frameworks.
    Export(export::ExportArgs),
    /// List the presets, or print one.
    #[command(after_help = presets_examples("classify"))]
    Presets(PresetsArgs<Preset>),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Train(args) => args.run(train::prepare),
            Self::Evaluate(args) => evaluate::run(args),
            Self::Predict(args) => predict::run(args),
            Self::Playground(args) => playground::run(args),
            Self::Probe(args) => probe::run(args),
            Self::Export(args) => export::run(args),
            Self::Presets(args) => {
                args.run();
                Ok(())
            }
        }
    }
}
