//! The devices of processes, which must fit together.

use tch::Device;

use super::{ProcessGroup, told};
use crate::{Error, Result};

impl ProcessGroup {
    /// Makes tensors on `device` sendable; to be called by all processes, each with its own.
    ///
    /// # Errors
    /// [`Error::Distributed`] without NCCL, or when it cannot be started.
    pub fn use_device(&self, device: Device) -> Result<()> {
        let Some(group) = &self.0.group else { return Ok(()) };
        self.check_devices(device)?;
        let Device::Cuda(index) = device else { return Ok(()) };
        let timeout = self.0.timeout.as_millis() as i64;
        group.add_nccl(timeout).map_err(|error| {
            Error::Distributed(format!(
                "rank {} cannot train on cuda:{index} together with the others: {}; programs \
                 built with --features nccl can, and --device cpu trains on the processor",
                self.rank(),
                told(&error),
            ))
        })
    }

    /// Refuses processes on devices of different kinds, and two on one GPU.
    fn check_devices(&self, device: Device) -> Result<()> {
        let seen = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        // Machines may have the same name; their processes' numbers tell them apart.
        let machine = self.rank() - self.local().0;
        let all = self.gather(&(machine, seen, format!("{device:?}")))?;
        for (rank, one) in all.iter().enumerate() {
            let cuda = |device: &str| device.starts_with("Cuda");
            if cuda(&one.2) != cuda(&all[0].2) {
                let (first, other) = (&all[0].2, &one.2);
                return Err(Error::Distributed(format!(
                    "rank 0 has device {first}, rank {rank} has {other}: --device cuda or cpu \
                     makes them the same"
                )));
            }
            let same = |other: &usize| all[*other] == *one && cuda(&one.2);
            if let Some(other) = (0..rank).find(same) {
                return Err(Error::Distributed(format!(
                    "ranks {other} and {rank} have the same GPU, {}, but each process needs its \
                     own: start as many processes on a machine as it has GPUs",
                    one.2
                )));
            }
        }
        Ok(())
    }
}
