//! Trials as a person and a run's metrics are told of them.

use std::fmt;

use serde::Serialize;

use super::{Cost, Trials};
use crate::spark::Execution;

/// A line of `metrics.jsonl`; an execution that could not be timed has no figures.
#[derive(Serialize)]
pub struct ExecutionRecord {
    step: u64,
    execution: Execution,
    packed_seconds: Option<f64>,
    masked_seconds: Option<f64>,
    packed_bytes: Option<usize>,
    masked_bytes: Option<usize>,
}

impl Trials {
    /// The trials before the step after `step`, and what they say.
    pub fn record(&self, step: u64) -> ExecutionRecord {
        let seconds = |of: &Result<Cost, String>| of.as_ref().ok().map(|cost| cost.seconds);
        let bytes = |of: &Result<Cost, String>| of.as_ref().ok().and_then(|cost| cost.bytes);
        ExecutionRecord {
            step,
            execution: self.faster(),
            packed_seconds: seconds(&self.packed),
            masked_seconds: seconds(&self.masked),
            packed_bytes: bytes(&self.packed),
            masked_bytes: bytes(&self.masked),
        }
    }
}

/// The faster first: "packed: 0.123 s a step, masked 0.234 s".
impl fmt::Display for Trials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (faster, [of_faster, of_other], other) = match self.faster() {
            Execution::Packed => (Execution::Packed, [&self.packed, &self.masked], "masked"),
            Execution::MaskedDense => {
                (Execution::MaskedDense, [&self.masked, &self.packed], "packed")
            }
        };
        let cost = |cost: &Cost, unit: &str| {
            let memory = cost.bytes.map(|bytes| format!(" and {:.2} GB", bytes as f64 / 1e9));
            format!("{:.3} s{unit}{}", cost.seconds, memory.unwrap_or_default())
        };
        match of_faster {
            Ok(taken) => write!(f, "{faster}: {}, ", cost(taken, " a step"))?,
            Err(why) => write!(f, "{faster}, though it failed when it was tried ({why}); ")?,
        }
        match of_other {
            Ok(taken) => write!(f, "{other} {}", cost(taken, "")),
            Err(why) => write!(f, "{other} failed: {why}"),
        }
    }
}
