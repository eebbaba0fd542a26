//! `cargo xtask demo`: pretrains a small encoder on real photographs.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::{self, Purpose};
use crate::{photos, places, process};

/// What is trained, besides where the photographs and the run lie.
const TRAIN: [&str; 5] = ["--model", "resnet18", "--preset", "demo", "--overwrite"];

/// What a run folder holds when training is over, and what it is.
const RESULTS: [(&str, &str); 2] =
    [("export", "Exported weights"), ("reconstruction.png", "Reconstructions")];

/// Sets up, builds in release, trains, and says where the results lie.
/// `arguments` are passed on to `pretrain train`.
///
/// # Errors
/// When a step fails, or the run leaves out a result.
pub fn run(arguments: &[String]) -> Result<()> {
    let checkout = setup::run(Purpose::Build)?;
    let photographs = photos::run(&checkout.environment)?;

    let mut cargo = process::cargo(&checkout.root);
    process::run(cargo.args(["build", "--release", "--package", "spark-pretrain"]))?;

    let target = places::target()?;
    let output = target.join("demo").join("run");
    let mut pretrain = Command::new(target.join("release").join("pretrain"));
    pretrain.arg("train").arg("--data").arg(&photographs).arg("--output").arg(&output);
    process::run(pretrain.args(TRAIN).args(arguments))?;
    report(&output)
}

/// Says where each result lies.
fn report(output: &Path) -> Result<()> {
    println!("\nRun: {}", output.display());
    for (name, what) in RESULTS {
        let path = output.join(name);
        if !path.exists() {
            bail!("the run ended without {}", path.display());
        }
        println!("{what}: {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_its_results_is_no_success() {
        let output = std::env::temp_dir().join(format!("xtask-demo-{}", std::process::id()));
        for (name, _) in RESULTS {
            let error = report(&output).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            std::fs::create_dir_all(output.join(name)).unwrap();
        }
        let reported = report(&output);
        std::fs::remove_dir_all(&output).unwrap();
        reported.unwrap();
    }
}
