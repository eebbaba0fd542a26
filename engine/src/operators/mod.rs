//! Which of libtorch's operators a piece of work calls, how often, and how long
//! they take: what a step launches on a device, and whether it waits for one.

use std::fmt;
use std::time::Duration;

use crate::bridge::ffi;
use crate::{Error, Result};

/// Operators that make a host wait for its device: they read a value back, or
/// need one to know the size of their result.
const SYNCHRONISING: [&str; 6] = [
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::equal",
];

/// The calls of one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calls {
    /// As libtorch names it: `aten::…`, or a node of the backward pass.
    pub name: String,
    /// How often it was called.
    pub calls: u64,
    /// Calls that did work and called no other operator to do it: about the
    /// kernels that a device would launch. None are those of views and
    /// allocations.
    pub launches: u64,
    /// Time spent in it, less that spent in operators it called.
    pub own: Duration,
}

/// What was called while something ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// By name.
    pub operators: Vec<Calls>,
}

impl Record {
    /// Runs `work` and gives its result with the calls that libtorch made
    /// meanwhile, on any thread: nothing else should run beside it.
    ///
    /// # Errors
    /// [`Error::Input`] while another recording is under way.
    pub fn of<T>(work: impl FnOnce() -> T) -> Result<(T, Self)> {
        /// Ends the recording, whichever way `work` is left.
        struct Recording;
        impl Drop for Recording {
            fn drop(&mut self) {
                ffi::stop_recording();
            }
        }
        ffi::start_recording().map_err(|e| {
            Error::invalid("recording of operators", e.what(), "one at a time in a process")
        })?;
        let recording = Recording;
        let result = work();
        std::mem::forget(recording);
        let operators = ffi::stop_recording().into_iter().map(|calls| Calls {
            name: calls.name,
            calls: calls.calls,
            launches: calls.launches,
            own: Duration::from_nanos(calls.nanoseconds.max(0) as u64),
        });
        Ok((result, Self { operators: operators.collect() }))
    }

    /// How often the operator of this name was called.
    pub fn calls(&self, name: &str) -> u64 {
        self.operators.iter().find(|calls| calls.name == name).map_or(0, |calls| calls.calls)
    }

    /// Calls that did work, of all operators: about the kernels that a device
    /// would launch. Nodes of the backward pass that only call operators do not
    /// count.
    pub fn launches(&self) -> u64 {
        self.operators.iter().map(|calls| calls.launches).sum()
    }

    /// Calls for which the host would wait for a device.
    pub fn synchronisations(&self) -> u64 {
        SYNCHRONISING.iter().map(|name| self.calls(name)).sum()
    }
}

impl fmt::Display for Record {
    /// A table of the operators, the most expensive first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut operators: Vec<&Calls> = self.operators.iter().collect();
        operators.sort_by_key(|calls| std::cmp::Reverse(calls.own));
        let total: Duration = operators.iter().map(|calls| calls.own).sum();
        for calls in operators.iter().filter(|calls| calls.own > total / 1000) {
            let share = 100.0 * calls.own.as_secs_f64() / total.as_secs_f64();
            let milliseconds = 1e3 * calls.own.as_secs_f64();
            writeln!(f, "{milliseconds:9.1} ms {share:5.1} % {:6} × {}", calls.calls, calls.name)?;
        }
        write!(f, "{} launches, {} synchronisations", self.launches(), self.synchronisations())
    }
}
