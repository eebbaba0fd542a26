//! Our side of each duel: a process that does rounds when told to.

pub mod classification;
pub mod coco;
pub mod detection;
pub mod inference;
pub mod loading;
pub mod spark;
pub mod start;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use backbone::{DropPathDraws, Mode};
use clap::Subcommand;
use engine::device::use_threads;
use engine::precision::Precision;

use crate::memory::Baseline;
use crate::protocol::{Ready, Round, serve};

/// What to do rounds of.
#[derive(Debug, Clone, Subcommand)]
pub enum Worker {
    /// Training steps of SparK
    Spark(spark::Arguments),
    /// Forward passes of a backbone
    Inference(inference::Arguments),
    /// Training steps of a classifier
    Classification(classification::Arguments),
    /// Training steps or inference of a detector
    Detection(detection::Arguments),
    /// Evaluations of detections
    Coco(coco::Arguments),
    /// Batches of photographs
    Loading(loading::Arguments),
    /// Starts of pretraining, ours or theirs
    Start(start::Arguments),
}

impl Worker {
    /// Serves until the input ends.
    ///
    /// # Errors
    /// When the work cannot be done.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Spark(arguments) => spark::run(&arguments),
            Self::Inference(arguments) => inference::run(&arguments),
            Self::Classification(arguments) => classification::run(&arguments),
            Self::Detection(arguments) => detection::run(&arguments),
            Self::Coco(arguments) => coco::run(&arguments),
            Self::Loading(arguments) => loading::run(&arguments),
            Self::Start(arguments) => start::run(&arguments),
        }
    }
}

/// The inputs and the threads, which every worker is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Common {
    /// File or folder that both sides work on
    #[arg(long)]
    pub inputs: PathBuf,
    /// Threads of arithmetic, or that read images
    #[arg(long)]
    pub threads: usize,
}

/// What a worker of models is told.
#[derive(Debug, Clone, clap::Args)]
pub struct Subject {
    #[command(flatten)]
    common: Common,
    /// A registered model, or one of timm's
    #[arg(long)]
    model: String,
}

/// How weights are updated in a training step.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Updates {
    /// Arithmetic of convolutions and linear layers
    #[arg(long, value_enum, default_value = "float32")]
    pub precision: Precision,
    /// Learning rate
    #[arg(long)]
    pub lr: f64,
    /// Weight decay
    #[arg(long)]
    pub weight_decay: f64,
}

impl Updates {
    /// Training without drop-path.
    pub fn mode(&self) -> Mode {
        Mode::train()
            .with_compute(self.precision.compute())
            .with_bf16_weight_grads(true)
            .with_drop_path(DropPathDraws::Off)
    }
}

/// Serves rounds of so many steps until the input ends; `new` makes the step, which tells its loss.
fn serve_steps<S: FnMut() -> Result<f64>>(
    threads: usize,
    steps: usize,
    new: impl FnOnce() -> Result<S>,
) -> Result<()> {
    use_threads(threads);
    let memory = Baseline::now()?;
    let mut step = new()?;
    Baseline::forget_peak();
    // The second shows whether gradients and optimizer agree, too.
    let losses = vec![step()?, step()?];
    serve(Ready::default().with("loss", losses), || {
        timed(steps as f64, &memory, || (0..steps).try_for_each(|_| step().map(drop)))
    })
}

/// Times `work`, which does this many units.
fn timed(units: f64, memory: &Baseline, work: impl FnOnce() -> Result<()>) -> Result<Round> {
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Round { seconds, work: units, peak_mb: memory.peak_growth()? })
}
