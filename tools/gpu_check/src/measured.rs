//! Our side of the bench: SparK's training steps on a device, timed. The opponent's side,
//! `python/opponent.py`, tells the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use backbone::models::{self, Family};
use backbone::{DropPathDraws, Mode, PatchMask, Size};
use bench::inputs::spark::{ACTIVE, build, load_weights};
use bench::inputs::{self, IMAGES};
use clap::Args;
use engine::device::synchronize;
use engine::distributed::Gradients;
use engine::optim::{Lamb, LambConfig, Optimizer as _, param_groups};
use engine::precision::Precision;
use pretrain::spark::{Execution, Spark};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor, nn};

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
    #[arg(long, value_enum)]
    precision: Precision,
    #[arg(long, value_enum)]
    device: DeviceKind,
    /// Steps that are timed
    #[arg(long)]
    steps: usize,
    #[arg(long)]
    lr: f64,
    #[arg(long)]
    weight_decay: f64,
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
///
/// # Errors
/// The inputs are missing or do not fit the model; what libtorch fails with.
pub fn run(arguments: &Arguments) -> Result<()> {
    let device = facts::device(arguments.device)?;
    engine::device::use_threads(0);
    engine::device::enable_cudnn_benchmark(device);
    let free = free_bytes(device);
    let memory_mb = || Some((free? - free_bytes(device)?.min(free?)) as f64 / 1e6);
    let mut steps = Steps::new(arguments, device)?;
    let losses = [steps.take()?, steps.take()?];
    let seconds = steps.timed(arguments.steps)?;
    let held = memory_mb();
    let largest = arguments.largest.map(|most| steps.largest(most, &memory_mb)).transpose()?;
    let how = String::new();
    let told = Told { losses, seconds, memory_mb: held, largest, how };
    println!("{}", serde_json::to_string(&told).context("figures are no JSON")?);
    Ok(())
}

/// The model, what updates it, and the batch it sees.
struct Steps {
    spark: Spark,
    gradients: Gradients,
    optimizer: Lamb,
    precision: Precision,
    rates: (f64, f64),
    images: Tensor,
    /// Which patches are visible, of every image.
    active: Vec<bool>,
    grid: Size,
    _store: nn::VarStore,
}

impl Steps {
    fn new(arguments: &Arguments, device: Device) -> Result<Self> {
        let store = nn::VarStore::new(device);
        let spark = build(&arguments.model, &store)?;
        let path = &arguments.inputs;
        let mut tensors = backbone::weights::read(path)?.tensors;
        load_weights(&store, &mut tensors, path, None)?;
        let images = inputs::take(&mut tensors, IMAGES, path)?.to_device(device);
        let active = inputs::take(&mut tensors, ACTIVE, path)?;
        let &[_, _, rows, columns] = active.size().as_slice() else {
            bail!("{ACTIVE} is of shape {:?}, but it must be [N, 1, rows, columns]", active.size())
        };
        let active = Vec::<bool>::try_from(active.reshape([-1])).context("reading the mask")?;
        Ok(Self {
            spark,
            gradients: Gradients::alone(),
            optimizer: optimizer(&arguments.model, &store)?,
            precision: arguments.precision,
            rates: (arguments.lr, arguments.weight_decay),
            images,
            active,
            grid: (rows, columns),
            _store: store,
        })
    }

    /// One step, as `pretrain`'s trainer takes it on one process; its loss.
    fn take(&mut self) -> Result<f64> {
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let (batch, device) = (self.images.size()[0], self.images.device());
        let visible = (0..).zip(&self.active).filter(|(_, on)| **on).map(|(index, _)| index);
        let visible: Vec<i64> = visible.collect();
        let mask = PatchMask::from_visible(batch, self.grid, &visible, device)?;
        let mode = Mode::train()
            .with_compute(self.precision.compute())
            .with_bf16_weight_grads(true)
            .with_drop_path(DropPathDraws::Off);
        let loss = self.spark.loss(&self.images, &mask, &mode, Execution::Packed)?;
        self.gradients.backward(&loss, true)?;
        self.optimizer.step(self.rates.0, self.rates.1);
        Ok(loss.double_value(&[]))
    }

    /// Seconds of a step, after one that is not timed.
    fn timed(&mut self, steps: usize) -> Result<f64> {
        self.take()?;
        synchronize(self.images.device());
        let begun = Instant::now();
        (0..steps).try_for_each(|_| self.take().map(drop))?;
        synchronize(self.images.device());
        Ok(begun.elapsed().as_secs_f64() / steps as f64)
    }

    /// Doubles the batch up to `most`, or until it no longer fits.
    fn largest(&mut self, most: i64, memory_mb: &dyn Fn() -> Option<f64>) -> Result<Largest> {
        const STEPS: usize = 2;
        let mut found: Option<Largest> = None;
        loop {
            let batch = self.images.size()[0];
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
            let doubled = catch_unwind(AssertUnwindSafe(|| self.images.repeat([2, 1, 1, 1])));
            match (doubled, found.take()) {
                (Ok(images), again) => (self.images, found) = (images, again),
                (Err(_), Some(found)) => return Ok(found),
                (Err(panic), None) => bail!("{}", said(panic.as_ref())),
            }
            self.active.extend_from_within(..);
        }
    }
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    let text = format!("{error:#}").to_lowercase();
    // libtorch's allocator, and cuDNN's and cuBLAS's own.
    ["out of memory", "alloc_failed", "not enough memory"].iter().any(|part| text.contains(part))
}

/// LAMB with the official settings of the model's family.
fn optimizer(model: &str, store: &nn::VarStore) -> Result<Lamb> {
    let params = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let mut params: Vec<_> = params.collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    let convnext = models::find(model)?.family() == Family::ConvNeXt;
    let betas = (0.9, if convnext { 0.999 } else { 0.95 });
    Ok(Lamb::new(param_groups(params), LambConfig { betas, ..LambConfig::default() })?)
}
