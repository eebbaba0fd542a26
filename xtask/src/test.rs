//! `cargo xtask test`: everything that is tested.

use std::env;

use anyhow::Result;

use crate::process;
use crate::setup::{self, Purpose};

/// Sets up and runs `cargo test` on the whole workspace, or with `arguments`.
///
/// # Errors
/// When the set-up or a test fails.
pub fn run(arguments: &[String]) -> Result<()> {
    let checkout = setup::run(Purpose::Test)?;
    let mut cargo = process::cargo(&checkout.root);
    cargo.arg("test");
    if !names_packages(arguments) {
        cargo.arg("--workspace");
    }
    // The Python that tests compare with; a user's own choice stays.
    if env::var_os("SPARK_PYTHON").is_none() {
        cargo.env("SPARK_PYTHON", checkout.environment.python());
    }
    process::run(cargo.args(arguments))
}

/// Whether the arguments, up to those of the test programs, choose packages.
fn names_packages(arguments: &[String]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
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
        for line in ["", "weights", "--test parity", "-- --package", "weights -- -p"] {
            assert!(!names(line), "{line}");
        }
    }
}
