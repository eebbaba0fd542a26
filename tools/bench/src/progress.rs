//! How far the measurements are, and how long they will take.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::duel::Observer;

/// Parts a duel's share of the bar is counted in.
const FINE: f64 = 100.0;

/// A bar on a terminal, lines elsewhere. Each duel has as much of it as it is
/// expected to take of the time.
pub(crate) struct Progress {
    bar: ProgressBar,
    terminal: bool,
    started: Instant,
    name: String,
    /// Expected seconds: of all duels, of those done, of this one.
    total: f64,
    done: f64,
    current: f64,
}

impl Progress {
    /// For duels that are expected to take `total` seconds.
    pub fn new(total: f64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some((total * FINE) as u64), target);
        let style = ProgressStyle::with_template("{bar:24} {msg}");
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let (name, started) = (String::new(), Instant::now());
        Self { bar, terminal, started, name, total, done: 0.0, current: 0.0 }
    }

    /// The duel `name` begins, expected to take `seconds`.
    pub fn begin(&mut self, name: &str, seconds: f64) {
        self.done += self.current;
        self.current = seconds;
        name.clone_into(&mut self.name);
    }

    /// Says something without tearing the bar.
    pub fn note(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    /// Takes the bar away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }

    fn left(&self, done: f64) -> Option<Duration> {
        let spent = self.started.elapsed().as_secs_f64();
        // The first duel's inputs say nothing about the pace of the rest.
        let known = done > 0.02 * self.total;
        known.then(|| Duration::from_secs_f64(spent / done * (self.total - done).max(0.0)))
    }
}

impl Observer for Progress {
    fn at(&mut self, what: &str, share: f64) {
        let done = self.done + share * self.current;
        let left = self.left(done).map(|left| format!(", about {} left", HumanDuration(left)));
        let message = format!("{}: {what}{}", self.name, left.unwrap_or_default());
        if !self.terminal {
            eprintln!("{message}");
        }
        self.bar.set_position((done * FINE) as u64);
        self.bar.set_message(message);
    }
}
