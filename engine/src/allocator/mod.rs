//! How a program keeps memory that its tensors no longer need.

use tch::Device;

use crate::bridge::ffi;

/// Keeps freed memory for the tensors of the next step. glibc would give large
/// blocks back to the system at once, and have every page of the next ones
/// cleared and mapped again: a sixth of a training step's time. A heap that keeps
/// everything grows by gaps, a third more than was ever in use; so tensors lie in a
/// pool of their own (`pool.hpp`) that is never larger than they were at their most.
///
/// For programs, at their start; a library has no business with the memory of
/// its host. Where the user sets either threshold (`MALLOC_TRIM_THRESHOLD_`,
/// `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES` in the environment), that stands.
pub fn keep_freed_memory() {
    let settings = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
    if settings.iter().all(|name| std::env::var_os(name).is_none()) {
        ffi::keep_freed_memory();
    }
}

/// The most bytes that tensors of 128 kB and more have taken since the last
/// call; 0 unless [`keep_freed_memory`] is in force.
pub fn peak_of_tensors() -> usize {
    ffi::peak_of_tensors()
}

/// The most bytes that tensors on `device` have taken since the last call; none where nobody
/// counts them: on processors without [`keep_freed_memory`], on GPUs with libtorch 2.8.
pub fn peak_on(device: Device) -> Option<usize> {
    let peak = match device {
        Device::Cpu => peak_of_tensors(),
        Device::Cuda(index) => ffi::peak_on_cuda(index as i8).unwrap_or(0),
        _ => 0,
    };
    (peak > 0).then_some(peak)
}
