//! `cargo xtask demo`: pretrains a small encoder on real photographs, and
//! fine-tunes a detector on it.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Purpose, Torch};
use crate::{photos, process};

/// What is pretrained, besides where the photographs and the run lie.
const PRETRAIN: [&str; 3] = ["--preset", "demo", "--overwrite"];
/// What is fine-tuned: fewer epochs than the preset has, for a first look.
const DETECT: [&str; 5] = ["--preset", "demo", "--epochs", "3", "--overwrite"];

/// Sets up, builds in release, pretrains, and fine-tunes Mask R-CNN on a data
/// set made of the same photographs; the programs end by saying where the
/// results lie. `arguments` are passed on to `pretrain train`.
pub fn run(torch: &Torch, arguments: &[String]) -> Result<()> {
    let checkout = setup::run(Purpose::Build, torch)?;
    let photographs = photos::run(&checkout)?;

    let mut cargo = checkout.cargo();
    // All programs, as README's build line has it: a part of them would be built with other
    // features of the dependencies, and those then a second time.
    process::run(cargo.args(["build", "--release", "--workspace", "--bins"]))?;

    let target = &checkout.target;
    let (programs, folder) = (target.join("release"), target.join("demo"));
    let encoder = folder.join("run");
    let mut pretrain = Command::new(programs.join("pretrain"));
    pretrain.arg("train").arg("--data").arg(&photographs).arg("--output").arg(&encoder);
    process::run(pretrain.args(PRETRAIN).args(arguments))?;
    detect(&programs.join("detect"), &photographs, &encoder, &folder)
}

/// Makes the data set `detection` in `folder`, fine-tunes on it from `encoder`,
/// and draws what is found in its validation images.
fn detect(program: &Path, photographs: &Path, encoder: &Path, folder: &Path) -> Result<()> {
    let (data, run) = (folder.join("detection"), folder.join("detection-run"));
    let mut make = Command::new(program);
    make.arg("make-demo").arg("--photos").arg(photographs).arg("--output").arg(&data);
    process::run(make.arg("--overwrite"))?;

    let mut train = Command::new(program);
    train.arg("train").arg("--data").arg(&data).arg("--output").arg(&run);
    train.arg("--backbone-weights").arg(encoder);
    process::run(train.args(DETECT))?;

    let mut predict = Command::new(program);
    predict.arg("predict").arg("--weights").arg(&run).arg(data.join("val"));
    process::run(predict.arg("--output").arg(folder.join("detection-found")))
}
