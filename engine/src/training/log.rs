//! Numbers of a run: progress on the terminal, `metrics.jsonl`, TensorBoard.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Measured, RunFiles, Settled};
use crate::Result;
use crate::distributed::{World, host_name};
use crate::metrics::{JsonlWriter, TensorBoardWriter};
use crate::progress::{Progress, Step};
use crate::run_dir::RunDir;
use data::CorruptFiles;
use data::write_file;

/// Name of the total in records; a loss that is called so is no part beside it.
const TOTAL: &str = "loss";

/// How long a run is and where it stands.
#[derive(Debug, Clone, Copy)]
pub struct RunPlan {
    /// Steps an epoch.
    pub steps_per_epoch: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Steps made before now; 0 of a new run.
    pub done: u64,
    /// Whether the folder's records go on: those past `done` are dropped.
    pub continued: bool,
    /// Steps between records.
    pub log_steps: u64,
}

/// A step and what it took.
#[derive(Debug)]
pub struct Taken<'a> {
    /// The epoch it belongs to, from 1.
    pub epoch: u64,
    /// Images of this process's part of the batch.
    pub images: u64,
    /// Time that this process waited for its data.
    pub waited: Duration,
    /// Learning rate.
    pub lr: f64,
    /// Further numbers of the record.
    pub more: &'a [(&'static str, f64)],
}

/// A line of `metrics.jsonl`; also TensorBoard's scalars. Losses are means
/// since the record before.
#[derive(Serialize)]
struct Record<'a> {
    step: u64,
    epoch: f64,
    loss: f64,
    #[serde(flatten)]
    parts: &'a BTreeMap<&'static str, f64>,
    lr: f64,
    #[serde(flatten)]
    more: BTreeMap<&'static str, f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grad_norm: Option<f64>,
    /// Over all processes.
    images_per_second: f64,
    /// Share of the time spent waiting for data, on average over all processes.
    data_wait: f64,
    /// That of each process, to find the slow ones.
    #[serde(skip_serializing_if = "<[f64]>::is_empty")]
    data_wait_by_rank: &'a [f64],
}

/// A run's numbers, over all processes. All of them call; rank 0 writes and shows.
pub struct RunLog {
    world: World,
    /// On rank 0.
    output: Option<Output>,
    plan: RunPlan,
    /// The step before, whose numbers may still be on the device.
    behind: Option<Measured>,
    window: Window,
    last: Step,
    /// Name and reason of files that can't be used, among those of training and of validation.
    unusable: [BTreeMap<String, String>; 2],
    reported_slow: HashSet<usize>,
}

/// Where numbers go.
struct Output {
    metrics: JsonlWriter,
    board: TensorBoardWriter,
    progress: Progress,
    corrupt_list: PathBuf,
}

impl Output {
    fn new(run: &RunDir, plan: &RunPlan) -> Result<Self> {
        let metrics = match plan.continued {
            true => JsonlWriter::resume(&run.metrics(), plan.done)?,
            false => JsonlWriter::create(&run.metrics())?,
        };
        // Purging names the first step that will be written again.
        let purged = plan.continued.then_some(plan.done + 1);
        let board = TensorBoardWriter::create(&run.tensorboard(), purged)?;
        let epochs = plan.total_steps.div_ceil(plan.steps_per_epoch);
        let progress = Progress::new(epochs, plan.total_steps, plan.done);
        Ok(Self { metrics, board, progress, corrupt_list: run.path().join("corrupt.txt") })
    }
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

impl RunLog {
    /// Files in the run's folder.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn new(world: &World, files: &RunFiles, plan: RunPlan) -> Result<Self> {
        let output = files.folder().map(|run| Output::new(run, &plan)).transpose();
        Ok(Self {
            world: world.clone(),
            output: world.agree(output)?,
            plan,
            behind: None,
            window: Window::new(),
            last: Step::default(),
            unusable: Default::default(),
            reported_slow: HashSet::new(),
        })
    }

