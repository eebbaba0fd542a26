//! Checkpoints: one `.safetensors` file each, written so that a process
//! killed at any instant leaves the one before usable.

mod beside;
mod dir;
mod file;
mod restore;

pub use beside::beside;
pub(crate) use beside::step_of;
pub(crate) use dir::epoch_of;
pub use dir::{CheckpointDir, CheckpointTags};
pub use file::{CheckpointFile, write_checkpoint};
pub use restore::restore;
