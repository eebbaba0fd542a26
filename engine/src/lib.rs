//! What every trainer needs, and no more: the training loop, settings, optimizers,
//! schedules, checkpoints, metrics, pictures and progress, and what their command
//! lines share.
//!
//! The loop is [`training::Run::fit`], to be read from top to bottom; each program
//! gives it a [`training::Task`].

pub mod allocator;
mod bridge;
pub mod checkpoint;
mod cuda;
pub mod device;
pub mod distributed;
pub mod error;
pub mod export;
pub mod graph;
pub mod interrupt;
pub mod metrics;
pub mod operators;
pub mod optim;
pub mod outputs;
pub mod picture;
pub mod precision;
pub mod probe;
pub mod processor;
pub mod program;
pub mod progress;
pub mod remote;
pub mod run_dir;
mod run_storage;
pub mod schedule;
pub mod settings;
pub mod training;

pub use error::{Error, Result};
