//! The training loop of every program.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use data::{Batch, Batches, Loader, Source};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::Device;

use super::auto::Rule;
use super::estimate::{self, Estimate};
use super::log::RunLog;
use super::{
    Criterion, Losses, Rates, Run, RunPlan, RunState, RunWriter, StepInfo, Trainer, check_finite,
};
use crate::checkpoint::CheckpointTags;
use crate::interrupt::watch_for_interrupts;
use crate::metrics::drop_evaluation;
use crate::run_dir::RunDir;
use crate::settings::TrainSettings;

/// After how long it is said that a step waits for its data.
const LONG_WAIT: Duration = Duration::from_secs(2);

/// A batch as a source loads it.
pub type BatchOf<S> = Batch<<S as Source>::Images>;

/// The state of a task's run.
pub type StateOf<T> = RunState<<T as Task>::Settings, <T as Task>::State>;

/// What a program trains: what differs between the programs, and no more.
pub trait Task {
    /// What loads the batches.
    type Source: Source;
    /// What is computed at a time.
    type MicroBatch;
    /// Settings of a run.
    type Settings: TrainSettings;
    /// What the preset `auto` chooses settings by.
    type Rule: Rule<Settings = Self::Settings>;
    /// What a checkpoint knows of the task.
    type State: Clone + Serialize + DeserializeOwned;

    /// The command that continues a run.
    const COMMAND: &'static str;
    /// What may help against a loss that is not finite.
    const ADVICE: &'static str;
    /// What makes a run that is too long for a processor shorter.
    const SHORTER: &'static str;
    /// What the best checkpoint is chosen by.
    const CRITERION: Criterion;

    /// The run's settings.
    fn settings(&self) -> &Self::Settings;

    /// Loads the weight files that the settings name into the model, for a new run.
    ///
    /// # Errors
    /// Weights that do not fit.
    fn load_initial_weights(&self, state: &StateOf<Self>) -> Result<()>
    where
        Self: Sized;

    /// Whether the run can go on from a checkpoint at `path` with the state `saved`; takes the
    /// task's part of it over into `state`.
    ///
    /// # Errors
    /// A checkpoint of another task, such as of other classes.
    fn resume(&self, path: &Path, saved: &StateOf<Self>, state: &mut StateOf<Self>) -> Result<()>
    where
        Self: Sized;

    /// Says what else changes when a run that another number of processes began goes on, if
    /// anything does.
    fn warn_world_size_changed(&self) {}

    /// Decides what is still open before the steps that follow, once all is loaded. All processes
    /// call; the weights, and everything else that is trained, are left as they are.
    ///
    /// # Errors
    /// Whatever keeps the steps from being made.
    fn begin(
        &mut self,
        _trainer: &Trainer,
        _state: &mut StateOf<Self>,
        _run: &mut RunOutput,
    ) -> Result<()>
    where
        Self: Sized,
    {
        Ok(())
    }

    /// Cuts the batch of step `step` (from 0) into micro-batches of the trainer's size.
    ///
    /// # Errors
    /// A batch that makes no tensor.
    fn micro_batches(
        &self,
        trainer: &Trainer,
        batch: BatchOf<Self::Source>,
        step: u64,
    ) -> Result<Vec<Self::MicroBatch>>;

    /// The losses of a micro-batch. All draws depend on the sample alone.
    ///
    /// # Errors
    /// Those of the forward pass.
    fn losses(&self, trainer: &Trainer, micro_batch: Self::MicroBatch) -> Result<Losses>;

    /// Learning rate and weight decay of step `step` (from 0).
    fn rates(&self, plan: &RunPlan, step: u64) -> Rates;

    /// Whether the run is evaluated here, after the checkpoint is saved.
    fn evaluation_due(&self, at: &Position) -> bool;

    /// What all evaluations after `done` steps take, by the images of training that take as long.
    fn evaluation_images(&self, _plan: &RunPlan, _done: u64) -> f64 {
        0.0
    }

    /// Evaluates, and draws what is to be seen.
    ///
    /// # Errors
    /// Those of the evaluation; the last checkpoint goes on with it.
    fn evaluate(
        &mut self,
        trainer: &mut Trainer,
        state: &mut StateOf<Self>,
        run: &mut RunOutput,
        at: &Position,
    ) -> Result<Scores>
    where
        Self: Sized;

    /// Exports what was learned, on rank 0.
    ///
    /// # Errors
    /// Files that cannot be written.
    fn finish(&mut self, trainer: &mut Trainer, state: &StateOf<Self>, run: &RunDir) -> Result<()>
    where
        Self: Sized;
}

