//! `pretrain`: SparK pretraining on the command line.

use std::process::ExitCode;

use clap::Parser;
use pretrain::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
