//! `gpu-check`: everything on a CUDA device against the processor.

use std::process::ExitCode;

use clap::Parser;
use gpu_check::cli::Cli;

fn main() -> ExitCode {
    engine::program::run(|| Cli::parse().run())
}
