//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::duel::{Comparison, Settings};
use crate::duels;
use crate::machine::Machine;
use crate::peak::Peak;
use crate::progress::Progress;
use crate::report::Report;
use crate::scaling::{self, Scaling};
use crate::worker::Worker;

/// Measurements against the best other implementations, on this machine.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Time us and the others side by side, and tell the ratios
    #[command(after_help = "\
Prints a table, and writes it as results.md, results.json and results.png. Both
sides' results are compared first; those that differ are not timed. Exits with 1
if a comparison failed; the others are made all the same.

Examples:
  bench run                                     everything, about an hour on two cores
  bench run --only spark-resnet50               every comparison with this in its name
  bench run --only inference,coco --rounds 9
  bench run --quick --threads 1                 a first look
  bench run --list                              the comparisons there are")]
    Run(Run),
    /// Time SparK's steps of growing batches, images, models and masks
    #[command(after_help = "\
Writes scaling.json and a picture of each, scaling-batch.png and so on.

Examples:
  bench scaling                       all, about half an hour on two cores
  bench scaling --only batch,mask")]
    Scaling(Scale),
    /// A worker process: does rounds of work when told to
    #[command(hide = true)]
    Worker {
        #[command(subcommand)]
        worker: Worker,
    },
}

/// What to run, and how.
#[derive(Debug, Args)]
struct Run {
    /// Comparisons whose name contains one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    /// Say which comparisons there are
    #[arg(long)]
    list: bool,
    /// One round each
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    common: Common,
}

/// What to vary.
#[derive(Debug, Args)]
struct Scale {
    /// batch, size, mask or model
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1..)]
    only: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// What all measurements are told.
#[derive(Debug, Args)]
struct Common {
    /// Timed rounds, after one that warms up; 5, or as many as a measurement needs, if not given
    #[arg(long)]
    rounds: Option<usize>,
    /// Threads of each side
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Folder for results, inputs and logs; bench in cargo's target folder if not given
    #[arg(long)]
    output: Option<PathBuf>,
    /// A Python with the other implementations; SPARK_PYTHON, or the one that `cargo xtask
    /// bench` makes, if not given
    #[arg(long)]
    python: Option<PathBuf>,
}

/// Rounds unless told otherwise.
const ROUNDS: usize = 5;

impl Common {
    fn settings(&self, default_rounds: usize) -> Result<(Settings, PathBuf)> {
        let rounds = self.rounds.unwrap_or(default_rounds);
        ensure!(rounds > 0, "--rounds is 0, but there must be at least one");
        ensure!(self.threads > 0, "--threads is 0, but each side needs at least one");
        let output = self.output.clone().map_or_else(default_output, Ok)?;
        let folder = output.join("work");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let python = self.python.clone().unwrap_or_else(spark_tests::python);
        let program = std::env::current_exe().context("where does this program lie?")?;
        let threads = self.threads;
        Ok((Settings { threads, rounds, folder, python, program, peak: None }, output))
    }
}

/// `bench` in the target folder that this program lies in.
fn default_output() -> Result<PathBuf> {
    let program = std::env::current_exe().context("where does this program lie?")?;
    let target = program.ancestors().nth(2).context("this program lies in no folder")?;
    Ok(target.join("bench"))
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// What is asked for cannot be, or nothing could be written. A comparison
    /// that failed is a failed exit.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Run(run) => run.run(),
            Command::Scaling(scale) => scale.run(),
            Command::Worker { worker } => worker.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

impl Run {
    fn run(self) -> Result<ExitCode> {
        let chosen = duels::chosen(&self.only)?;
        if self.list {
            for duel in chosen {
                println!("{:<28} {}, against {}", duel.name, duel.work, duel.opponent);
            }
            return Ok(ExitCode::SUCCESS);
        }
        let (mut settings, output) = self.common.settings(if self.quick { 1 } else { ROUNDS })?;
        let mut machine = Machine::this(&settings.python)?;
        eprintln!("{}\n{}", machine.hardware(), machine.software());
        let (threads, rounds) = (settings.threads, settings.rounds);
        if chosen.iter().any(|duel| duel.products.is_some()) {
            let peak = Peak::measure(&settings)?;
            eprintln!("The processor reaches {}", peak.tell());
            settings.peak = Some(peak.clone());
            machine.peak = Some(peak);
        }
        let mut report = Report { machine, threads, rounds, duels: Vec::new() };
        let mut progress = Progress::new(chosen.iter().map(|duel| duel.expected).sum());
        for duel in chosen {
            progress.begin(&duel.name, duel.expected);
            let outcome = duel.run(&settings, &mut progress);
            if let Some(error) = &outcome.error {
                progress.note(&format!("{}: {error}", duel.name));
            }
            report.duels.push(outcome);
            // What was measured so far survives an interrupt.
            report.write(&output)?;
        }
        progress.finish();
        println!("{}", report.markdown());
        eprintln!("results.md, results.json and results.png in {}", output.display());
        let complete = report.is_complete();
        Ok(if complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Rounds of each step of a sweep unless told otherwise.
const SCALING_ROUNDS: usize = 3;

impl Scale {
    fn run(self) -> Result<ExitCode> {
        let sweeps = scaling::chosen(&self.only)?;
        let (settings, output) = self.common.settings(SCALING_ROUNDS)?;
        let machine = Machine::this(&settings.python)?;
        eprintln!("{}\n{}", machine.hardware(), machine.software());
        let (threads, rounds) = (settings.threads, settings.rounds);
        let mut found = Scaling { machine, threads, rounds, sweeps: Vec::new() };
        let mut progress = Progress::new(sweeps.iter().map(scaling::Sweep::expected).sum());
        for sweep in &sweeps {
            let begin = |progress: &mut Progress, duel: &Comparison| {
                progress.begin(&duel.name, duel.expected);
            };
            found.sweeps.push(sweep.run(&settings, &mut progress, begin)?);
            // What was measured so far survives an interrupt.
            found.write(&sweeps, &output)?;
        }
        progress.finish();
        let mut code = ExitCode::SUCCESS;
        for point in found.sweeps.iter().flat_map(|sweep| &sweep.points) {
            println!("{}", point.line());
            if point.outcome.measured.is_none() {
                code = ExitCode::FAILURE;
            }
        }
        eprintln!("scaling.json and pictures in {}", output.display());
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_that_measure_nothing_are_refused() {
        let settings = |flag: &str| {
            let cli = Cli::parse_from(["bench", "run", flag, "0", "--output", "/nowhere"]);
            let Command::Run(run) = cli.command else { panic!("another command") };
            run.common.settings(ROUNDS).unwrap_err().to_string()
        };
        assert_eq!(settings("--rounds"), "--rounds is 0, but there must be at least one");
        assert_eq!(settings("--threads"), "--threads is 0, but each side needs at least one");
    }
}
