//! `pretrain`: SparK pretraining on the command line.

use std::process::ExitCode;

use clap::Parser;
use engine::error::sentence;
use pretrain::cli::Cli;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // What libraries warn of; RUST_LOG shows more.
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    engine::processor::avoid_broken_amx();
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", sentence(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}
