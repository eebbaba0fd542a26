//! How processes come together.

use std::time::Duration;

use super::address::{host_name, own_address};
use super::{Launch, ProcessGroup, told};
use crate::bridge::{Abandoned, ffi};
use crate::{Error, Result};

/// How long processes wait for each other at the start, at least: they do not all start at once.
const LEAST_MEETING: Duration = Duration::from_secs(60);

impl ProcessGroup {
    /// The processes that the environment speaks of (see [`Launch`]), after all have met; this
    /// process alone, if of none. An operation fails that takes longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::Input`] for an environment that makes no sense, [`Error::Distributed`] when the
    /// others cannot be reached.
    pub fn from_env(timeout: Duration) -> Result<Self> {
        match Launch::from_env()? {
            Some(launch) => Self::join(launch, timeout),
            None => Ok(Self::new(0, 1, None, None, timeout)),
        }
    }

    /// The processes of `launch`, after all have met.
    ///
    /// # Errors
    /// [`Error::Distributed`] when the others cannot be reached.
    pub fn join(launch: Launch, timeout: Duration) -> Result<Self> {
        Self::meet(launch, timeout, false)
    }

    /// As [`ProcessGroup::join`], but one process alone sends itself what several would send each
    /// other: on a single GPU, NCCL can be tried no other way.
    ///
    /// # Errors
    /// As [`ProcessGroup::join`].
    pub fn join_even_alone(launch: Launch, timeout: Duration) -> Result<Self> {
        Self::meet(launch, timeout, true)
    }

    fn meet(mut launch: Launch, timeout: Duration, even_alone: bool) -> Result<Self> {
        let (rank, size) = (launch.rank, launch.world_size);
        let (host, port) = (launch.master_addr.clone(), launch.master_port);
        let meeting = |problem: String| {
            Error::Distributed(format!(
                "rank {rank} of {size} on {}: cannot meet the others at {host}:{port}: {problem}",
                host_name(),
            ))
        };
        let interface = std::env::var("GLOO_SOCKET_IFNAME").unwrap_or_default();
        let mut rendezvous = ffi::Rendezvous {
            host: host.clone(),
            port,
            rank: rank as i32,
            size: size as i32,
            serves: !launch.agent_store && rank == 0,
            multi_tenant: !launch.agent_store,
            prefix: format!("spark/{}", launch.job_key()),
            nonce: nonce(),
            timeout_ms: timeout.max(LEAST_MEETING).as_millis() as i64,
            address: String::new(),
            // Several may be listed; one connection is enough.
            interface: interface.split(',').next().unwrap_or_default().to_owned(),
        };
        if launch.agent_store && rank == 0 {
            let name = ffi::launch_name(&rendezvous).map_err(|error| meeting(told(&error)))?;
            launch.job = Some(format!("torchrun {name}"));
        }
        if size == 1 && !even_alone {
            return Ok(Self::new(0, 1, Some(launch), None, timeout));
        }
        if rendezvous.interface.is_empty() {
            let address = own_address(&host, port, launch.is_local());
            rendezvous.address = address.map_err(|error| meeting(error.to_string()))?;
        }
        let group = ffi::connect(&rendezvous).map_err(|error| meeting(told(&error)))?;
        group.set_timeout(timeout.as_millis() as i64).map_err(|error| meeting(told(&error)))?;
        let world = Self::new(rank, size, Some(launch), Some(Abandoned::new(group)), timeout);
        // Whoever is missing is missed here, and not in the first step.
        world.barrier()?;
        Ok(world)
    }
}

/// A number that no other process has.
fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
