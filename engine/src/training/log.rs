//! Numbers of a run, gathered over all processes and given to the run's sinks.

mod unusable;
mod window;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::value::to_raw_value;

use self::unusable::{Split, UnusableFiles};
use self::window::Window;
use super::{PendingMetrics, RunWriter, StepMetrics};
use crate::distributed::{ProcessGroup, host_name};
use crate::metrics::{JsonlWriter, LogSink, TensorBoardWriter, TerminalSink, TrainRecord};
use crate::progress::Step;
use crate::run_dir::RunDir;
use crate::{Error, Result};
use data::CorruptFiles;

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
pub struct StepInfo<'a> {
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

/// A run's numbers, over all processes. All of them call; rank 0 has the sinks.
pub struct RunLog {
    world: ProcessGroup,
    /// Empty but on rank 0.
    sinks: Vec<Box<dyn LogSink>>,
    plan: RunPlan,
    /// Steps made: what everything is logged at.
    step: u64,
    /// The step before, whose numbers may still be on the device.
    pending: Option<PendingMetrics>,
    window: Window,
    /// On rank 0.
    unusable: Option<UnusableFiles>,
    reported_slow: HashSet<usize>,
    /// When another process than rank 0 last said that it waits.
    said_waiting: Option<Instant>,
}

/// How often another process than rank 0 says that it waits for data.
const SAY_WAITING: Duration = Duration::from_secs(10);

/// The sinks of every run: `metrics.jsonl`, TensorBoard and the terminal.
fn open_sinks(run: &RunDir, plan: &RunPlan) -> Result<Vec<Box<dyn LogSink>>> {
    let jsonl = match plan.continued {
        true => JsonlWriter::resume(&run.metrics(), plan.done)?,
        false => JsonlWriter::create(&run.metrics())?,
    };
    // Purging names the first step that will be written again.
    let purged = plan.continued.then_some(plan.done + 1);
    let board = TensorBoardWriter::create(&run.tensorboard(), purged)?;
    let epochs = plan.total_steps.div_ceil(plan.steps_per_epoch);
    let terminal = TerminalSink::new(epochs, plan.total_steps, plan.done);
    Ok(vec![Box::new(jsonl), Box::new(board), Box::new(terminal)])
}

