//! What the checks ran on, and why there may be no CUDA device.

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};
use backbone::plugin::LIBTORCH_VERSION;
use data::error::error_chain;
use libloading::Library;
use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind, Tensor};

/// A CUDA device, by its driver.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gpu {
    /// As it calls itself.
    pub name: String,
    /// Its memory.
    pub memory_gb: f64,
}

/// The machine and the programs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The devices checked; none where the processor is compared with itself.
    pub gpus: Vec<Gpu>,
    /// The release of CUDA that the driver is for: 13000 of 13.0.
    pub driver_cuda: Option<i32>,
    /// Cores that this process may use.
    pub cores: usize,
    /// The release of libtorch that the programs were built against.
    pub libtorch: String,
    /// Whether they were built with NCCL.
    pub nccl: bool,
}

impl Facts {
    /// Of this machine, for checks on `device`.
    pub fn of(device: Device) -> Self {
        let driver = device.is_cuda().then(|| Driver::open().ok()).flatten();
        Self {
            gpus: driver.as_ref().map(Driver::gpus).unwrap_or_default(),
            driver_cuda: driver.as_ref().and_then(Driver::version),
            cores: data::cores(),
            libtorch: LIBTORCH_VERSION.to_owned(),
            nccl: cfg!(feature = "nccl"),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gpus[..] {
            [] => write!(f, "the processor against itself")?,
            [first, rest @ ..] => {
                write!(f, "{}, {:.0} GB", first.name, first.memory_gb)?;
                if !rest.is_empty() {
                    write!(f, ", and {} more", rest.len())?;
                }
            }
        }
        write!(f, "; {} cores; libtorch {}", self.cores, self.libtorch)?;
        if let Some(version) = self.driver_cuda {
            write!(f, "; driver for CUDA {}.{}", version / 1000, version % 1000 / 10)?;
        }
        f.write_str(if self.nccl { "; with NCCL" } else { "; without NCCL" })
    }
}

/// The device of this name, `cuda` or `cpu`.
pub fn device(name: DeviceKind) -> Result<Device> {
    match name {
        DeviceKind::Cpu => Ok(Device::Cpu),
        DeviceKind::Cuda if Cuda::is_available() => Ok(Device::Cuda(0)),
        DeviceKind::Cuda => bail!("there is no CUDA device here: {}", what_is_missing()),
    }
}

/// Where the checks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceKind {
    /// The first CUDA device, against the processor.
    Cuda,
    /// The processor, against itself.
    Cpu,
}

impl DeviceKind {
    /// Its name on the command line, and for the programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }

    /// How many times its limit a section may take: limits are for devices.
    pub fn patience(self) -> u32 {
        match self {
            Self::Cuda => 1,
            Self::Cpu => 10,
        }
    }
}

/// Why libtorch finds no CUDA device.
fn what_is_missing() -> String {
    if !has_cuda_library() {
        return "the libtorch that this program runs with was built for processors alone".into();
    }
    match Driver::open() {
        Err(problem) => format!("NVIDIA's driver cannot be used ({problem})"),
        Ok(driver) if driver.gpus().is_empty() => "NVIDIA's driver knows of none".into(),
        Ok(driver) => format!(
            "NVIDIA's driver knows of {}, but is for CUDA {}, which may be too old for libtorch",
            driver.gpus()[0].name,
            driver.version().unwrap_or_default() / 1000
        ),
    }
}

/// Whether libtorch has its half for CUDA, which lies beside the rest; it itself only tells of
/// devices.
fn has_cuda_library() -> bool {
    // Where the system does not say, something else is told to be missing.
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    let mut files = maps.lines().filter_map(|line| line.find('/').map(|at| Path::new(&line[at..])));
    let libtorch = files.find(|file| file.ends_with("libtorch_cpu.so"));
    libtorch.is_none_or(|file| file.with_file_name("libtorch_cuda.so").exists())
}

/// Bytes that are free on the device that this thread uses; none on processors.
pub fn free_bytes(device: Device) -> Option<u64> {
    if !device.is_cuda() {
        return None;
    }
    // The driver answers for the context of the calling thread, which this makes.
    let _context = Tensor::zeros([1], (Kind::Float, device));
    Driver::open().ok()?.free_bytes()
}

