//! `pretrain train`: what pretraining adds to the training loop.

pub mod auto;
mod execution;
mod outputs;
mod probe;
mod setup;
mod task;

use anyhow::Result;
use engine::distributed::ProcessGroup;
use engine::settings::TrainSettings as _;
use engine::training::RunState;
use toml::Table;

use crate::config::TrainConfig;
pub use setup::{normalize, prepare};
pub use task::PretrainState;

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, PretrainState>;

/// The settings of a run with the preset `auto`, of which `given` stays; what is chosen is told on
/// standard error, with the reasons.
///
/// # Errors
/// Those of [`auto::choose`], and settings that cannot be run.
pub fn choose_settings(given: Table, world: &ProcessGroup) -> Result<TrainConfig> {
    let choices = engine::training::auto::choose::<task::Pretraining>(given, world, prepare)?;
    choices.settings()?.resolve()
}
