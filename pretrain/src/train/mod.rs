//! `pretrain train`: what pretraining adds to the training loop.

mod outputs;
mod probe;
mod setup;
mod task;

use anyhow::Result;
use engine::distributed::ProcessGroup;
use engine::training::{ResumeMode, RunState};

use crate::config::TrainConfig;
pub use setup::normalize;
pub use task::PretrainState;

/// The state of a run, as a checkpoint has it.
pub type TrainState = RunState<TrainConfig, PretrainState>;

/// Pretrains as `config` says and leaves weights, pictures and metrics in its output folder. An
/// interrupt (Ctrl-C, SIGTERM) saves a checkpoint and ends the run in order. All processes of
/// `world` call; rank 0 writes.
///
/// # Errors
/// Anything that keeps the run from starting, unreadable images beyond the configured share, a
/// loss or gradient that is not finite, a full disk.
pub fn train(config: TrainConfig, start: ResumeMode, world: &ProcessGroup) -> Result<()> {
    let (run, loader) = setup::prepare(config, &start, world)?;
    run.fit(&loader)
}
