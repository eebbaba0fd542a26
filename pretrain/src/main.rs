//! `pretrain`: SparK pretraining on the command line.

use std::process::ExitCode;

use clap::Parser;
use pretrain::cli::Cli;

fn main() -> ExitCode {
    engine::program::run(|| Cli::parse().run().map(|()| ExitCode::SUCCESS))
}
