//! What surrounds the command line of every program.

use std::error::Error;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::error::sentence;
use crate::processor::avoid_broken_amx;

/// Runs `body` with what libraries warn of on standard error (`RUST_LOG` shows more); an error
/// becomes a sentence there and a failed exit.
pub fn run<E: AsRef<dyn Error + 'static>>(body: impl FnOnce() -> Result<ExitCode, E>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
    avoid_broken_amx();
    body().unwrap_or_else(|error| {
        eprintln!("error: {}", sentence(error.as_ref()));
        ExitCode::FAILURE
    })
}
