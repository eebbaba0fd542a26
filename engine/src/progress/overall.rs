//! How far work of several parts is.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::LINE_EVERY;

/// Places of the bar.
const PLACES: u64 = 10_000;

/// Shows which share of everything is done, in the words of whoever does it: a bar on a terminal,
/// lines of text every few seconds elsewhere.
pub struct Overall {
    bar: Option<ProgressBar>,
    last_line: Option<Instant>,
}

impl Overall {
    /// With nothing to show yet.
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{bar:24} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(PLACES).with_style(style)
        });
        Self { bar, last_line: None }
    }

    /// Shows the share that is done, and a line about it.
    pub fn show(&mut self, share: f64, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position((share.clamp(0.0, 1.0) * PLACES as f64) as u64);
                bar.set_message(text.to_owned());
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) => {
                eprintln!("{text}");
                self.last_line = Some(Instant::now());
            }
            None => {}
        }
    }

    /// Says something without tearing the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Overall {
    fn default() -> Self {
        Self::new()
    }
}
