//! What surrounds the command line of every program.

use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::allocator::keep_freed_memory;
use crate::bridge::skip_static_destructors;
use crate::cuda::load_cuda;
use crate::processor::avoid_broken_amx;
use data::error::error_chain;

/// Runs `body` with what libraries warn of on standard error (`RUST_LOG` shows more); an error
/// becomes a sentence there and a failed exit.
pub fn run<E: AsRef<dyn Error + 'static>>(body: impl FnOnce() -> Result<ExitCode, E>) -> ExitCode {
    // A certificate that is not trusted is in the error that follows.
    let usual = "warn,rustls_platform_verifier=off";
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Colours are for eyes, not for log files.
        .with_ansi(std::io::stderr().is_terminal())
        .without_time()
        .with_target(false)
        .init();
    end_quietly_on_closed_pipes();
    avoid_broken_amx();
    load_cuda();
    keep_freed_memory();
    skip_static_destructors();
    body().unwrap_or_else(|error| {
        eprintln!("error: {}", error_chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// The exit of a program that the system ended for writing to a closed pipe (128 + SIGPIPE).
const CLOSED_PIPE: i32 = 141;

/// Ends without a word when whoever reads the output has had enough (`… | head`), where Rust's
/// printing would panic.
fn end_quietly_on_closed_pipes() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if text.starts_with("failed printing to") && text.contains("Broken pipe") {
            std::process::exit(CLOSED_PIPE);
        }
        report(panic);
    }));
}
