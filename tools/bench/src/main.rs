//! `bench`: measurements against other implementations on the command line.

use std::process::ExitCode;

use bench::cli::Cli;
use clap::Parser;

fn main() -> ExitCode {
    engine::program::run(|| Cli::parse().run())
}
