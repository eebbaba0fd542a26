//! Devices by name, and the threads of CPU arithmetic.

use backbone::to_device_nonblocking;
use clap::Args;
use data::{cores, tensor_of};
use ndarray::Array4;
use tch::{Cuda, Device, Kind, Tensor};
use words::counted;

use crate::distributed::ProcessGroup;
use crate::settings::ExecutionSettings;
use crate::{Error, Result};

/// Where and on how many threads a command computes.
#[derive(Debug, Clone, Args)]
pub struct DeviceFlags {
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// Threads of CPU arithmetic, 0 for every core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

impl DeviceFlags {
    /// The device; CPU arithmetic has its threads then.
    ///
    /// # Errors
    /// Those of [`parse_device`].
    pub fn open(&self) -> Result<Device> {
        use_threads(self.threads);
        parse_device(&self.device)
    }
}

/// `auto` (CUDA if it can be used, else the CPU), `cpu`, `cuda` or `cuda:N`.
///
/// # Errors
/// [`Error::Input`] for another name, or a CUDA device that is not there.
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

/// This process's device among `world`'s: as [`parse_device`], but `auto` and `cuda` are the
/// process's own of its machine's CUDA devices.
///
/// # Errors
/// As [`parse_device`]; [`Error::Input`] for one device named for several processes of a machine,
/// or more processes than devices.
pub fn device_among(name: &str, world: &ProcessGroup) -> Result<Device> {
    let (local_rank, local_size) = world.local();
    let device = parse_device(name)?;
    if local_size == 1 || device == Device::Cpu {
        return Ok(device);
    }
    if name.starts_with("cuda:") {
        let rule = format!(
            "{local_size} processes on this machine would share it; cuda gives each its own"
        );
        return Err(Error::invalid("device", name, rule));
    }
    // A scheduler may show each process its own device alone.
    match Cuda::device_count() as usize {
        1 => Ok(Device::Cuda(0)),
        count if local_rank < count => Ok(Device::Cuda(local_rank)),
        count => {
            let rule = format!("there are {count} CUDA devices for {local_size} processes");
            Err(Error::invalid("number of processes on this machine", local_size, rule))
        }
    }
}

/// This process's device and its threads of CPU arithmetic, by its settings: it works with both
/// from now on.
///
/// # Errors
/// Those of [`device_among`], on all processes.
pub fn open_device(settings: &ExecutionSettings, world: &ProcessGroup) -> Result<(Device, usize)> {
    let threads = use_threads_among(settings.threads, world);
    let device = world.all_ok(device_among(&settings.device, world))?;
    world.use_device(device)?;
    Ok((device, threads))
}

/// This process's share of `threads` (every core if 0): as [`use_threads`], but the cores are
/// divided among the processes of a machine.
pub fn use_threads_among(threads: usize, world: &ProcessGroup) -> usize {
    use_threads(if threads == 0 { world.cores() } else { threads })
}

/// Gives CPU arithmetic so many threads, every core if 0; says how many.
pub fn use_threads(threads: usize) -> usize {
    let threads = if threads == 0 { cores() } else { threads };
    tch::set_num_threads(threads as i32);
    threads
}

/// A batch `[N, C, H, W]` on `device`, in `kind`.
///
/// # Errors
/// [`Error::Input`] with what libtorch says, if it does not take the array.
pub fn to_device(images: &Array4<f32>, device: Device, kind: Kind) -> Result<Tensor> {
    Ok(to_device_nonblocking(&tensor_of(images)?, device).to_kind(kind))
}

/// Lets cuDNN try its algorithms on each new size and keep the fastest: for
/// programs whose inputs all have one size.
pub fn enable_cudnn_benchmark(device: Device) {
    if device.is_cuda() {
        Cuda::cudnn_set_benchmark(true);
    }
}

/// Waits until `device` has done what it was given to do: before a clock is read.
pub fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// A device as a person is told of it.
pub fn describe_device(device: Device, threads: usize) -> String {
    match device {
        Device::Cpu => format!("cpu, {}", counted(threads, "thread")),
        other => format!("{other:?}"),
    }
}
