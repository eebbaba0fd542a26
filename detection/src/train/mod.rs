//! `detect train`: what training a detector adds to the training loop.

pub mod auto;
mod config;
mod outputs;
mod precise_bn;
mod setup;
mod task;
mod validate;

use anyhow::Result;
use engine::distributed::ProcessGroup;
use engine::settings::TrainSettings as _;
use engine::training::RunState;
use toml::Table;

pub use config::{Preset, Schedule, TrainConfig};
pub use setup::prepare;
pub use task::{Class, DetectorState};

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, DetectorState>;

/// The settings of a run with the preset `auto`, of which `given` stays; what is chosen is told on
/// standard error, with the reasons.
///
/// # Errors
/// Those of [`auto::choose`], and settings that cannot be run.
pub fn choose_settings(given: Table, world: &ProcessGroup) -> Result<TrainConfig> {
    let choices = engine::training::auto::choose::<task::DetectorTraining>(given, world, prepare)?;
    choices.settings()?.resolve()
}
