//! Training on several processes and machines: PyTorch's own c10d.
//!
//! Each process runs the same program on its part of every batch. They are started by torchrun or
//! by Slurm's srun, meet at a [`World`], and stay equal: gradients are averaged
//! ([`Gradients`]), batch norms share their statistics ([`World::sync_batch_norm`]), and what is
//! decided (to stop, to refuse a number) is decided together. Rank 0 alone writes files.
//!
//! An operation that fails (a process has died, hangs or cannot be reached) fails on every process
//! within the timeout, and nothing can be done together from then on: the error stays.

mod address;
mod gradients;
mod launch;
mod norm;
mod objects;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Tensor};

pub use self::gradients::Gradients;
pub use self::launch::Launch;
pub use crate::bridge::ffi::Timings;

use self::address::{host_name, own_address};
use crate::bridge::{Abandoned, borrow, ffi, take};
use crate::device::cores;
use crate::{Error, Result};

/// How long processes wait for each other at the start, at least: they do not all start at once.
const LEAST_MEETING: Duration = Duration::from_secs(60);

/// The processes that train together, or one process alone. Clones are the same.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    rank: usize,
    size: usize,
    launch: Option<Launch>,
    /// Of several processes.
    group: Option<Abandoned>,
    timeout: Duration,
    /// What is told of where an operation failed.
    step: Cell<Option<u64>>,
    failure: RefCell<Option<String>>,
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl World {
    /// This process alone: nothing is sent, and every operation gives its input.
    pub fn alone() -> Self {
        Self::new(0, 1, None, None, Duration::ZERO)
    }

    /// The processes that the environment speaks of (see [`Launch`]), after all have met; this
    /// process alone, if of none. An operation fails that takes longer than `timeout`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an environment that makes no sense, [`Error::Distributed`] when the
    /// others cannot be reached.
    pub fn from_env(timeout: Duration) -> Result<Self> {
        match Launch::from_env()? {
            Some(launch) => Self::join(launch, timeout),
            None => Ok(Self::alone()),
        }
    }

    /// The processes of `launch`, after all have met.
    ///
    /// # Errors
    /// [`Error::Distributed`] when the others cannot be reached.
    pub fn join(mut launch: Launch, timeout: Duration) -> Result<Self> {
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
        if size == 1 {
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

    fn new(
        rank: usize,
        size: usize,
        launch: Option<Launch>,
        group: Option<Abandoned>,
        timeout: Duration,
    ) -> Self {
        let (step, failure) = Default::default();
        Self(Rc::new(Inner { rank, size, launch, group, timeout, step, failure }))
    }

    /// This process's number, from 0.
    pub fn rank(&self) -> usize {
        self.0.rank
    }

    /// How many processes there are.
    pub fn size(&self) -> usize {
        self.0.size
    }

    /// Whether this process writes files and talks: rank 0.
    pub fn is_main(&self) -> bool {
        self.0.rank == 0
    }

    /// Whether there is nobody else.
    pub fn is_alone(&self) -> bool {
        self.0.size == 1
    }

    /// How this process was started; none if by itself.
    pub fn launch(&self) -> Option<&Launch> {
        self.0.launch.as_ref()
    }

    /// This process's number among those on its machine, and how many there are.
    pub fn local(&self) -> (usize, usize) {
        self.launch().map_or((0, 1), |launch| (launch.local_rank, launch.local_world_size))
    }

    /// Images of a part of each process, of a batch of so many images that is computed in
    /// `accum_steps` parts one after another.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a batch that cannot be divided so.
    pub fn part_of(&self, batch_size: usize, accum_steps: usize) -> Result<usize> {
        let parts = self.size() * accum_steps;
        if !batch_size.is_multiple_of(parts) {
            let rule = format!(
                "it is divided among {} processes in {accum_steps} parts each, and must be a \
                 multiple of {parts}",
                self.size()
            );
            return Err(Error::invalid("batch-size", batch_size, rule));
        }
        Ok(batch_size / parts)
    }

    /// Cores that this process may use of those it sees: its share, where the processes of a
    /// machine share them.
    pub fn cores(&self) -> usize {
        let (_, local_size) = self.local();
        let own = self.launch().is_some_and(|launch| launch.own_cores);
        if own { cores() } else { (cores() / local_size).max(1) }
    }

    /// Runs `body`, in which others may be waited for as long as `patience` where that is longer
    /// than the timeout: rank 0 alone does long work. All processes call.
    ///
    /// # Errors
    /// Those of `body`; [`Error::Distributed`].
    pub fn patiently<T, E: From<Error>>(
        &self,
        patience: Duration,
        body: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E> {
        let Some(group) = &self.0.group else { return body() };
        let set = |time: Duration| {
            let set = group.set_timeout(time.as_millis() as i64);
            set.map_err(|error| self.fail("setting the timeout", &told(&error)))
        };
        set(patience.max(self.0.timeout))?;
        let result = body();
        set(self.0.timeout)?;
        result
    }

    /// Which step is being made (from 1), for messages.
    pub fn set_step(&self, step: u64) {
        self.0.step.set(Some(step));
    }

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

    /// Waits for all.
    ///
    /// # Errors
    /// [`Error::Distributed`], as of all operations.
    pub fn barrier(&self) -> Result<()> {
        self.sum(&mut [0.0])
    }

    /// Adds up over all processes, in place.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn sum(&self, values: &mut [f64]) -> Result<()> {
        self.reduce(values, "adding up numbers", ffi::Group::sum)
    }

    /// Averages over all processes, in place.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn mean(&self, values: &mut [f64]) -> Result<()> {
        self.sum(values)?;
        values.iter_mut().for_each(|value| *value /= self.size() as f64);
        Ok(())
    }

    /// Takes the largest over all processes, in place.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn max(&self, values: &mut [f64]) -> Result<()> {
        self.reduce(values, "comparing numbers", ffi::Group::max)
    }

    /// Whether `flag` is true on any process.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn any(&self, flag: bool) -> Result<bool> {
        let mut raised = [f64::from(u8::from(flag))];
        self.max(&mut raised)?;
        Ok(raised[0] > 0.0)
    }

    fn reduce(
        &self,
        values: &mut [f64],
        what: &str,
        operation: fn(&ffi::Group, &ffi::Tensor) -> std::result::Result<(), cxx::Exception>,
    ) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        let tensor = Tensor::from_slice(values);
        self.operate(what, |group| operation(group, borrow(&tensor)))?;
        tensor.copy_data(values, values.len());
        Ok(())
    }

    /// Puts rank 0's values into every process's tensors, which have the same names, types and
    /// shapes.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn broadcast(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        if self.is_alone() {
            return Ok(());
        }
        for (name, tensor) in tensors {
            let tensor = tensor.detach();
            let what = format!("sending {name}");
            self.operate(&what, |group| group.broadcast(borrow(&tensor)))?;
        }
        Ok(())
    }

    /// Everybody's `tensor`, one below the other along the first dimension, which may differ.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn gather_rows(&self, tensor: &Tensor) -> Result<Tensor> {
        if self.is_alone() {
            return Ok(tensor.shallow_clone());
        }
        let rows = tensor.size()[0];
        let all: Vec<i64> = self.gather(&rows)?;
        let most = all.iter().copied().max().unwrap_or(0);
        let mut size = tensor.size();
        size[0] = most;
        let padded = Tensor::zeros(&size, (tensor.kind(), tensor.device()));
        padded.narrow(0, 0, rows).copy_(tensor);
        let gathered = self.gather_equal(&padded)?;
        let parts: Vec<Tensor> = (0..)
            .zip(&all)
            .map(|(rank, rows)| gathered.select(0, rank).narrow(0, 0, *rows))
            .collect();
        Ok(Tensor::cat(&parts, 0))
    }

    /// Everybody's `tensor`, all of one shape, stacked by rank.
    fn gather_equal(&self, tensor: &Tensor) -> Result<Tensor> {
        let tensor = tensor.detach();
        self.operate("gathering", |group| group.gather(borrow(&tensor))).map(take)
    }

    /// Runs `operation` on the group, unless one has failed before; remembers a failure.
    fn operate<T>(
        &self,
        what: &str,
        operation: impl FnOnce(&ffi::Group) -> std::result::Result<T, cxx::Exception>,
    ) -> Result<T> {
        let group = self.0.group.as_ref().expect("one process alone has nothing to send");
        self.check()?;
        operation(group).map_err(|error| self.fail(what, &told(&error)))
    }

    /// The failure of an earlier operation, if there was one.
    ///
    /// # Errors
    /// [`Error::Distributed`] with its text.
    pub fn check(&self) -> Result<()> {
        match &*self.0.failure.borrow() {
            Some(text) => Err(Error::Distributed(text.clone())),
            None => Ok(()),
        }
    }

    /// Remembers that `what` failed; says so in the end.
    fn fail(&self, what: &str, reason: &str) -> Error {
        let step = self.0.step.get().map_or(String::new(), |step| format!(" at step {step}"));
        let advice = if is_of_others(reason) {
            format!(
                ". Another process has died, hangs for longer than the timeout of {} s \
                 (--dist-timeout), or cannot be reached; what it said itself may tell why",
                self.0.timeout.as_secs_f64()
            )
        } else {
            String::new()
        };
        let text = format!(
            "rank {} of {} on {}{step}: {what} over all processes failed: {reason}{advice}",
            self.rank(),
            self.size(),
            host_name(),
        );
        let mut failure = self.0.failure.borrow_mut();
        Error::Distributed(failure.get_or_insert(text).clone())
    }
}

/// Whether c10d speaks of the connection, and not of what this process itself ran into: memory that
/// ran out in the backward pass, for example, which averages gradients meanwhile.
fn is_of_others(reason: &str) -> bool {
    const WORDS: [&str; 8] =
        ["connect", "timed out", "timeout", "socket", "peer", "pipe", "nccl", "waited in vain"];
    let reason = reason.to_lowercase();
    WORDS.iter().any(|word| reason.contains(word))
}

/// A number that no other process has.
fn nonce() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}

/// What an exception says, without its backtrace.
fn told(error: &cxx::Exception) -> String {
    sentence(error.what())
}

/// What libtorch's messages say, without the place in its sources before it and the backtrace and
/// well-meant advice behind it.
fn sentence(text: &str) -> String {
    const BEHIND: [&str; 2] = ["\nException raised from", " This is typically caused by"];
    let end = BEHIND.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    let text = text[..end].trim().trim_end_matches('.');
    match text.strip_prefix("[/").and_then(|text| text.split_once("] ")) {
        Some((place, said)) if !place.contains(' ') => said.to_owned(),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
