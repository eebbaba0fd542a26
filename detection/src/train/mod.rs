//! `detect train`: what training a detector adds to the training loop.

pub mod auto;
mod config;
mod outputs;
mod precise_bn;
mod setup;
mod task;
mod validate;

use engine::training::RunState;

pub use config::{Preset, Schedule, TrainConfig};
pub use setup::prepare;
pub use task::{Class, DetectorState};

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, DetectorState>;
