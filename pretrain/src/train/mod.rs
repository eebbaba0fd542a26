//! `pretrain train`: what pretraining adds to the training loop.

pub mod auto;
mod execution;
mod outputs;
mod probe;
mod setup;
mod task;

use engine::training::RunState;

use crate::config::TrainConfig;
pub use setup::{normalize, prepare};
pub use task::PretrainState;

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, PretrainState>;
