//! `detect`: Mask R-CNN on the command line.

use std::process::ExitCode;

use clap::Parser;
use detection::cli::Cli;

fn main() -> ExitCode {
    engine::program::run(|| Cli::parse().run())
}
