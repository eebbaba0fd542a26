//! `cargo xtask test`: everything that is tested.

use std::env;
use std::process::Command;

use anyhow::Result;

use crate::process;
use crate::setup::{self, Purpose, Torch};

/// Sets up and runs `cargo test` with `arguments`, on the whole workspace
/// unless they name packages; `programs` go to the test programs.
pub fn run(torch: &Torch, arguments: &[String], programs: &[String]) -> Result<()> {
    let checkout = setup::run(Purpose::Test, torch)?;
    let mut cargo = checkout.cargo();
    cargo.arg("test");
    if !names_packages(arguments) {
        cargo.arg("--workspace");
    }
    // One run tells of every failure.
    if !arguments.iter().any(|argument| argument == "--no-fail-fast") {
        cargo.arg("--no-fail-fast");
    }
    // The Python that tests compare with; a user's own choice stays.
    if env::var_os("SPARK_PYTHON").is_none() {
        cargo.env("SPARK_PYTHON", checkout.environment.python());
    }
    // Tests run side by side: libtorch's own threads would only wait for each
    // other.
    if env::var_os("OMP_NUM_THREADS").is_none() {
        cargo.env("OMP_NUM_THREADS", "1");
    }
    if Command::new("chromedriver").arg("--version").output().is_err() {
        eprintln!(
            "note: no browser here (chromedriver): the playgrounds' pages are not tested; Debian's \
             packages are chromium and chromium-driver"
        );
    }
    cargo.args(arguments);
    if !programs.is_empty() {
        cargo.arg("--").args(programs);
    }
    process::run(&mut cargo)
}

/// Whether the arguments choose packages.
fn names_packages(arguments: &[String]) -> bool {
    arguments.iter().any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_named_takes_the_workspaces_place() {
        let names = |line: &str| {
            names_packages(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        };
        for line in ["-p spark-backbone", "-pxtask", "--package xtask", "--package=xtask", "x -p y"]
        {
            assert!(names(line), "{line}");
        }
        for line in ["", "weights", "--test parity", "--profile release"] {
            assert!(!names(line), "{line}");
        }
    }
}
