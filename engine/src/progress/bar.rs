//! Where it is shown how far something is.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::LINE_EVERY;

/// Places of the bar on a terminal.
const PLACES: f64 = 10_000.0;

/// A bar with a text on a terminal, lines of text every few seconds elsewhere.
pub struct Bar(Shown);

enum Shown {
    Bar(ProgressBar),
    Lines { to: Box<dyn Write + Send>, every: Duration, last: Option<Instant> },
}

impl Bar {
    /// On standard error, with nothing to show yet.
    pub fn new() -> Self {
        if !std::io::stderr().is_terminal() {
            return Self::of_lines(Box::new(std::io::stderr()), LINE_EVERY);
        }
        let style = ProgressStyle::with_template("{bar:24} {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        Self(Shown::Bar(ProgressBar::new(PLACES as u64).with_style(style)))
    }

    pub(super) fn of_lines(to: Box<dyn Write + Send>, every: Duration) -> Self {
        Self(Shown::Lines { to, every, last: None })
    }

    /// The first line comes no sooner than others do after each other.
    pub(super) fn waiting(mut self) -> Self {
        if let Shown::Lines { last, .. } = &mut self.0 {
            *last = Some(Instant::now());
        }
        self
    }

    /// Shows the share that is done, and a text about it.
    pub fn show(&mut self, share: f64, text: &str) {
        if let Shown::Bar(bar) = &self.0 {
            bar.set_position((share.clamp(0.0, 1.0) * PLACES) as u64);
        }
        self.tell(text);
    }

    /// The same, as a line whenever the last one was.
    pub(super) fn show_now(&mut self, share: f64, text: &str) {
        if let Shown::Lines { last, .. } = &mut self.0 {
            *last = None;
        }
        self.show(share, text);
    }

    /// Shows a text about the same share as before.
    pub(super) fn tell(&mut self, text: &str) {
        match &mut self.0 {
            Shown::Bar(bar) => bar.set_message(text.to_owned()),
            Shown::Lines { to, every, last } => {
                if last.is_none_or(|last| last.elapsed() >= *every) {
                    write_line(to, text);
                    *last = Some(Instant::now());
                }
            }
        }
    }

    /// Says something without tearing the bar.
    pub fn note(&mut self, text: &str) {
        match &mut self.0 {
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Shown::Lines { to, .. } => write_line(to, text),
        }
    }

    /// Whether it is a bar.
    pub(super) fn is_drawn(&self) -> bool {
        matches!(self.0, Shown::Bar(_))
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.0 {
            bar.finish_and_clear();
        }
    }

    /// Leaves the bar as it is and the cursor below it.
    pub(super) fn leave(self) {
        if let Shown::Bar(bar) = self.0 {
            bar.abandon();
        }
    }
}

impl Default for Bar {
    fn default() -> Self {
        Self::new()
    }
}

/// Whoever closed standard error does not want to read it.
fn write_line(to: &mut Box<dyn Write + Send>, text: &str) {
    let _ = writeln!(to, "{text}");
}
