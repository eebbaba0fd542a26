//! Training on several processes and machines: PyTorch's own c10d.
//!
//! Each process runs the same program on its part of every batch. They are started by torchrun or
//! by Slurm's srun, meet at a [`ProcessGroup`], and stay equal: gradients are averaged
//! ([`Gradients`]), batch norms share their statistics ([`ProcessGroup::sync_batch_norm`]), and what is
//! decided (to stop, to refuse a number) is decided together. Rank 0 alone writes files.
//!
//! An operation that fails (a process has died, hangs or cannot be reached) fails on every process
//! within the timeout, and nothing can be done together from then on: the error stays.

mod address;
mod devices;
mod gradients;
mod launch;
mod meeting;
mod norm;
mod objects;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tch::Tensor;

pub use self::gradients::Gradients;
pub use self::launch::Launch;
pub use crate::bridge::ffi::Timings;

pub(crate) use self::address::host_name;
use crate::bridge::{Abandoned, borrow, ffi, take};
use crate::{Error, Result};
use data::cores;

/// How long processes wait for each other where nothing else is said, in seconds.
pub(crate) const USUAL_WAIT: f64 = 600.0;
/// How long they wait for rank 0 to list the data, and to choose settings by it: hours, on a slow
/// disk.
pub const LISTING: Duration = Duration::from_secs(6 * 3600);

/// The processes that train together, or one process alone. Clones are the same.
#[derive(Clone)]
pub struct ProcessGroup(Rc<Inner>);

struct Inner {
    rank: usize,
    size: usize,
    launch: Option<Launch>,
    /// Of several processes, or of one that sends to itself.
    group: Option<Abandoned>,
    timeout: Duration,
    /// What is told of where an operation failed.
    step: Cell<Option<u64>>,
    failure: RefCell<Option<String>>,
}

impl std::fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.size())
    }
}

impl ProcessGroup {
    /// This process alone: nothing is sent, and every operation gives its input.
    pub fn alone() -> Self {
        Self::new(0, 1, None, None, Duration::from_secs_f64(USUAL_WAIT))
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

    /// Whether there is nobody else, and nothing is sent.
    pub fn is_alone(&self) -> bool {
        self.0.group.is_none()
    }

    /// How long processes wait for each other.
    pub fn timeout(&self) -> Duration {
        self.0.timeout
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
    /// [`Error::Input`] for a batch that cannot be divided so.
    pub fn micro_batch_size(&self, batch_size: usize, accum_steps: usize) -> Result<usize> {
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
    pub fn with_timeout<T, E: From<Error>>(
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
