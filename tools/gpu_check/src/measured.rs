//! Our side of the bench: SparK's training steps on a device, timed. The opponent's side,
//! `python/opponent.py`, tells the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use bench::inputs::spark::Step;
use bench::worker::Updates;
use clap::Args;
use engine::device::synchronize;
use serde::{Deserialize, Serialize};

use crate::facts::{self, DeviceKind, free_bytes};
use crate::recorder::said;

/// Which steps.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Weights, images and mask
    #[arg(long)]
    inputs: PathBuf,
    #[arg(long)]
    model: String,
    #[command(flatten)]
    updates: Updates,
    #[arg(long, value_enum)]
    device: DeviceKind,
    /// Steps that are timed
    #[arg(long)]
    steps: usize,
    /// Double the batch up to this; no further than the inputs' if not given
    #[arg(long)]
    largest: Option<i64>,
}

/// What a side tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Of the first two steps.
    pub losses: [f64; 2],
    /// Of a step on the inputs as they are.
    pub seconds: f64,
    /// What the process then held of the device's memory; none on processors.
    pub memory_mb: Option<f64>,
    /// The largest batch that fitted, if it was looked for.
    pub largest: Option<Largest>,
    /// How it was done, where there are several ways.
    pub how: String,
}

/// The largest batch that fitted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Largest {
    /// Images of a step.
    pub batch: i64,
    /// How fast.
    pub images_per_second: f64,
    /// What the process then held of the device's memory; none on processors.
    pub memory_mb: Option<f64>,
}

/// Prints what was measured.
pub fn run(arguments: &Arguments) -> Result<()> {
    let device = facts::device(arguments.device)?;
    engine::device::use_threads(0);
    engine::device::enable_cudnn_benchmark(device);
    let free = free_bytes(device);
    let memory_mb = || Some((free? - free_bytes(device)?.min(free?)) as f64 / 1e6);
    let Arguments { model, inputs, updates, .. } = arguments;
    let mut steps = Steps(Step::new(model, false, inputs, device, *updates)?);
    let losses = [steps.0.take()?, steps.0.take()?];
    let seconds = steps.timed(arguments.steps)?;
    let held = memory_mb();
    let largest = arguments.largest.map(|most| steps.largest(most, &memory_mb)).transpose()?;
    let how = String::new();
    let told = Told { losses, seconds, memory_mb: held, largest, how };
    println!("{}", serde_json::to_string(&told).context("figures are no JSON")?);
    Ok(())
}

/// Steps, timed.
struct Steps(Step);

impl Steps {
    /// Seconds of a step, after one that is not timed.
    fn timed(&mut self, steps: usize) -> Result<f64> {
        self.0.take()?;
        synchronize(self.0.device());
        let begun = Instant::now();
        (0..steps).try_for_each(|_| self.0.take().map(drop))?;
        synchronize(self.0.device());
        Ok(begun.elapsed().as_secs_f64() / steps as f64)
    }

    /// Doubles the batch up to `most`, or until it no longer fits.
    fn largest(&mut self, most: i64, memory_mb: &dyn Fn() -> Option<f64>) -> Result<Largest> {
        const STEPS: usize = 2;
        let mut found: Option<Largest> = None;
        loop {
            let batch = self.0.batch();
            // libtorch's operators panic where memory runs out.
            let timed = catch_unwind(AssertUnwindSafe(|| self.timed(STEPS)))
                .unwrap_or_else(|panic| bail!("{}", said(panic.as_ref())));
            match (timed, found.take()) {
                (Ok(seconds), _) => {
                    let images_per_second = batch as f64 / seconds;
                    let memory_mb = memory_mb();
                    found = Some(Largest { batch, images_per_second, memory_mb });
                }
                (Err(error), Some(found)) if is_out_of_memory(&error) => return Ok(found),
                (Err(error), _) => return Err(error.context(format!("a batch of {batch}"))),
            }
            if 2 * batch > most {
                return found.context("no batch was tried");
            }
            let doubled = catch_unwind(AssertUnwindSafe(|| self.0.double()));
            match (doubled, found.take()) {
                (Ok(()), again) => found = again,
                (Err(_), Some(found)) => return Ok(found),
                (Err(panic), None) => bail!("{}", said(panic.as_ref())),
            }
        }
    }
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    // libtorch's allocator, and cuDNN's and cuBLAS's own.
    ["out of memory", "alloc_failed", "not enough memory"].iter().any(|part| text.contains(part))
}
