//! Which execution a run trains in: where that is open, both are tried before the first step.
//!
//! A trial leaves nothing behind that the run could tell. Its images are made up, its masks and
//! drop-path draws come from numbers alone, gradients are taken beside those of the parameters,
//! and running statistics are put back.

mod told;

use anyhow::Result;
use engine::training::Trainer;
use engine::training::trial::{caught, reason, timed_pass};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::task::{MicroBatch, Pretraining};
use crate::spark::Execution;

/// Steps of each execution that are timed, after one in which libraries choose algorithms and take
/// memory.
const TIMED: u64 = 3;

/// What a step's forward and backward passes take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    seconds: f64,
    /// The most that tensors take meanwhile, weights and all, if anybody counts.
    bytes: Option<usize>,
}

/// What a step takes in both executions, or why it could not be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    packed: Result<Cost, String>,
    masked: Result<Cost, String>,
}

/// Tries both executions on micro-batches of the run's size. All processes call, and are told the
/// same.
///
/// # Errors
/// [`engine::Error::Distributed`].
pub fn try_both(task: &Pretraining, trainer: &Trainer) -> Result<Trials> {
    let kept = trainer.buffers();
    let images = made_up_images(task, trainer);
    let own = Trials::of(|execution, number| {
        caught(|| take_step(task, trainer, &images, execution, number))
    });
    kept.put_back();
    // Each process has tried alone, so that one whose memory runs out keeps none waiting.
    Ok(Trials::of_all(&trainer.world.gather(&own)?))
}

/// Values in [−1, 1] that look like nothing and are drawn from no generator, `[n, C, H, W]`.
fn made_up_images(task: &Pretraining, trainer: &Trainer) -> Tensor {
    let config = &task.config;
    let count = trainer.micro_batch_size as i64;
    let size = [count, config.in_chans, config.input_size.height, config.input_size.width];
    let kind = config.compute.precision.parameters();
    Tensor::arange(size.iter().product::<i64>(), (kind, trainer.device)).sin_().view(size)
}

/// Forward and backward passes of a step, of whose parts one is made. Statistics are not shared
/// with other processes: both executions would wait for them alike.
fn take_step(
    task: &Pretraining,
    trainer: &Trainer,
    images: &Tensor,
    execution: Execution,
    number: u64,
) -> Result<Cost> {
    let parts = trainer.batch_size / (trainer.world.size() * trainer.micro_batch_size);
    let positions = (0..trainer.micro_batch_size as u64).collect();
    // Another epoch has other masks, whose tables are part of a step.
    let micro_batch = MicroBatch { images: images.shallow_clone(), epoch: number, positions };
    let mode = trainer.train_mode().with_sync_batch_norm(None);
    let (seconds, bytes) =
        timed_pass(trainer, || task.loss(trainer, &micro_batch, mode, execution))?;
    Ok(Cost { seconds: seconds * parts as f64, bytes })
}

impl Trials {
    /// What `step` takes in the execution, and with the number of the round, that it is given. The
    /// executions take turns, so that a device that becomes slower does so for both; of a few
    /// times the median counts. One that has failed is not tried again.
    pub fn of(mut step: impl FnMut(Execution, u64) -> Result<Cost>) -> Self {
        let mut packed = Ok(Vec::new());
        let mut masked = Ok(Vec::new());
        for round in 0..=TIMED {
            for (execution, costs) in
                [(Execution::Packed, &mut packed), (Execution::MaskedDense, &mut masked)]
            {
                let Ok(taken) = costs else { continue };
                match step(execution, round) {
                    Ok(cost) if round > 0 => taken.push(cost),
                    Ok(_) => {}
                    Err(error) => *costs = Err(reason(&format!("{error:#}"))),
                }
            }
        }
        Self { packed: packed.map(median), masked: masked.map(median) }
    }

    /// The trials of processes that train together: all wait for the slowest, and one that cannot
    /// make the step leaves the others without it.
    fn of_all(all: &[Self]) -> Self {
        let slowest = |of: fn(&Self) -> &Result<Cost, String>| {
            let costs: Result<Vec<Cost>, &String> =
                all.iter().map(|trials| of(trials).as_ref().copied()).collect();
            let costs = costs.map_err(String::clone)?;
            let seconds = costs.iter().map(|cost| cost.seconds).fold(0.0, f64::max);
            Ok(Cost { seconds, bytes: costs.iter().filter_map(|cost| cost.bytes).max() })
        };
        Self { packed: slowest(|trials| &trials.packed), masked: slowest(|trials| &trials.masked) }
    }

    /// The execution that takes less time, or that can be made at all. Packed if none is better:
    /// a run that cannot make its first step in either is told so by that step.
    pub fn faster(&self) -> Execution {
        match (&self.packed, &self.masked) {
            (Ok(packed), Ok(masked)) if masked.seconds < packed.seconds => Execution::MaskedDense,
            (Err(_), Ok(_)) => Execution::MaskedDense,
            _ => Execution::Packed,
        }
    }
}

/// The median time, and the most memory.
fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let bytes = costs.iter().filter_map(|cost| cost.bytes).max();
    Cost { bytes, ..costs[costs.len() / 2] }
}

#[cfg(test)]
mod tests;
