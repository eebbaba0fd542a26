//! What a run can compute with.

use std::fmt;
use std::fs;
use std::path::Path;

use tch::Device;

use crate::Result;
use crate::device::{describe_device, device_among};
use crate::distributed::ProcessGroup;
use crate::processor::computes_bfloat16;
use crate::settings::ExecutionSettings;

/// Processors with at least so many cores, over all processes, train what a GPU does.
const MANY_CORES: usize = 32;
/// Share of the free memory that a run takes: the rest is for images that are read ahead, and for
/// whoever else works here.
const SHARE: f64 = 0.6;

/// What each process of a run can compute with.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Where the process computes.
    pub device: Device,
    /// Its cores.
    pub cores: usize,
    /// How many processes train together.
    pub processes: usize,
    /// Bytes of main memory that are free for it; none if that is not known.
    pub memory: Option<u64>,
    /// Whether the processor computes in bfloat16 by itself.
    pub bfloat16: bool,
}

impl Machine {
    /// That of a process of `world`.
    ///
    /// # Errors
    /// A device that is not there.
    pub fn of(execution: &ExecutionSettings, world: &ProcessGroup) -> Result<Self> {
        let (_, local) = world.local();
        Ok(Self {
            device: device_among(&execution.device, world)?,
            cores: match execution.threads {
                0 => world.cores(),
                threads => threads,
            },
            processes: world.size(),
            memory: free_memory().map(|bytes| bytes / local as u64),
            bfloat16: computes_bfloat16(),
        })
    }

    /// Whether it computes on a GPU.
    pub fn has_gpu(&self) -> bool {
        self.device.is_cuda()
    }

    /// Whether it is one for small networks on small images: a processor of few cores.
    pub fn is_small(&self) -> bool {
        !self.has_gpu() && self.cores * self.processes < MANY_CORES
    }

    /// Bytes that a run may take on a processor.
    pub fn budget(&self) -> Option<u64> {
        self.memory.filter(|_| !self.has_gpu()).map(|bytes| (bytes as f64 * SHARE) as u64)
    }
}

/// "cpu, 2 threads, 20.1 GB free".
impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.processes > 1 {
            write!(f, "{} processes, each on ", self.processes)?;
        }
        write!(f, "{}", describe_device(self.device, self.cores))?;
        match self.memory.filter(|_| !self.has_gpu()) {
            Some(bytes) => write!(f, ", {} free", gigabytes(bytes)),
            None => Ok(()),
        }
    }
}

/// A number of bytes as a person is told.
pub fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

/// Bytes of main memory that a process can still have: what the system has, and what the limit of
/// its control group leaves.
fn free_memory() -> Option<u64> {
    let system = meminfo(&fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(group_memory(Path::new("/sys/fs/cgroup")).map_or(system, |group| group.min(system)))
}

/// `MemAvailable` of `/proc/meminfo`.
fn meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// What the control group whose files are in `folder` leaves; none if it has no limit. Cached
/// files, which the system gives up when memory is needed, are not in use.
fn group_memory(folder: &Path) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok();
    let of = |limit: &str, used: &str, stat: &str, cached: &str| -> Option<u64> {
        let (limit, used): (u64, u64) = (number(limit)?, number(used)?);
        let stat = fs::read_to_string(folder.join(stat)).unwrap_or_default();
        let cached = stat.lines().find_map(|line| line.strip_prefix(cached)?.trim().parse().ok());
        Some((limit + cached.unwrap_or(0u64)).saturating_sub(used))
    };
    of("memory.max", "memory.current", "memory.stat", "inactive_file ").or_else(|| {
        of(
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file ",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_free_memory_is_read() {
        let text = "MemTotal:  24000 kB\nMemFree: 1 kB\nMemAvailable:   20000 kB\n";
        assert_eq!(meminfo(text), Some(20_000 * 1024));
        assert_eq!(meminfo("MemTotal: 3 kB"), None);
        assert!(free_memory().is_none_or(|bytes| bytes > 0));
    }

    #[test]
    fn a_control_group_leaves_its_limit_without_what_is_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(group_memory(folder.path()), None);
        write("memory.current", "700\n");
        write("memory.max", "max\n");
        assert_eq!(group_memory(folder.path()), None, "there is no limit");
        write("memory.max", "1000\n");
        assert_eq!(group_memory(folder.path()), Some(300));
        write("memory.stat", "anon 600\ninactive_file 50\nactive_file 9\n");
        assert_eq!(group_memory(folder.path()), Some(350));
    }

    #[test]
    fn few_cores_are_a_small_machine_whatever_their_processes() {
        let machine = |device, cores, processes| Machine {
            device,
            cores,
            processes,
            memory: Some(20_000_000_000),
            bfloat16: false,
        };
        assert!(machine(Device::Cpu, 2, 4).is_small());
        assert!(!machine(Device::Cpu, 8, 4).is_small());
        let gpu = machine(Device::Cuda(0), 2, 1);
        assert!(!gpu.is_small() && gpu.budget().is_none());
        let told = machine(Device::Cpu, 2, 1).to_string();
        assert_eq!(told, "cpu, 2 threads, 20.0 GB free");
        assert_eq!(machine(Device::Cpu, 2, 1).budget(), Some(12_000_000_000));
    }
}
