//! `cargo xtask demo`: pretrains a small encoder on real photographs.

use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Purpose};
use crate::{photos, places, process};

/// What is trained, besides where the photographs and the run lie.
const TRAIN: [&str; 3] = ["--preset", "demo", "--overwrite"];

/// Sets up, builds in release, and trains; the program ends by saying where
/// the results lie. `arguments` are passed on to `pretrain train`.
///
/// # Errors
/// When a step fails.
pub fn run(arguments: &[String]) -> Result<()> {
    let checkout = setup::run(Purpose::Build)?;
    let photographs = photos::run(&checkout.environment)?;

    let mut cargo = process::cargo(&checkout.root);
    process::run(cargo.args(["build", "--release", "--package", "spark-pretrain"]))?;

    let target = places::target()?;
    let output = target.join("demo").join("run");
    let mut pretrain = Command::new(target.join("release").join("pretrain"));
    pretrain.arg("train").arg("--data").arg(&photographs).arg("--output").arg(&output);
    process::run(pretrain.args(TRAIN).args(arguments))
}