/// What an evaluation found, the higher the better; none of what was not scored.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Scores {
    /// Of the weights.
    pub model: Option<f64>,
    /// Of their averages.
    pub ema: Option<f64>,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// Steps made.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// The epoch (from 1) that this step ended, if it did.
    pub ended_epoch: Option<u64>,
    /// Epochs that have begun.
    pub epoch: u64,
}

impl Position {
    /// Whether this was the last step.
    pub fn is_last(&self) -> bool {
        self.step == self.total_steps
    }

    /// Whether it is the end of the run, of every `epochs`th epoch or of every `steps`th step; 0 is
    /// never.
    pub fn is_due(&self, epochs: u64, steps: u64) -> bool {
        self.is_last()
            || self.ended_epoch.is_some_and(|epoch| epochs > 0 && epoch.is_multiple_of(epochs))
            || steps > 0 && self.step.is_multiple_of(steps)
    }
}

impl RunPlan {
    /// Where the run stands after `step` steps.
    pub fn position(&self, step: u64) -> Position {
        let ended = step > 0 && step.is_multiple_of(self.steps_per_epoch);
        let epoch = step.div_ceil(self.steps_per_epoch);
        let ended_epoch = ended.then_some(epoch);
        Position { step, total_steps: self.total_steps, ended_epoch, epoch }
    }

    /// Where the run stands at each end of an epoch after `done` steps, and at its own.
    pub fn epochs_after(&self, done: u64) -> impl Iterator<Item = Position> {
        let epochs = done / self.steps_per_epoch + 1..=self.total_steps / self.steps_per_epoch;
        let rest = !self.total_steps.is_multiple_of(self.steps_per_epoch);
        let last = (rest && self.total_steps > done).then_some(self.total_steps);
        epochs.map(|epoch| epoch * self.steps_per_epoch).chain(last).map(|step| self.position(step))
    }
}

/// What an image takes in evaluation, of what it takes in training: a pass forward of the two or
/// three that this is.
pub const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// Where a run writes: its files and its log.
pub struct RunOutput {
    /// Folder and checkpoints.
    pub files: RunWriter,
    /// Numbers, pictures, progress.
    pub log: RunLog,
}

/// An epoch's line of `metrics.jsonl`.
#[derive(Serialize)]
struct EpochRecord {
    step: u64,
    finished_epoch: u64,
    epoch_loss: f64,
}

