//! Ctrl-C and SIGTERM as a wish to stop in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// A flag that the first Ctrl-C or SIGTERM raises; the second ends the process.
///
/// # Errors
/// [`Error::Input`] when the system or an earlier call leaves no room for a
/// handler.
pub fn watch_for_interrupts() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: finishing this step and saving a checkpoint (again to stop now)");
    })
    .map_err(|error| Error::invalid("interrupts", "not watched", error.to_string()))?;
    Ok(flag)
}