/// The C interface of NVIDIA's driver, which has been the same for many releases and needs no
/// header.
struct Driver(Library);

/// `CUresult` of success.
const SUCCESS: i32 = 0;

impl Driver {
    fn open() -> Result<Self, String> {
        // Loading runs the library's initialisers: NVIDIA's own, which libtorch loads too.
        #[allow(unsafe_code)]
        let library =
            unsafe { Library::new("libcuda.so.1") }.map_err(|error| error_chain(&error))?;
        let driver = Self(library);
        // CUresult cuInit(unsigned int flags)
        match driver.call::<unsafe extern "C" fn(u32) -> i32>(b"cuInit\0", |init| {
            #[allow(unsafe_code)]
            unsafe {
                init(0)
            }
        }) {
            Some(SUCCESS) => Ok(driver),
            Some(code) => Err(format!("cuInit gives {code}")),
            None => Err("it has no cuInit".into()),
        }
    }

    /// What `body` makes of the function of this name; none if there is none. `F` must be its type.
    fn call<F: Copy>(&self, name: &[u8], body: impl FnOnce(F) -> i32) -> Option<i32> {
        // The types are those of cuda.h; each stands beside its use.
        #[allow(unsafe_code)]
        let function = unsafe { self.0.get::<F>(name) }.ok()?;
        Some(body(*function))
    }

    fn version(&self) -> Option<i32> {
        let mut version = 0;
        // CUresult cuDriverGetVersion(int*)
        let code =
            self.call::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDriverGetVersion\0", |get| {
                #[allow(unsafe_code)]
                unsafe {
                    get(&mut version)
                }
            });
        (code == Some(SUCCESS)).then_some(version)
    }

    fn gpus(&self) -> Vec<Gpu> {
        let mut count = 0;
        // CUresult cuDeviceGetCount(int*)
        self.call::<unsafe extern "C" fn(*mut i32) -> i32>(b"cuDeviceGetCount\0", |get| {
            #[allow(unsafe_code)]
            unsafe {
                get(&mut count)
            }
        });
        // A CUdevice is its number.
        (0..count).map(|device| self.gpu(device)).collect()
    }

    fn gpu(&self, device: i32) -> Gpu {
        let mut name = [0u8; 256];
        // CUresult cuDeviceGetName(char*, int length, CUdevice)
        self.call::<unsafe extern "C" fn(*mut u8, i32, i32) -> i32>(b"cuDeviceGetName\0", |get| {
            #[allow(unsafe_code)]
            unsafe {
                get(name.as_mut_ptr(), name.len() as i32, device)
            }
        });
        let mut bytes = 0usize;
        // CUresult cuDeviceTotalMem_v2(size_t*, CUdevice)
        self.call::<unsafe extern "C" fn(*mut usize, i32) -> i32>(
            b"cuDeviceTotalMem_v2\0",
            |get| {
                #[allow(unsafe_code)]
                unsafe {
                    get(&mut bytes, device)
                }
            },
        );
        let length = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        let name = String::from_utf8_lossy(&name[..length]).into_owned();
        Gpu { name, memory_gb: bytes as f64 / 1e9 }
    }

    fn free_bytes(&self) -> Option<u64> {
        let (mut free, mut total) = (0usize, 0usize);
        // CUresult cuMemGetInfo_v2(size_t* free, size_t* total)
        let code = self.call::<unsafe extern "C" fn(*mut usize, *mut usize) -> i32>(
            b"cuMemGetInfo_v2\0",
            |get| {
                #[allow(unsafe_code)]
                unsafe {
                    get(&mut free, &mut total)
                }
            },
        );
        (code == Some(SUCCESS)).then_some(free as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_checked_is_told_in_a_line() {
        let gpu = Gpu { name: "A GPU".into(), memory_gb: 80.2 };
        let facts = Facts {
            gpus: vec![gpu.clone(), gpu],
            driver_cuda: Some(12080),
            cores: 8,
            libtorch: "2.13.0".into(),
            nccl: true,
        };
        assert_eq!(
            facts.to_string(),
            "A GPU, 80 GB, and 1 more; 8 cores; libtorch 2.13.0; driver for CUDA 12.8; with NCCL"
        );
        let text = Facts::of(Device::Cpu).to_string();
        assert!(text.starts_with("the processor against itself"), "{text}");
    }
}
