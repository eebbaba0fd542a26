//! Numbers of a run: progress on the terminal, `metrics.jsonl`, TensorBoard.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::data::{Batch, CorruptFiles};
use engine::metrics::{JsonlWriter, TensorBoardWriter};
use engine::progress::{Progress, Step};
use engine::run_dir::RunDir;
use serde::Serialize;
use tch::Tensor;

use super::state::TrainState;
use super::step::Measured;
use crate::config::TrainConfig;

/// A step's numbers, read from the device.
#[derive(Debug)]
pub struct Settled {
    pub loss: f64,
    pub grad_norm: Option<f64>,
    pub step: u64,
    pub indices: Vec<usize>,
}

/// A line of `metrics.jsonl`; also TensorBoard's scalars. Losses are means
/// since the record before.
#[derive(Serialize)]
struct Record {
    step: u64,
    epoch: f64,
    loss: f64,
    lr: f64,
    weight_decay: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_norm: Option<f64>,
    images_per_second: f64,
    /// Share of the time spent waiting for data.
    data_wait: f64,
}

/// An epoch's line of `metrics.jsonl`.
#[derive(Serialize)]
struct EpochRecord {
    step: u64,
    finished_epoch: u64,
    epoch_loss: f64,
}

/// Writes a run's numbers.
pub struct Log {
    metrics: JsonlWriter,
    board: TensorBoardWriter,
    progress: Progress,
    every: u64,
    total_steps: u64,
    steps_per_epoch: f64,
    /// The step before, whose numbers may still be on the device.
    behind: Option<Measured>,
    window: Window,
    last: Step,
    corrupt_list: PathBuf,
    reported_corrupt: HashSet<String>,
}

/// Sums since the last record.
struct Window {
    since: Instant,
    /// Time outside of steps (checkpoints, pictures), left out of rates.
    paused: Duration,
    pause_began: Option<Instant>,
    images: u64,
    waited: Duration,
    loss: f64,
    losses: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            paused: Duration::ZERO,
            pause_began: None,
            images: 0,
            waited: Duration::ZERO,
            loss: 0.0,
            losses: 0,
        }
    }

    fn seconds(&self) -> f64 {
        (self.since.elapsed().saturating_sub(self.paused)).as_secs_f64().max(1e-9)
    }
}

impl Log {
    /// Files in the run's folder; when `continued`, records past the state's step are
    /// dropped.
    pub fn new(
        run: &RunDir,
        config: &TrainConfig,
        total_steps: u64,
        state: &TrainState,
        continued: bool,
    ) -> Result<Self> {
        let metrics = match continued {
            true => JsonlWriter::resume(&run.metrics(), state.step)?,
            false => JsonlWriter::create(&run.metrics())?,
        };
        // Purging names the first step that will be written again.
        let board =
            TensorBoardWriter::create(&run.tensorboard(), continued.then_some(state.step + 1))?;
        Ok(Self {
            metrics,
            board,
            progress: Progress::new(config.epochs, total_steps, state.step),
            every: config.log_steps,
            total_steps,
            steps_per_epoch: total_steps as f64 / config.epochs as f64,
            behind: None,
            window: Window::new(),
            last: Step::default(),
            corrupt_list: run.path().join("corrupt.txt"),
            reported_corrupt: HashSet::new(),
        })
    }

