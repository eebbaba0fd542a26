//! A section's side of the protocol: lines of JSON on standard output, one when a check begins and
//! one when it has ended.

use std::any::Any;
use std::borrow::Cow;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::Result;
use data::names::abbreviated;
use serde::{Deserialize, Serialize};

use crate::report::{Item, Status, Tolerance};

/// What a section tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The check of this name begins.
    Begin(String),
    /// A check has ended.
    End(Item),
}

/// What a check finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// A figure that something is asked of.
    Judged {
        /// What was found.
        figure: f64,
        /// What it counts; empty for a difference in proportion.
        unit: &'static str,
        /// What is asked of it.
        tolerance: Tolerance,
        /// Where it was found.
        note: String,
    },
    /// A figure that nothing is asked of.
    Measured {
        /// What was found.
        figure: f64,
        /// What it counts.
        unit: &'static str,
        /// How it was found.
        note: String,
    },
    /// Nothing, for this reason.
    Skipped(String),
}

impl Finding {
    /// A difference in proportion, found where `note` says.
    pub fn apart(figure: f64, tolerance: Tolerance, note: impl Into<String>) -> Self {
        Self::Judged { figure, unit: "", tolerance, note: note.into() }
    }

    fn item(self, name: &str) -> Item {
        let (status, figure, unit, tolerance, note) = match self {
            Self::Judged { figure, unit, tolerance, note } => {
                // Not a number is no pass.
                let passed = figure <= tolerance.most;
                let status = if passed { Status::Passed } else { Status::Failed };
                (status, Some(figure), unit, Some(tolerance), note)
            }
            Self::Measured { figure, unit, note } => {
                (Status::Measured, Some(figure), unit, None, note)
            }
            Self::Skipped(why) => (Status::Skipped, None, "", None, why),
        };
        let (name, unit) = (name.to_owned(), Cow::Borrowed(unit));
        // JSON has no such numbers.
        let figure = figure.filter(|figure| figure.is_finite());
        Item { name, status, figure, unit, tolerance, note, seconds: 0.0 }
    }
}

/// Runs checks and tells of them.
#[derive(Debug, Default)]
pub struct Recorder(());

impl Recorder {
    /// Runs the check `name`. What it fails with, a panic too, is its result.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> Result<Finding>) {
        tell(&Event::Begin(name.to_owned()));
        let begun = Instant::now();
        // What a check that panicked leaves behind is not looked at.
        let item = match catch_unwind(AssertUnwindSafe(body)) {
            Ok(Ok(finding)) => finding.item(name),
            Ok(Err(error)) => {
                Item::without_figure(name, Status::Failed, first_lines(&format!("{error:#}")))
            }
            Err(panic) => Item::without_figure(name, Status::Failed, said(panic.as_ref())),
        };
        tell(&Event::End(Item { seconds: begun.elapsed().as_secs_f64(), ..item }));
    }

    /// Says that `name` is not tried.
    pub fn skip(&mut self, name: &str, why: impl Into<String>) {
        tell(&Event::End(Item::without_figure(name, Status::Skipped, why)));
    }
}

fn tell(event: &Event) {
    let line = serde_json::to_string(event).expect("an event is JSON");
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
        // Nobody listens any more.
        std::process::exit(1);
    }
}

/// What a panic said.
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    first_lines(text.unwrap_or("it panicked without a word"))
}

/// A message without libtorch's backtrace, cut where it becomes a book.
fn first_lines(text: &str) -> String {
    const MOST: usize = 400;
    let text = text.split("\nException raised from").next().unwrap_or(text).trim();
    abbreviated(text, MOST).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_judged_and_what_is_no_number_does_not_pass() {
        const MOST: Tolerance = Tolerance::new(1e-3, "rounding");
        let status = |figure: f64| Finding::apart(figure, MOST, "").item("x").status;
        assert_eq!(status(1e-3), Status::Passed);
        assert_eq!(status(2e-3), Status::Failed);
        assert_eq!(status(f64::NAN), Status::Failed);
        assert_eq!(Finding::apart(f64::INFINITY, MOST, "").item("x").figure, None);
        assert_eq!(Finding::Skipped("why".into()).item("x").note, "why");
    }

    #[test]
    fn messages_are_told_without_backtraces() {
        assert_eq!(first_lines("no memory\nException raised from malloc at …"), "no memory");
        assert_eq!(first_lines(&"ä".repeat(500)), "ä".repeat(400) + "…");
        assert_eq!(said(&"boom"), "boom");
    }
}
