//! `classify train`: what fine-tuning adds to the training loop.

pub mod auto;
mod config;
mod outputs;
mod setup;
mod task;
mod validate;

use anyhow::Result;
use engine::distributed::ProcessGroup;
use engine::settings::TrainSettings as _;
use engine::training::RunState;
use toml::Table;

pub use config::{AugmentPolicy, CropMode, Preset, TrainConfig};
pub use setup::{optimizer, prepare};
pub use task::{Accuracy, ClassifierState};

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, ClassifierState>;

/// The settings of a run with the preset `auto`, of which `given` stays; what is chosen is told on
/// standard error, with the reasons.
///
/// # Errors
/// Those of [`auto::choose`], and settings that cannot be run.
pub fn choose_settings(given: Table, world: &ProcessGroup) -> Result<TrainConfig> {
    let choices = engine::training::auto::choose::<task::FineTuning>(given, world, prepare)?;
    choices.settings()?.resolve()
}
