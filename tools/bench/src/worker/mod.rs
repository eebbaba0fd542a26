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
use clap::Subcommand;

use crate::memory::Baseline;
use crate::protocol::Round;

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

/// Times `work`, which does this many units.
fn timed(units: f64, memory: &Baseline, work: impl FnOnce() -> Result<()>) -> Result<Round> {
    let start = Instant::now();
    work()?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Round { seconds, work: units, peak_mb: memory.peak_growth()? })
}
