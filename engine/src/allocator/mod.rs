//! How a program keeps memory that its tensors no longer need.

use crate::bridge::ffi;

/// Keeps freed memory for the tensors of the next step. glibc would give large
/// blocks back to the system at once, and have every page of the next ones
/// cleared and mapped again: a sixth of a training step's time.
///
/// For programs, at their start; a library has no business with the memory of
/// its host. The user's own settings (`MALLOC_TRIM_THRESHOLD_` and others in the
/// environment) are left alone.
pub fn keep_freed_memory() {
    let is_set = |(name, _): (std::ffi::OsString, _)| {
        name.to_str().is_some_and(|name| name.starts_with("MALLOC_"))
    };
    if !std::env::vars_os().any(is_set) {
        ffi::keep_freed_memory();
    }
}
