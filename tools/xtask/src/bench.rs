//! `cargo xtask bench`: us and others, measured side by side.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::process;
use crate::setup::{self, Purpose, Torch};

/// Commands of the program `bench` that are its own first argument.
const COMMANDS: [&str; 2] = ["run", "scaling"];

/// Sets up, builds in release, and measures; `arguments` are passed on to
/// `bench run`, or to the command of `bench` that they begin with.
pub fn run(torch: &Torch, arguments: &[String]) -> Result<ExitCode> {
    let checkout = setup::run(Purpose::Bench, torch)?;
    let mut cargo = checkout.cargo();
    // All programs, as README's build line has it: a part of them would be built with other
    // features of the dependencies, and those then a second time.
    // The store of `loading-s3` is no program of a user's.
    let what = ["--workspace", "--bins", "--example", "serve_objects"];
    process::run(cargo.args(["build", "--release"]).args(what))?;

    let mut bench = Command::new(checkout.target.join("release").join("bench"));
    bench.args(command_line(arguments));
    // A user's own choice stays.
    if env::var_os("SPARK_PYTHON").is_none() {
        bench.env("SPARK_PYTHON", checkout.environment.python());
    }
    // Comparisons that failed have said so: there is nothing to add.
    let status = bench.status().context("cannot start bench")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What `bench` is told.
fn command_line(arguments: &[String]) -> Vec<String> {
    let first = arguments.first().map(String::as_str);
    let command = first.filter(|first| COMMANDS.contains(first));
    let default = command.is_none().then(|| COMMANDS[0].to_owned());
    default.into_iter().chain(arguments.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_unless_told_otherwise_are_the_comparisons() {
        let line = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            command_line(&words).join(" ")
        };
        assert_eq!(line(""), "run");
        assert_eq!(line("--only coco --quick"), "run --only coco --quick");
        assert_eq!(line("run --list"), "run --list");
        assert_eq!(line("scaling --only batch"), "scaling --only batch");
    }
}
