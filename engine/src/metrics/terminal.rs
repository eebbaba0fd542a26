//! Progress and notes on the terminal.

use super::LogSink;
use crate::progress::{Progress, Step};

/// Shows a run's progress on standard error.
pub struct TerminalSink {
    progress: Progress,
    last: Step,
}

impl TerminalSink {
    /// Of a run of `epochs` epochs and `steps` steps altogether, `done` of which an earlier process
    /// has made.
    pub fn new(epochs: u64, steps: u64, done: u64) -> Self {
        Self { progress: Progress::new(epochs, steps, done), last: Step::default() }
    }
}

impl LogSink for TerminalSink {
    fn log_step(&mut self, step: &Step) {
        self.progress.step(step);
        self.last = step.clone();
    }

    fn log_note(&mut self, text: &str) {
        self.progress.note(text);
    }

    fn log_waiting(&mut self, text: &str) {
        self.progress.waiting(text);
    }

    fn log_doing(&mut self, what: &str) {
        self.progress.doing(what);
    }

    fn skip_time(&mut self) {
        self.progress.skip_time();
    }

    fn finish(&mut self) {
        self.progress.epoch_end(&self.last);
    }
}
