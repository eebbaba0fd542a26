//! Numbers of a run: progress on the terminal, `metrics.jsonl`, TensorBoard.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use engine::data::CorruptFiles;
use engine::metrics::{JsonlWriter, TensorBoardWriter};
use engine::progress::{Progress, Step};
use engine::run_dir::RunDir;
use serde::Serialize;
use tch::Tensor;

use super::config::TrainConfig;
use super::state::TrainState;
use super::step::Measured;
use crate::evaluation::Report;

/// A step's numbers, read from the device.
#[derive(Debug)]
pub struct Settled {
    /// By name; the sum is what is learned from.
    pub losses: BTreeMap<&'static str, f64>,
    pub grad_norm: Option<f64>,
    pub step: u64,
    pub indices: Vec<usize>,
}

impl Settled {
    /// The sum of the losses.
    pub fn loss(&self) -> f64 {
        self.losses.values().sum()
    }
}

/// A line of `metrics.jsonl`; also TensorBoard's scalars. Losses are means
/// since the record before.
#[derive(Serialize)]
struct Record<'a> {
    step: u64,
    epoch: f64,
    loss: f64,
    #[serde(flatten)]
    losses: &'a BTreeMap<&'static str, f64>,
    lr: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_norm: Option<f64>,
    images_per_second: f64,
    /// Share of the time spent waiting for data.
    data_wait: f64,
}

/// A step and what it took.
pub struct Taken {
    /// The epoch it belongs to, from 1.
    pub epoch: u64,
    pub images: u64,
    pub waited: Duration,
    pub lr: f64,
}

/// Writes a run's numbers.
pub struct Log {
    metrics: JsonlWriter,
    board: TensorBoardWriter,
    progress: Progress,
    every: u64,
    total_steps: u64,
    steps_per_epoch: u64,
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
    /// Time outside of steps (checkpoints, evaluations), left out of rates.
    paused: Duration,
    pause_began: Option<Instant>,
    images: u64,
    waited: Duration,
    losses: BTreeMap<&'static str, f64>,
    settled: u64,
}

impl Window {
    fn new() -> Self {
        Self {
            since: Instant::now(),
            paused: Duration::ZERO,
            pause_began: None,
            images: 0,
            waited: Duration::ZERO,
            losses: BTreeMap::new(),
            settled: 0,
        }
    }

    fn seconds(&self) -> f64 {
        (self.since.elapsed().saturating_sub(self.paused)).as_secs_f64().max(1e-9)
    }
}

impl Log {
    /// Files in the run's folder; when `continued`, records past the state's
    /// step are dropped.
    pub fn new(
        run: &RunDir,
        config: &TrainConfig,
        steps_per_epoch: u64,
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
        let total_steps = config.total_steps(steps_per_epoch);
        let epochs = total_steps.div_ceil(steps_per_epoch);
        Ok(Self {
            metrics,
            board,
            progress: Progress::new(epochs, total_steps, state.step),
            every: config.log_steps,
            total_steps,
            steps_per_epoch,
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
    pub fn step(&mut self, step: u64, taken: &Taken, settled: &[Settled]) -> Result<()> {
        self.window.images += taken.images;
        self.window.waited += taken.waited;
        for settled in settled {
            self.window.settled += 1;
            for (name, loss) in &settled.losses {
                *self.window.losses.entry(name).or_default() += loss;
            }
        }
        self.last = Step {
            epoch: taken.epoch,
            loss: settled.last().map(Settled::loss),
            lr: taken.lr,
            images: taken.images,
            wait: taken.waited,
        };
        self.progress.step(&self.last);
        if self.is_due(step) {
            self.record(step, taken.lr, settled.last().and_then(|settled| settled.grad_norm))?;
        }
        self.window.pause_began = Some(Instant::now());
        Ok(())
    }

    fn record(&mut self, step: u64, lr: f64, grad_norm: Option<f64>) -> Result<()> {
        let mut window = std::mem::replace(&mut self.window, Window::new());
        let seconds = window.seconds();
        window.losses.values_mut().for_each(|loss| *loss /= window.settled as f64);
        let record = Record {
            step,
            epoch: step as f64 / self.steps_per_epoch as f64,
            loss: window.losses.values().sum(),
            losses: &window.losses,
            lr,
            grad_norm,
            images_per_second: window.images as f64 / seconds,
            data_wait: window.waited.as_secs_f64() / seconds,
        };
        self.metrics.write(&record)?;
        let losses = window.losses.iter().map(|(name, loss)| (format!("train/{name}"), *loss));
        let others = [
            ("train/loss", Some(record.loss)),
            ("train/lr", Some(lr)),
            ("train/grad_norm", grad_norm),
            ("speed/images_per_second", Some(record.images_per_second)),
            ("speed/data_wait", Some(record.data_wait)),
        ];
        let others = others.into_iter().filter_map(|(tag, value)| Some((tag.to_owned(), value?)));
        for (tag, value) in losses.chain(others).collect::<Vec<_>>() {
            self.board.scalar(&tag, step, value)?;
        }
        Ok(())
    }

    /// Writes the figures of an evaluation.
    pub fn evaluation(&mut self, step: u64, report: &Report) -> Result<()> {
        let figures = report.scalars();
        let mut record = serde_json::Map::new();
        record.insert("step".into(), step.into());
        for (name, value) in &figures {
            record.insert(name.clone(), (*value).into());
            self.board.scalar(&format!("val/{name}"), step, *value)?;
        }
        self.metrics.write(&record)?;
        let short: Vec<String> = report
            .sections()
            .map(|(kind, section)| {
                let figures = &section.figures;
                let percent = |value: f64| format!("{:.1}", 100.0 * value);
                format!("{} AP {} AP50 {}", kind.name(), percent(figures.ap), percent(figures.ap50))
            })
            .collect();
        self.progress.note(&format!("step {step}: {}", short.join(", ")));
        Ok(())
    }

    /// Names files that newly proved unreadable, and lists all in the run.
    pub fn corrupt(&mut self, corrupt: &CorruptFiles) -> Result<()> {
        if corrupt.len() <= self.reported_corrupt.len() {
            return Ok(());
        }
        let report = corrupt.report();
        let lines: String = report.iter().map(|(name, why)| format!("{name}\t{why}\n")).collect();
        std::fs::write(&self.corrupt_list, lines)
            .with_context(|| format!("cannot write {}", self.corrupt_list.display()))?;
        for (name, why) in &report {
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
    let number = |tensor: &Tensor| tensor.double_value(&[]);
    Settled {
        losses: measured.losses.iter().map(|(name, loss)| (*name, number(loss))).collect(),
        grad_norm: measured.grad_norm.as_ref().map(number),
        step: measured.step,
        indices: measured.indices,
    }
}
