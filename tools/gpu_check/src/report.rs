//! What was found, as JSON for programs and as tables for people.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use engine::outputs::make_folder;
use serde::{Deserialize, Serialize};

use crate::facts::Facts;

/// The form of `report.json`.
pub const FORMAT: u32 = 1;

/// How far a figure may go, and why no less would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// The largest figure that passes.
    pub most: f64,
    /// Where such a difference comes from.
    pub reason: Cow<'static, str>,
}

impl Tolerance {
    /// `most`, because of `reason`.
    pub const fn new(most: f64, reason: &'static str) -> Self {
        Self { most, reason: Cow::Borrowed(reason) }
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The figure is within its tolerance.
    Passed,
    /// It is not, or there is none.
    Failed,
    /// A figure that nothing is asked of.
    Measured,
    /// It was not tried; the note says why.
    Skipped,
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Measured => "measured",
            Self::Skipped => "skipped",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Unique in its section.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// What was found; none where nothing was.
    pub figure: Option<f64>,
    /// What the figure counts; empty for a difference in proportion.
    pub unit: Cow<'static, str>,
    /// What is asked of it.
    pub tolerance: Option<Tolerance>,
    /// Where the figure was found, or why there is none.
    pub note: String,
    /// How long it took.
    pub seconds: f64,
}

impl Item {
    /// A check that ended without a figure.
    pub fn without_figure(name: &str, status: Status, note: impl Into<String>) -> Self {
        let (name, note) = (name.to_owned(), note.into());
        Self { name, status, figure: None, unit: "".into(), tolerance: None, note, seconds: 0.0 }
    }

    /// A line for the terminal.
    pub fn line(&self) -> String {
        let mut line = format!("{:<8} {}", self.status.word(), self.name);
        if let Some(figure) = self.figure {
            let _ = write!(line, "  {}", shown(figure, &self.unit));
        }
        if let Some(tolerance) = &self.tolerance {
            let _ = write!(line, " (at most {})", shown(tolerance.most, &self.unit));
        }
        if !self.note.is_empty() {
            let _ = write!(line, "  {}", self.note);
        }
        line
    }
}

/// A figure as people read it.
fn shown(figure: f64, unit: &str) -> String {
    match unit {
        "" => format!("{figure:.1e}"),
        unit if figure.fract() == 0.0 && figure.abs() < 1e6 => format!("{figure} {unit}"),
        unit => format!("{} {unit}", bench::duel::three_digits(figure)),
    }
}

/// The checks of a section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SectionReport {
    /// Its name on the command line.
    pub name: String,
    /// What it checks.
    pub what: String,
    /// The time it may take.
    pub limit_s: f64,
    /// The time it took.
    pub seconds: f64,
    /// Its checks, in order.
    pub items: Vec<Item>,
}

/// Everything that was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// On what.
    pub facts: Facts,
    /// All together.
    pub seconds: f64,
    /// Whether every section that was asked for has run.
    pub complete: bool,
    /// In the order in which they ran.
    pub sections: Vec<SectionReport>,
}

impl Report {
    /// How many checks ended so.
    pub fn count(&self, status: Status) -> usize {
        let items = self.sections.iter().flat_map(|section| &section.items);
        items.filter(|item| item.status == status).count()
    }

    /// The counts in a line.
    pub fn summary(&self) -> String {
        let count = |status: Status| format!("{} {}", self.count(status), status.word());
        let all = [Status::Passed, Status::Failed, Status::Measured, Status::Skipped].map(count);
        let cut = if self.complete { "" } else { ", cut short" };
        format!("{} in {:.0} s{cut}", all.join(", "), self.seconds)
    }

    /// Tables, one a section, each with the reasons of its tolerances.
    pub fn markdown(&self) -> String {
        let mut text = format!("# gpu-check\n\n{}\n\n{}\n", self.facts, self.summary());
        for section in &self.sections {
            let (seconds, limit) = (section.seconds, section.limit_s);
            let _ = write!(
                text,
                "\n## {}\n\n{}; {seconds:.0} s of at most {limit:.0} s.\n\n\
                 | check | result | figure | at most | |\n|---|---|---|---|---|\n",
                section.name, section.what
            );
            let mut reasons = BTreeSet::new();
            for item in &section.items {
                let figure = item.figure.map_or(String::new(), |figure| shown(figure, &item.unit));
                let most = item.tolerance.as_ref().map_or(String::new(), |tolerance| {
                    let most = shown(tolerance.most, &item.unit);
                    reasons.insert(format!("- {most}: {}\n", tolerance.reason));
                    most
                });
                let (word, note) = (item.status.word(), in_a_cell(&item.note));
                let name = in_a_cell(&item.name);
                let _ = writeln!(text, "| {name} | {word} | {figure} | {most} | {note} |");
            }
            if !reasons.is_empty() {
                let reasons: String = reasons.into_iter().collect();
                let _ = write!(text, "\nAt most\n\n{reasons}");
            }
        }
        text
    }

    /// Writes `report.json` and `report.md` into `folder`, each whole or not at all.
    ///
    /// # Errors
    /// The folder or the files cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        make_folder(folder)?;
        let json = serde_json::to_string_pretty(self).context("the report is no JSON")? + "\n";
        data::write_file(&folder.join("report.json"), json.as_bytes())?;
        data::write_file(&folder.join("report.md"), self.markdown().as_bytes())?;
        Ok(())
    }
}

/// `text` in one line that ends no cell of a table.
fn in_a_cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let passed = Item {
            name: "a | b".into(),
            status: Status::Passed,
            figure: Some(2e-12),
            unit: "".into(),
            tolerance: Some(Tolerance::new(1e-10, "rounding")),
            note: String::new(),
            seconds: 0.5,
        };
        let failed = Item::without_figure("c", Status::Failed, "two\nlines");
        let section = SectionReport {
            name: "layers".into(),
            what: "layers".into(),
            limit_s: 60.0,
            seconds: 1.0,
            items: vec![passed, failed],
        };
        let (facts, sections) = (Facts::default(), vec![section]);
        Report { format: FORMAT, facts, seconds: 1.0, complete: true, sections }
    }

    #[test]
    fn the_table_has_every_check_in_a_line_and_the_reasons_below() {
        let text = report().markdown();
        assert!(text.contains("| a \\| b | passed | 2.0e-12 | 1.0e-10 |  |\n"), "{text}");
        assert!(text.contains("| c | FAILED |  |  | two lines |\n"), "{text}");
        assert!(text.contains("- 1.0e-10: rounding\n"), "{text}");
        assert!(text.contains("1 passed, 1 FAILED, 0 measured, 0 skipped in 1 s"), "{text}");
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("new");
        report().write(&place).unwrap();
        let json = std::fs::read_to_string(place.join("report.json")).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report());
        // Nothing but the two files is left.
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 2);
        let error = report().write(Path::new("/dev/null/report")).unwrap_err().to_string();
        assert!(error.contains("cannot make /dev/null/report"), "{error}");
    }

    #[test]
    fn counts_are_whole_and_measurements_have_three_digits() {
        assert_eq!(shown(0.0, "times"), "0 times");
        assert_eq!(shown(12.3456, "ms"), "12.3 ms");
        assert_eq!(shown(3e-9, ""), "3.0e-9");
    }
}