    /// Whether a record follows this step.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.plan.log_steps) || step == self.plan.total_steps
    }

    /// Reads the step before from the device, and this one too if `now`, which is the same on all
    /// processes.
    ///
    /// # Errors
    /// [`crate::Error::Distributed`].
    pub fn measure(&mut self, measured: Measured, now: bool) -> Result<Vec<Settled>> {
        let mut ready: Vec<Measured> = self.behind.replace(measured).into_iter().collect();
        if now {
            ready.extend(self.behind.take());
        }
        ready.into_iter().map(|measured| measured.settle(&self.world)).collect()
    }

    /// Shows a step's progress and writes a record when one is due.
    ///
    /// # Errors
    /// [`crate::Error::Input`], [`crate::Error::Distributed`].
    pub fn step(&mut self, step: u64, taken: &Taken, settled: &[Settled]) -> Result<()> {
        let images = taken.images * self.world.size() as u64;
        self.window.images += images;
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
            images,
            wait: taken.waited,
        };
        if let Some(output) = &mut self.output {
            output.progress.step(&self.last);
        }
        if self.is_due(step) {
            self.record(step, taken, settled.last().and_then(|settled| settled.grad_norm))?;
        }
        self.window.pause_began = Some(Instant::now());
        Ok(())
    }

    fn record(&mut self, step: u64, taken: &Taken, grad_norm: Option<f64>) -> Result<()> {
        let mut window = std::mem::replace(&mut self.window, Window::new());
        let seconds = window.seconds();
        window.losses.values_mut().for_each(|loss| *loss /= window.settled as f64);
        let loss = window.losses.values().sum();
        window.losses.remove(TOTAL);
        let waits = self.waits(window.waited.as_secs_f64() / seconds)?;
        let Some(output) = &mut self.output else { return Ok(()) };
        let record = Record {
            step,
            epoch: step as f64 / self.plan.steps_per_epoch as f64,
            loss,
            parts: &window.losses,
            lr: taken.lr,
            more: taken.more.iter().copied().collect(),
            grad_norm,
            images_per_second: window.images as f64 / seconds,
            data_wait: waits.iter().sum::<f64>() / waits.len() as f64,
            data_wait_by_rank: if waits.len() > 1 { &waits } else { &[] },
        };
        output.metrics.write(&record)?;
        let board = &mut output.board;
        board.scalar("train/loss", step, loss)?;
        for (name, value) in record.parts.iter().chain(&record.more) {
            board.scalar(&format!("train/{name}"), step, *value)?;
        }
        board.scalar("train/lr", step, taken.lr)?;
        if let Some(norm) = grad_norm {
            board.scalar("train/grad_norm", step, norm)?;
        }
        board.scalar("speed/images_per_second", step, record.images_per_second)?;
        board.scalar("speed/data_wait", step, record.data_wait)
    }

    /// Every process's share of time that it waited for its data; `own` is this one's. Names, once
    /// each, those that keep the others waiting.
    fn waits(&mut self, own: f64) -> Result<Vec<f64>> {
        let waits: Vec<f64> = self.world.gather(&own)?;
        // All processes find the same ones slow, and so gather equally often.
        let mut slow = slow_ranks(&waits);
        slow.retain(|&rank| self.reported_slow.insert(rank));
        if !slow.is_empty() {
            let hosts = self.world.gather(&host_name())?;
            let percent = |share: f64| format!("{:.0} %", 100.0 * share);
            let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
            for rank in slow {
                self.note(&format!(
                    "rank {rank} on {} waits {} of its time for data, the quickest process {}: \
                     everybody waits for the slowest",
                    hosts[rank],
                    percent(waits[rank]),
                    percent(least),
                ));
            }
        }
        Ok(waits)
    }

    /// Writes a further line of `metrics.jsonl`.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn write<R: Serialize>(&mut self, record: &R) -> Result<()> {
        self.output.as_mut().map_or(Ok(()), |output| output.metrics.write(record))
    }

    /// Writes a number for TensorBoard.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn scalar(&mut self, tag: &str, step: u64, value: f64) -> Result<()> {
        self.output.as_mut().map_or(Ok(()), |output| output.board.scalar(tag, step, value))
    }

    /// Writes a picture, as PNG bytes, for TensorBoard.
    ///
    /// # Errors
    /// [`crate::Error::Input`].
    pub fn picture(&mut self, tag: &str, step: u64, png: &[u8]) -> Result<()> {
        self.output.as_mut().map_or(Ok(()), |output| output.board.image(tag, step, png))
    }

    /// Says something beside the progress.
    pub fn note(&mut self, text: &str) {
        if let Some(output) = &mut self.output {
            output.progress.note(text);
        }
    }

    /// Names training files that newly proved unreadable on any process, and lists all in the run.
    ///
    /// # Errors
    /// [`crate::Error::Input`], [`crate::Error::Distributed`].
    pub fn corrupt(&mut self, corrupt: &CorruptFiles) -> Result<()> {
        self.list_unusable(0, corrupt, "skipped")
    }

    /// As [`RunLog::corrupt`], for files that the scores of a validation are without.
    ///
    /// # Errors
    /// [`crate::Error::Input`], [`crate::Error::Distributed`].
    pub fn left_out_of_validation(&mut self, corrupt: &CorruptFiles) -> Result<()> {
        self.list_unusable(1, corrupt, "left out of validation:")
    }

    fn list_unusable(&mut self, kind: usize, corrupt: &CorruptFiles, what: &str) -> Result<()> {
        let report: BTreeMap<String, String> =
            self.world.gather(&corrupt.report())?.into_iter().flatten().collect();
        let Some(output) = &mut self.output else { return Ok(()) };
        if report.len() <= self.unusable[kind].len() {
            return Ok(());
        }
        for (name, why) in &report {
            if !self.unusable[kind].contains_key(name) {
                output.progress.note(&format!("{what} {name}: {why}"));
            }
        }
        self.unusable[kind] = report;
        let all = self.unusable.iter().flatten();
        let lines: String = all.map(|(name, why)| format!("{name}\t{why}\n")).collect();
        Ok(write_file(&output.corrupt_list, lines.as_bytes())?)
    }

    /// Ends the work between two steps, which rates leave out.
    pub fn skip_time(&mut self) {
        if let Some(began) = self.window.pause_began.take() {
            self.window.paused += began.elapsed();
        }
        if let Some(output) = &mut self.output {
            output.progress.skip_time();
        }
    }

    /// Shows where the run ended.
    pub fn finish(&mut self) {
        if let Some(output) = &mut self.output {
            output.progress.epoch_end(&self.last);
        }
    }
}

/// Processes that wait for their data both a fifth of the time and far longer than the quickest.
fn slow_ranks(waits: &[f64]) -> Vec<usize> {
    let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
    let slow = |wait: f64| wait > 0.2 && wait > 2.0 * least + 0.1;
    (0..waits.len()).filter(|&rank| slow(waits[rank])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_slow_beside_quick_ones_only() {
        assert_eq!(slow_ranks(&[0.01, 0.45, 0.02, 0.3]), [1, 3]);
        assert_eq!(slow_ranks(&[0.5, 0.6, 0.55]), [0usize; 0]);
        assert_eq!(slow_ranks(&[0.0, 0.15]), [0usize; 0]);
        assert_eq!(slow_ranks(&[0.9]), [0usize; 0]);
    }
}
