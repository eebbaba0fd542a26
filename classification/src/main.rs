//! `classify`: image classification on the command line.

use std::process::ExitCode;

use clap::Parser;
use classification::cli::Cli;

fn main() -> ExitCode {
    engine::program::run(|| Cli::parse().run().map(|()| ExitCode::SUCCESS))
}
