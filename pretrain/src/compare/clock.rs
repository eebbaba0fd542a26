//! How far a comparison is.

use engine::progress::Bar;

use super::plan::Plan;
use super::results::Progress;
use super::runs::{PRETRAINING, Tuning};
use super::words;

/// How far everything is, and how long it will still take.
pub struct Clock {
    /// Where it is shown.
    pub shown: Bar,
    /// Seconds that were expected of what was done by this process, and that it took.
    expected: f64,
    took: f64,
    /// Seconds expected of what is not finished, the present run included.
    left: f64,
    /// Seconds expected of everything.
    all: f64,
}

impl Clock {
    /// At the beginning of what is not finished.
    pub fn new(
        plan: &Plan,
        progress: &Progress,
        tunings: &[Tuning],
        expected: impl Fn(&Tuning) -> f64,
    ) -> Self {
        let mut left = match progress.finished.contains_key(PRETRAINING) {
            true => 0.0,
            false => plan.seconds.pretraining,
        };
        let open = |tuning: &&Tuning| !progress.finished.contains_key(&tuning.name());
        left += tunings.iter().filter(open).map(expected).sum::<f64>();
        Self { shown: Bar::new(), expected: 0.0, took: 0.0, left, all: plan.seconds.all }
    }

    /// Shows a run at `step` of `steps`, which was expected to take `expected` seconds.
    pub fn show(&mut self, title: &str, (step, steps): (u64, u64), seconds: f64, expected: f64) {
        let part = step as f64 / steps.max(1) as f64;
        let (took, as_expected) = (self.took + seconds, self.expected + part * expected);
        // What was measured holds until there is more to go by.
        let pace =
            if part > 0.05 || self.expected > 0.0 { took / as_expected.max(1e-9) } else { 1.0 };
        let left = (self.left - part * expected).max(0.0);
        let done = 1.0 - left / self.all.max(1e-9);
        let text = format!("{title}  step {step}/{steps}  left {}", words::clock(left * pace));
        self.shown.show(done, &text);
    }

    /// Counts a run as over.
    pub fn count(&mut self, seconds: f64, expected: f64) {
        self.took += seconds;
        self.expected += expected;
        self.left = (self.left - expected).max(0.0);
    }
}
