//! From what a program makes of its settings to the end of its run.

use std::sync::Arc;

use anyhow::Result;
use data::Loader;

use crate::run_dir::display_path;

use super::{ResumeMode, Run, RunPlan, Task, Trainer};
use crate::settings::TrainSettings as _;

/// What a program makes of its settings before a run begins.
pub struct Setup<T: Task> {
    /// What differs from other programs.
    pub task: T,
    /// What is trained.
    pub trainer: Trainer,
    /// The task's part of a new run's state.
    pub state: T::State,
    /// What gives the batches.
    pub loader: Arc<Loader<T::Source>>,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Threads of CPU arithmetic.
    pub threads: usize,
    /// Says what is about to run, with so many threads.
    pub announce: fn(&Run<T>, &Loader<T::Source>, usize),
}

impl<T: Task> Setup<T> {
    /// Trains, and leaves weights, pictures and metrics in the run's folder. An interrupt (Ctrl-C,
    /// SIGTERM) saves a checkpoint and ends the run in order. All processes call; rank 0 writes.
    ///
    /// # Errors
    /// Anything that keeps the run from starting, unreadable images beyond the configured share, a
    /// loss or gradient that is not finite, a full disk; a run in object storage that isn't there
    /// whole in the end.
    pub fn train(self, start: &ResumeMode) -> Result<()> {
        let Self { task, trainer, state, loader, total_steps, threads, announce } = self;
        let run = Run::begin(task, trainer, start, state, (loader.steps(), total_steps))?;
        if run.trainer.world.is_main() {
            announce(&run, &loader, threads);
            if run.files.mirror().is_some()
                && let Some(folder) = run.files.folder()
            {
                eprintln!("working folder  {}", display_path(folder.path()));
            }
            let RunPlan { done, total_steps, .. } = run.plan;
            if done > 0 {
                eprintln!("resuming after step {done} of {total_steps}");
            }
        }
        let keep = run.task.settings().run().keep_checkpoints;
        let mirror = run.files.mirror().cloned();
        let outcome = run.fit(&loader);
        match mirror {
            Some(mirror) => mirror.finish(outcome, keep),
            None => outcome,
        }
    }
}
