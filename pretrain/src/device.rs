//! Devices by name.

use anyhow::{Result, bail, ensure};
use tch::{Cuda, Device};

/// `auto` (CUDA if it can be used, else the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// Another name, or a CUDA device that is not there.
pub fn parse_device(name: &str) -> Result<Device> {
    let index = match name {
        "auto" => return Ok(Device::cuda_if_available()),
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        other => other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok()),
    };
    let Some(index) = index else {
        bail!("device is {name:?}, but it must be auto, cpu, cuda or cuda:N");
    };
    ensure!(
        Cuda::is_available(),
        "device is {name}, but libtorch finds no CUDA device here; `cargo xtask doctor` says why"
    );
    let count = Cuda::device_count() as usize;
    ensure!(index < count, "device is {name}, but there are {count} CUDA devices, counted from 0");
    Ok(Device::Cuda(index))
}
