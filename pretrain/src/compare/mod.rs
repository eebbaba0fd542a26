//! `pretrain compare`: what pretraining is worth on somebody's own images.
//!
//! Fine-tunings from random and from pretrained weights with as many steps, and from random weights
//! with as much time, pretraining included, on shares of the labels and with several seeds. The
//! programs `classify` and `detect` do the fine-tuning: they are started as a person would, so that
//! each run can be looked at, and repeated, by itself.

mod clock;
mod coco;
mod experiment;
mod labelled;
mod measure;
mod picture;
mod plan;
mod programs;
mod report;
mod results;
mod runs;
mod settings;
mod statistics;
mod words;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};

pub use experiment::{Begin, run};
pub use settings::{CompareSettings, saved as saved_settings};

/// Ends what an interrupt was asked to end.
fn check_interrupt(interrupted: &AtomicBool) -> Result<()> {
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