    /// Whether a record follows this step.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.every) || step == self.total_steps
    }

    /// Reads the step before from the device, and this one too if `now`.
    pub fn measure(&mut self, measured: Measured, now: bool) -> Vec<Settled> {
        let mut ready: Vec<Measured> = self.behind.replace(measured).into_iter().collect();
        if now {
            ready.extend(self.behind.take());
        }
        ready.into_iter().map(read).collect()
    }

    /// Shows a step's progress and writes a record when one is due.
    pub fn step(
        &mut self,
        state: &TrainState,
        batch: &Batch,
        lr: f64,
        weight_decay: f64,
        settled: Option<&Settled>,
    ) -> Result<()> {
        let images = batch.indices.len() as u64;
        self.window.images += images;
        self.window.waited += batch.waited;
        if let Some(settled) = settled {
            self.window.loss += settled.loss;
            self.window.losses += 1;
        }
        self.last = Step {
            epoch: batch.epoch + 1,
            loss: settled.map(|settled| settled.loss),
            lr,
            images,
            wait: batch.waited,
        };
        self.progress.step(&self.last);
        if self.is_due(state.step) {
            self.record(state.step, lr, weight_decay, settled)?;
        }
        self.window.pause_began = Some(Instant::now());
        Ok(())
    }

    fn record(
        &mut self,
        step: u64,
        lr: f64,
        weight_decay: f64,
        settled: Option<&Settled>,
    ) -> Result<()> {
        let window = std::mem::replace(&mut self.window, Window::new());
        let seconds = window.seconds();
        let record = Record {
            step,
            epoch: step as f64 / self.steps_per_epoch,
            loss: window.loss / window.losses as f64,
            lr,
            weight_decay,
            grad_norm: settled.and_then(|settled| settled.grad_norm),
            images_per_second: window.images as f64 / seconds,
            data_wait: window.waited.as_secs_f64() / seconds,
        };
        self.metrics.write(&record)?;
        for (tag, value) in [
            ("train/loss", Some(record.loss)),
            ("train/lr", Some(lr)),
            ("train/weight_decay", Some(weight_decay)),
            ("train/grad_norm", record.grad_norm),
            ("speed/images_per_second", Some(record.images_per_second)),
            ("speed/data_wait", Some(record.data_wait)),
        ] {
            if let Some(value) = value {
                self.board.scalar(tag, step, value)?;
            }
        }
        Ok(())
    }

    /// Writes an epoch's mean loss and names files that newly proved
    /// unreadable.
    pub fn epoch(
        &mut self,
        state: &TrainState,
        epoch: u64,
        loss: f64,
        corrupt: &CorruptFiles,
    ) -> Result<()> {
        let record = EpochRecord { step: state.step, finished_epoch: epoch, epoch_loss: loss };
        self.metrics.write(&record)?;
        self.board.scalar("epoch/loss", epoch, loss)?;
        if corrupt.len() > self.reported_corrupt.len() {
            self.list_corrupt(&corrupt.report())?;
        }
        Ok(())
    }

    /// Rewrites the list of skipped files and shows what is new in it.
    fn list_corrupt(&mut self, report: &[(String, String)]) -> Result<()> {
        let lines: String = report.iter().map(|(name, why)| format!("{name}\t{why}\n")).collect();
        std::fs::write(&self.corrupt_list, lines)
            .with_context(|| format!("cannot write {}", self.corrupt_list.display()))?;
        for (name, why) in report {
            if self.reported_corrupt.insert(name.clone()) {
                self.progress.note(&format!("skipped {name}: {why}"));
            }
        }
        Ok(())
    }

    /// Writes a picture, as PNG bytes, for TensorBoard.
    pub fn picture(&mut self, tag: &str, step: u64, png: &[u8]) -> Result<()> {
        Ok(self.board.image(tag, step, png)?)
    }

    /// Ends the work between two steps, which rates leave out.
    pub fn skip_time(&mut self) {
        if let Some(began) = self.window.pause_began.take() {
            self.window.paused += began.elapsed();
        }
        self.progress.skip_time();
    }

    /// Shows where the run ended.
    pub fn finish(&mut self) {
        self.progress.epoch_end(&self.last);
    }
}

fn read(measured: Measured) -> Settled {
    let number = |tensor: Tensor| tensor.double_value(&[]);
    Settled {
        loss: number(measured.loss),
        grad_norm: measured.grad_norm.map(number),
        step: measured.step,
        indices: measured.indices,
    }
}
