//! What a step takes on this machine, found by making some.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use tch::{Device, Tensor};

use super::{BatchOf, Rates, Setup, Task, Trainer};
use crate::allocator::peak_on;
use crate::device::synchronize;

/// Steps that are timed at most, and how long it is gone on with.
const STEPS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(3);
/// On a processor a quarter of the batch comes first. Where it takes longer than this the whole
/// is not tried.
const SLOW: Duration = Duration::from_secs(1);

/// What training takes, by images of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepCost {
    /// Seconds of an image.
    pub seconds: f64,
    /// Bytes that an image takes besides; none if nobody counts them.
    pub bytes: Option<u64>,
    /// Bytes of weights, gradients and the optimizer's state.
    pub fixed: u64,
}

impl<T: Task> Setup<T> {
    /// Makes a few steps on its first batches and says what they take. It is used up: its weights
    /// are changed, nothing is written.
    ///
    /// # Errors
    /// Whatever keeps a step from being made, such as memory that runs out on a GPU.
    pub fn measure(self) -> Result<StepCost> {
        let Self { task, mut trainer, loader, .. } = self;
        let size = trainer.micro_batch_size;
        let mut batches = loader.batches(0..u64::MAX, 0);
        let mut next = || -> Result<BatchOf<T::Source>> {
            Ok(batches.next().context("the data has no batch")??)
        };
        caught(|| {
            let batch = next()?;
            if trainer.device == Device::Cpu {
                trainer.micro_batch_size = size.div_ceil(4);
            }
            let warm_up = step(&task, &mut trainer, batch)?;
            if trainer.micro_batch_size == size || warm_up < SLOW {
                trainer.micro_batch_size = size;
            }
            peak_on(trainer.device);
            let (mut times, begun) = (Vec::new(), Instant::now());
            while times.is_empty() || times.len() < STEPS && begun.elapsed() < PATIENCE {
                let batch = next()?;
                times.push(step(&task, &mut trainer, batch)?);
            }
            times.sort();
            let images = trainer.micro_batch_size;
            let fixed = fixed_bytes(&trainer);
            let bytes = peak_on(trainer.device).map(|peak| peak as u64);
            Ok(StepCost {
                seconds: times[times.len() / 2].as_secs_f64() / images as f64,
                bytes: bytes.map(|peak| peak.saturating_sub(fixed) / images as u64),
                fixed,
            })
        })
    }
}

/// A step on as many images of `batch` as are computed at a time; how long it takes.
fn step<T: Task>(task: &T, trainer: &mut Trainer, batch: BatchOf<T::Source>) -> Result<Duration> {
    synchronize(trainer.device);
    let begun = Instant::now();
    let part = task.micro_batches(trainer, batch, 0)?.into_iter().take(1).collect();
    let still = Rates { lr: 0.0, weight_decay: 0.0 };
    let metrics = trainer.step(part, still, (1, Vec::new()), |t, part| task.losses(t, part))?;
    drop(metrics);
    synchronize(trainer.device);
    Ok(begun.elapsed())
}

/// Bytes of what is trained, its averages and the optimizer's state, and of gradients.
pub(super) fn fixed_bytes(trainer: &Trainer) -> u64 {
    let bytes = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
    let kept = trainer.sections();
    let kept: u64 = kept.named().iter().flat_map(|(_, part)| part.values()).map(bytes).sum();
    let learned = trainer.variables.values().filter(|variable| variable.requires_grad());
    kept + learned.map(bytes).sum::<u64>()
}

/// What a micro-batch's forward and backward passes take, in seconds and, if anybody counts, in
/// bytes of everything together. Weights, gradients and running statistics are left as they are.
/// All processes call where they share statistics.
///
/// # Errors
/// Whatever keeps them from being made.
pub fn try_pass<T: Task>(
    task: &T,
    trainer: &Trainer,
    micro_batch: T::MicroBatch,
) -> Result<(f64, Option<usize>)> {
    let kept = trainer.buffers();
    let made = caught(|| {
        timed_pass(trainer, || {
            let losses = task.losses(trainer, micro_batch)?;
            let loss = losses.into_iter().map(|(_, loss)| loss).reduce(|sum, loss| sum + loss);
            loss.context("the task has no losses")
        })
    });
    kept.put_back();
    made
}

/// What it takes to compute a loss and its gradients, which are dropped: as [`try_pass`].
///
/// # Errors
/// Those of either.
pub fn timed_pass(
    trainer: &Trainer,
    loss: impl FnOnce() -> Result<Tensor>,
) -> Result<(f64, Option<usize>)> {
    let variables = trainer.variables.values();
    let parameters: Vec<&Tensor> = variables.filter(|tensor| tensor.requires_grad()).collect();
    synchronize(trainer.device);
    peak_on(trainer.device);
    let begun = Instant::now();
    let gradients = Tensor::f_run_backward(&[loss()?], &parameters, false, false)?;
    synchronize(trainer.device);
    let seconds = begun.elapsed().as_secs_f64();
    drop(gradients);
    Ok((seconds, peak_on(trainer.device)))
}

/// Running statistics as they were.
pub struct KeptBuffers(Vec<(Tensor, Tensor)>);

impl Trainer {
    /// What is no parameter, to be put back after a trial.
    pub fn buffers(&self) -> KeptBuffers {
        let buffers = self.variables.values().filter(|variable| !variable.requires_grad());
        KeptBuffers(buffers.map(|buffer| (buffer.shallow_clone(), buffer.copy())).collect())
    }
}

impl KeptBuffers {
    /// Gives them their values again.
    pub fn put_back(self) {
        tch::no_grad(|| self.0.into_iter().for_each(|(mut buffer, before)| buffer.copy_(&before)));
    }
}

/// What `body` gives. A panic, by which layers tell that memory has run out, becomes an error.
///
/// # Errors
/// Those of `body`, and what it panics with.
pub fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // One in a part without gradients would leave them switched off: this switches them on again.
    let _restored = tch::no_grad_guard();
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let result = catch_unwind(AssertUnwindSafe(|| tch::with_grad(body)));
    std::panic::set_hook(report);
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(anyhow!(text.unwrap_or_else(|| "a layer panicked".into())))
    })
}

/// The first line of what libtorch or a layer says, without what Rust puts around it.
pub fn reason(text: &str) -> String {
    let said = text.split_once("Torch(\"").map_or(text, |(_, said)| said);
    let end = ["\n", "\\n"].iter().filter_map(|mark| said.find(mark)).min();
    said[..end.unwrap_or(said.len())].trim_end_matches("\")").trim().to_owned()
}

/// Whether an error is that of memory which has run out on a GPU.
pub fn is_out_of_memory(error: &anyhow::Error) -> bool {
    format!("{error:#}").contains("out of memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_leaves_gradients_on() {
        let wrong = || Tensor::from(1.0).view([2, 3]);
        let error = caught(|| Ok(tch::no_grad(wrong))).unwrap_err();
        assert_eq!(reason(&error.to_string()), "shape '[2, 3]' is invalid for input of size 1");
        let x = Tensor::from(2.0).set_requires_grad(true);
        assert!((&x * 3.0).requires_grad(), "gradients are recorded again");
        assert!(caught(|| Ok((&x * 3.0).requires_grad())).unwrap());
    }

    #[test]
    fn memory_that_runs_out_is_told_from_other_errors() {
        let error = anyhow!("CUDA out of memory. Tried to allocate 2.00 GiB").context("a step");
        assert!(is_out_of_memory(&error) && !is_out_of_memory(&anyhow!("a layer panicked")));
    }
}
