//! Devices by name, and the threads of CPU arithmetic.

use tch::{Cuda, Device};

use crate::{Error, Result};

/// `auto` (CUDA if it can be used, else the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// [`Error::Invalid`] for another name, or a CUDA device that is not there.
pub fn parse_device(name: &str) -> Result<Device> {
    let index = match name {
        "auto" => return Ok(Device::cuda_if_available()),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        let value = format!("{name:?}");
        return Err(Error::invalid("device", value, "it must be auto, cpu, cuda or cuda:N"));
    };
    if !Cuda::is_available() {
        let rule = "libtorch finds no CUDA device here; `cargo xtask doctor` says why";
        return Err(Error::invalid("device", name, rule));
    }
    let count = Cuda::device_count() as usize;
    if index >= count {
        let rule = format!("there are {count} CUDA devices, counted from 0");
        return Err(Error::invalid("device", name, rule));
    }
    Ok(Device::Cuda(index))
}

/// Gives CPU arithmetic so many threads, every core if 0; says how many.
pub fn use_threads(threads: usize) -> usize {
    let threads = if threads == 0 { cores() } else { threads };
    tch::set_num_threads(threads as i32);
    threads
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A device as a person is told of it.
pub fn described(device: Device, threads: usize) -> String {
    match device {
        Device::Cpu => format!("cpu, {threads} threads"),
        other => format!("{other:?}"),
    }
}
