//! The training loop of `classify train`.

mod config;

pub use config::{OptimizerKind, Policy, Preset, TrainConfig};