impl RunLog {
    /// Opens the sinks in the run's folder.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn new(world: &ProcessGroup, files: &RunWriter, plan: RunPlan) -> Result<Self> {
        let sinks = files.folder().map(|run| open_sinks(run, &plan)).transpose();
        let mut window = Window::new();
        // Rates leave out what comes before the first step.
        window.pause();
        Ok(Self {
            world: world.clone(),
            sinks: world.all_ok(sinks)?.unwrap_or_default(),
            plan,
            step: plan.done,
            pending: None,
            window,
            unusable: files.folder().map(|run| UnusableFiles::new(run.path().join("corrupt.txt"))),
            reported_slow: HashSet::new(),
            said_waiting: None,
        })
    }

    /// Adds a sink of the caller's; of no use but on rank 0.
    pub fn add_sink(&mut self, sink: Box<dyn LogSink>) {
        if self.world.is_main() {
            self.sinks.push(sink);
        }
    }

    /// Whether a record follows this step.
    pub fn is_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.plan.log_steps) || step == self.plan.total_steps
    }

    /// Reads the step before from the device, and this one too if `now`, which is the same on all
    /// processes.
    ///
    /// # Errors
    /// [`Error::Distributed`].
    pub fn collect(&mut self, metrics: PendingMetrics, now: bool) -> Result<Vec<StepMetrics>> {
        let mut ready: Vec<PendingMetrics> = self.pending.replace(metrics).into_iter().collect();
        if now {
            ready.extend(self.pending.take());
        }
        ready.into_iter().map(|metrics| metrics.settle(&self.world)).collect()
    }

    /// Tells the sinks of a step, and gives them a record when one is due.
    ///
    /// # Errors
    /// [`Error::Distributed`], or a sink's.
    pub fn step(&mut self, step: u64, info: &StepInfo, metrics: &[StepMetrics]) -> Result<()> {
        self.step = step;
        let images = info.images * self.world.size() as u64;
        self.window.add(images, info.waited, metrics);
        let progress = Step {
            epoch: info.epoch,
            loss: metrics.last().map(StepMetrics::loss),
            lr: info.lr,
            images,
            wait: info.waited,
        };
        self.sinks.iter_mut().for_each(|sink| sink.log_step(&progress));
        if self.is_due(step) {
            self.record(info, metrics.last().and_then(|metrics| metrics.grad_norm))?;
        }
        self.window.pause();
        Ok(())
    }

    fn record(&mut self, info: &StepInfo, grad_norm: Option<f64>) -> Result<()> {
        let means = std::mem::replace(&mut self.window, Window::new()).means();
        let waits = self.waits(means.data_wait)?;
        let record = TrainRecord {
            step: self.step,
            epoch: self.step as f64 / self.plan.steps_per_epoch as f64,
            loss: means.loss,
            parts: &means.parts,
            lr: info.lr,
            more: info.more.iter().copied().collect(),
            grad_norm,
            images_per_second: means.images_per_second,
            data_wait: waits.iter().sum::<f64>() / waits.len() as f64,
            data_wait_by_rank: if waits.len() > 1 { &waits } else { &[] },
        };
        self.sinks.iter_mut().try_for_each(|sink| sink.log_train(&record))
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

    /// Gives the sinks a further record: an object with an integer `step`.
    ///
    /// # Errors
    /// [`Error::Input`] if it is none, or a sink's.
    pub fn write<R: Serialize>(&mut self, record: &R) -> Result<()> {
        if self.sinks.is_empty() {
            return Ok(());
        }
        let json = to_raw_value(record)
            .map_err(|e| Error::invalid("a metrics record", "not serializable", e.to_string()))?;
        self.sinks.iter_mut().try_for_each(|sink| sink.log_record(&json))
    }

    /// Gives the sinks a number, at the last step made: a run that resumes replaces what was
    /// logged after its checkpoint, and knows it by its step.
    ///
    /// # Errors
    /// A sink's.
    pub fn scalar(&mut self, tag: &str, value: f64) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.log_scalar(self.step, tag, value))
    }

    /// Gives the sinks a picture, as PNG bytes, at the last step made.
    ///
    /// # Errors
    /// A sink's.
    pub fn image(&mut self, tag: &str, png: &[u8]) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.log_image(self.step, tag, png))
    }

    /// Says that this process has waited so long for data, and for which; every process may call.
    pub fn waiting(&mut self, time: Duration, what: &str) {
        if self.world.is_main() {
            let text = format!("waits {} s for data: {what}", time.as_secs());
            self.sinks.iter_mut().for_each(|sink| sink.log_waiting(&text));
        } else if time >= SAY_WAITING
            && self.said_waiting.is_none_or(|said| said.elapsed() >= SAY_WAITING)
        {
            self.said_waiting = Some(Instant::now());
            let (rank, host) = (self.world.rank(), host_name());
            eprintln!("rank {rank} on {host} waits {} s for data: {what}", time.as_secs());
        }
    }

    /// Says something to whoever watches.
    pub fn note(&mut self, text: &str) {
        self.sinks.iter_mut().for_each(|sink| sink.log_note(text));
    }

    /// Says that `what` is being done, until the next step is.
    pub fn doing(&mut self, what: &str) {
        self.sinks.iter_mut().for_each(|sink| sink.log_doing(what));
    }

    /// Names training files that newly proved unreadable on any process, and lists all in the run.
    ///
    /// # Errors
    /// [`Error::Input`], [`Error::Distributed`].
    pub fn corrupt(&mut self, corrupt: &CorruptFiles) -> Result<()> {
        self.list_unusable(Split::Training, corrupt, "skipped").map(|_| ())
    }

    /// As [`RunLog::corrupt`], for files that the scores of a validation are without. Each process
    /// reads a part of them: the share allowed holds for all parts together.
    ///
    /// # Errors
    /// [`Error::Input`], also for more files than allowed; [`Error::Distributed`].
    pub fn left_out_of_validation(&mut self, corrupt: &CorruptFiles) -> Result<()> {
        let report = self.list_unusable(Split::Validation, corrupt, "left out of validation:")?;
        Ok(corrupt.check(&report)?)
    }

    /// Names the new ones; all those of all processes.
    fn list_unusable(
        &mut self,
        split: Split,
        corrupt: &CorruptFiles,
        what: &str,
    ) -> Result<BTreeMap<String, String>> {
        let parts = self.world.gather(&corrupt.report())?;
        let report: BTreeMap<String, String> = parts.into_iter().flatten().collect();
        if let Some(unusable) = &mut self.unusable {
            for (name, why) in unusable.update(split, report.clone())? {
                self.note(&format!("{what} {name}: {why}"));
            }
        }
        Ok(report)
    }

    /// Ends the work between two steps, or before the first one, which rates leave out.
    pub fn skip_time(&mut self) {
        self.window.resume();
        self.sinks.iter_mut().for_each(|sink| sink.skip_time());
    }

    /// Tells the sinks that the run has ended.
    pub fn finish(&mut self) {
        self.sinks.iter_mut().for_each(|sink| sink.finish());
    }
}

/// Processes that wait for their data both a fifth of the time and far longer than the quickest.
fn slow_ranks(waits: &[f64]) -> Vec<usize> {
    let least = waits.iter().copied().fold(f64::INFINITY, f64::min);
    let slow = |wait: f64| wait > 0.2 && wait > 2.0 * least + 0.1;
    (0..waits.len()).filter(|&rank| slow(waits[rank])).collect()
}

#[cfg(test)]
mod tests;
