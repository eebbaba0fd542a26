//! `classify train`: what fine-tuning adds to the training loop.

pub mod auto;
mod config;
mod outputs;
mod setup;
mod task;
mod validate;

use engine::training::RunState;

pub use config::{AugmentPolicy, CropMode, Preset, TrainConfig};
pub use setup::{optimizer, prepare};
pub use task::{Accuracy, ClassifierState};

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, ClassifierState>;