impl<T: Task> Run<T> {
    /// Trains to the end of `plan`. After each step, in this order: numbers are read from the device
    /// and must be finite; batch-norm statistics are made the same on all processes and the checkpoint
    /// is saved; the run is evaluated and saved with what that says of it; an interrupt (Ctrl-C,
    /// SIGTERM) ends it. All processes call; rank 0 writes.
    ///
    /// # Errors
    /// Those of the task; unreadable images beyond the allowed share, a loss or gradient that is not
    /// finite, a full disk.
    pub fn fit(self, loader: &Loader<T::Source>) -> Result<()> {
        let Self { mut task, mut trainer, mut state, files, plan } = self;
        let (task, trainer) = (&mut task, &mut trainer);
        let interrupted = watch_for_interrupts()?;
        let world = trainer.world.clone();
        let settings = task.settings().run().clone();
        let reevaluated = files.folder().filter(|_| state.evaluation_pending && plan.continued);
        world.all_ok(
            reevaluated.map_or(Ok(()), |run| drop_evaluation(&run.metrics(), state.step)),
        )?;
        let log = RunLog::new(&world, &files, plan)?;
        let mut run = RunOutput { files, log };
        task.begin(trainer, &mut state, &mut run)?;
        if state.evaluation_pending {
            let at = plan.position(state.step);
            evaluate(task, trainer, &mut state, &mut run, &at)?;
        }
        run.log.doing("first step");
        let foreseen = estimate::foresee(task, trainer, loader, &plan, state.step);
        if let Some(step) = world.all_ok(foreseen)? {
            run.log.note(&estimate::told(task, trainer, &plan, step, state.step));
        }
        let mut estimate = Estimate::new();
        run.log.skip_time();
        let mut begun = Instant::now();

        let (epoch, step_in_epoch) =
            (state.step / plan.steps_per_epoch, state.step % plan.steps_per_epoch);
        let epochs = epoch..plan.total_steps.div_ceil(plan.steps_per_epoch).max(epoch);
        let steps_left = plan.total_steps.saturating_sub(state.step) as usize;
        let mut batches = loader.batches(epochs, step_in_epoch);
        for _ in 0..steps_left {
            wait_for_data(&mut batches, &mut run.log);
            let Some(batch) = batches.next() else { break };
            let mut batch = batch?;
            let rates = task.rates(&plan, state.step);
            let indices = std::mem::take(&mut batch.indices);
            let more = [("weight_decay", rates.weight_decay)];
            let info = StepInfo {
                epoch: batch.epoch + 1,
                images: indices.len() as u64,
                waited: batch.waited,
                lr: rates.lr,
                more: &more,
            };
            world.set_step(state.step + 1);
            let micro_batches = task.micro_batches(trainer, batch, state.step)?;
            let losses = |trainer: &Trainer, micro_batch| task.losses(trainer, micro_batch);
            let number = state.step + 1;
            let pending = trainer.step(micro_batches, rates, (number, indices), losses)?;

            state.step += 1;
            let at = plan.position(state.step);
            let stop = world.any(interrupted.load(Ordering::Relaxed))?;
            let evaluation_due = task.evaluation_due(&at);
            let checkpoint_due = stop
                || evaluation_due
                || at.is_due(settings.checkpoint_epochs, settings.checkpoint_steps);
            let sync = checkpoint_due || at.ended_epoch.is_some() || run.log.is_due(state.step);

            // The host waits for the device here, and only when it must: a CPU has the numbers at
            // hand, a GPU is otherwise read one step behind.
            let collected = run.log.collect(pending, sync || trainer.device == Device::Cpu)?;
            for metrics in &collected {
                let name = |index| loader.source().name(index);
                check_finite(&world, metrics, &run.files, name, T::ADVICE)?;
                state.count_loss(metrics.loss());
            }
            run.log.step(state.step, &info, &collected)?;
            let notes = run.files.mirror().map(|mirror| mirror.notes()).unwrap_or_default();
            notes.iter().for_each(|note| run.log.note(note));
            if let Some(step) = estimate.step(begun.elapsed()) {
                run.log.note(&estimate::told(task, trainer, &plan, step, state.step));
            }

            let mut tags = CheckpointTags::default();
            if let Some((epoch, loss)) =
                at.ended_epoch.and_then(|epoch| Some((epoch, state.end_epoch()?)))
            {
                run.log.write(&EpochRecord {
                    step: at.step,
                    finished_epoch: epoch,
                    epoch_loss: loss,
                })?;
                run.log.scalar("epoch/loss", loss)?;
                tags.epoch = Some(epoch).filter(|_| settings.keep_checkpoints > 0);
                tags.best = checkpoint_due
                    && T::CRITERION == Criterion::EpochLoss
                    && T::CRITERION.update_best(Some(loss), &mut state.best);
            }
            if at.ended_epoch.is_some() || evaluation_due {
                run.log.corrupt(loader.corrupt_files())?;
            }
            if checkpoint_due {
                trainer.broadcast_bn_stats()?;
                state.evaluation_pending = evaluation_due;
                save(trainer, &mut state, &run.files, tags, settings.keep_checkpoints)?;
            }
            if evaluation_due {
                evaluate(task, trainer, &mut state, &mut run, &at)?;
            }
            if stop && !at.is_last() {
                run.log.finish();
                bail!(
                    "interrupted after step {} of {}; continue with: {} --output {} --resume",
                    at.step,
                    at.total_steps,
                    T::COMMAND,
                    settings.output.display()
                );
            }
            run.log.skip_time();
            begun = Instant::now();
        }
        run.log.finish();
        let finished = run.files.folder().map_or(Ok(()), |run| task.finish(trainer, &state, run));
        world.all_ok(finished)
    }
}

/// Waits for the next batch, and says so where that takes long.
fn wait_for_data<S: Source>(batches: &mut Batches<S>, log: &mut RunLog) {
    let begun = Instant::now();
    while !batches.is_ready_within(LONG_WAIT) {
        let what = batches.waits_for().unwrap_or_else(|| "the first images".to_owned());
        log.waiting(begun.elapsed(), &what);
    }
}

/// Evaluates, and saves the checkpoint with what that says of it.
fn evaluate<T: Task>(
    task: &mut T,
    trainer: &mut Trainer,
    state: &mut StateOf<T>,
    run: &mut RunOutput,
    at: &Position,
) -> Result<()> {
    let scores = task.evaluate(trainer, state, run, at)?;
    let keep = task.settings().run().keep_checkpoints;
    let by_score = T::CRITERION == Criterion::Score;
    let tags = CheckpointTags {
        epoch: at.ended_epoch.filter(|_| keep > 0),
        best: by_score && T::CRITERION.update_best(scores.model, &mut state.best),
        best_ema: by_score && T::CRITERION.update_best(scores.ema, &mut state.best_ema),
    };
    state.evaluation_pending = false;
    save(trainer, state, &run.files, tags, keep)
}

fn save<C: Serialize, T: Serialize>(
    trainer: &Trainer,
    state: &mut RunState<C, T>,
    files: &RunWriter,
    tags: CheckpointTags,
    keep: usize,
) -> Result<()> {
    state.scaler = trainer.scaler.clone();
    Ok(files.save(tags, &trainer.sections(), state, keep)?)
}
