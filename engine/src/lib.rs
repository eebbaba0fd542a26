//! What every trainer needs, and no more: data, random streams, optimizers,
//! schedules, checkpoints, metrics, pictures and progress.
//!
//! The crate supplies parts. The training loop that calls them is a function
//! of each binary, to be read there from top to bottom.

pub mod checkpoint;
pub mod data;
pub mod error;
pub mod metrics;
pub mod optim;
pub mod picture;
pub mod progress;
pub mod rng;
pub mod run_dir;
pub mod schedule;

pub use error::{Error, Result};
