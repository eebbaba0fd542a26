//! The table of all comparisons, in Markdown and in JSON.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::duel::{Outcome, RoundResult, SideTimes, Unit, three_digits};
use crate::machine::Machine;
use crate::peak::Roofline;
use crate::picture;

/// Everything a run of the comparisons found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What it was found on.
    pub machine: Machine,
    /// Threads of each side.
    pub threads: usize,
    /// Timed rounds.
    pub rounds: usize,
    /// Comparison by comparison.
    pub duels: Vec<Outcome>,
}

const HEAD: &str = "\
| work | opponent | ours | theirs | ratio | peak memory ours / theirs | operations, time at the peak | share of the peak ours / theirs |
|---|---|---|---|---|---|---|---|
";

impl Report {
    /// Whether every comparison could be made.
    pub fn is_complete(&self) -> bool {
        self.duels.iter().all(|outcome| outcome.measured.is_some())
    }

    /// Machine, table, and what failed.
    pub fn markdown(&self) -> String {
        let Self { machine, threads, rounds, .. } = self;
        let peak = machine.peak.as_ref().map_or_else(String::new, |peak| {
            format!("  \nthe processor's peak, measured on as many threads: {}", peak.tell())
        });
        let mut text = format!(
            "{}  \n{}  \n{threads} thread(s) on each side, {rounds} alternating round(s): median \
             (smallest–largest); ratio: their time by ours, of rounds side by side{peak}\n\n{HEAD}",
            machine.hardware(),
            machine.software(),
        );
        for outcome in &self.duels {
            let _ = writeln!(text, "{}", row(outcome));
        }
        let failed = self.duels.iter().filter_map(|o| Some((&o.name, o.error.as_ref()?)));
        for (name, error) in failed {
            let _ = write!(text, "\n{name}: {error}\n");
        }
        text
    }

    /// Writes results.json, results.md and, if anything was measured,
    /// results.png into `folder`.
    ///
    /// # Errors
    /// The system does not let them be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, bytes: Vec<u8>| {
            let path = folder.join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
        };
        write("results.json", serde_json::to_vec_pretty(self)?)?;
        write("results.md", self.markdown().into_bytes())?;
        if let Some(picture) = picture::ratios(self)? {
            write("results.png", picture)?;
        }
        Ok(())
    }
}

fn row(outcome: &Outcome) -> String {
    let Outcome { work, opponent, unit, measured, .. } = outcome;
    let Some(RoundResult { variant, ours, theirs, ratio, roofline, .. }) = measured else {
        return format!("| {work} | {opponent} | failed | | | | | |");
    };
    let variant = if variant.is_empty() { String::new() } else { format!(" ({variant})") };
    format!(
        "| {work} | {opponent}{variant} | {} | {} | **{}×** ({}–{}) | {} / {} MB, {}× |{}",
        times(ours, *unit),
        times(theirs, *unit),
        three_digits(ratio.median),
        three_digits(ratio.min),
        three_digits(ratio.max),
        ours.peak_mb.round(),
        theirs.peak_mb.round(),
        three_digits(theirs.peak_mb / ours.peak_mb.max(1e-3)),
        roofline.map_or_else(|| " | |".to_owned(), |roofline| at_peak(&roofline, *unit)),
    )
}

/// The last two columns.
fn at_peak(roofline: &Roofline, unit: Unit) -> String {
    let Roofline { operations, seconds, ours, theirs } = *roofline;
    format!(
        " {} GFLOP, {} | {} / {} |",
        three_digits(operations / 1e9),
        unit.tell(seconds),
        percent(ours),
        percent(theirs)
    )
}

/// A share as people are told.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// Median and spread; a rate's smallest is where the time is largest.
fn times(side: &SideTimes, unit: Unit) -> String {
    let median = unit.tell(side.seconds.median);
    let ends = [unit.tell(side.seconds.min), unit.tell(side.seconds.max)];
    let [low, high] = match unit {
        Unit::Images => [&ends[1], &ends[0]],
        _ => [&ends[0], &ends[1]],
    };
    // The unit stands once, unless it changes between.
    let last = |text: &str| text.split_once(' ').map(|(_, unit)| unit.to_owned());
    let low = match last(low) == last(high) {
        true => low.split(' ').next().unwrap_or(low),
        false => low,
    };
    format!("{median} ({low}–{high})")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::peak::{Peak, Reached};
    use crate::stats::Spread;

    pub(crate) fn side(rounds: &[f64], peak_mb: f64) -> SideTimes {
        SideTimes { rounds: rounds.to_vec(), seconds: Spread::of(rounds).unwrap(), peak_mb }
    }

    pub(crate) fn outcome(name: &str, unit: Unit, ours: &[f64], theirs: &[f64]) -> Outcome {
        let measured = RoundResult {
            variant: "contiguous".into(),
            tried: Default::default(),
            checks: Default::default(),
            ours: side(ours, 500.0),
            theirs: side(theirs, 1250.4),
            ratio: Spread::of_ratios(theirs, ours).unwrap(),
            roofline: None,
        };
        Outcome {
            name: name.into(),
            work: format!("{name}'s work"),
            opponent: "PyTorch".into(),
            unit,
            measured: Some(measured),
            error: None,
        }
    }

    pub(crate) fn report(duels: Vec<Outcome>) -> Report {
        let machine = Machine {
            processor: "A CPU".into(),
            cores: 2,
            features: vec!["AVX2".into()],
            memory_gb: 24.0,
            libtorch: "2.13.0".into(),
            packages: vec![("torch".into(), "2.13.0".into())],
            commit: Some("abc".into()),
            peak: None,
        };
        Report { machine, threads: 2, rounds: 3, duels }
    }

    #[test]
    fn a_row_has_medians_spreads_and_ratios() {
        let step = outcome("step", Unit::Step, &[1.0, 1.1, 0.9], &[4.0, 4.4, 3.0]);
        assert_eq!(
            row(&step),
            "| step's work | PyTorch (contiguous) | 1.00 s (900 ms–1.10 s) | 4.00 s (3.00–4.40 s) | \
             **4.00×** (3.33–4.00) | 500 / 1250 MB, 2.50× | | |"
        );
        let rate = outcome("rate", Unit::Images, &[0.01, 0.02], &[0.02, 0.04]);
        assert!(row(&rate).contains("| 66.7 images/s (50.0–100 images/s) |"), "{}", row(&rate));
    }

    #[test]
    fn a_row_with_counted_operations_has_its_time_at_the_peak() {
        let mut step = outcome("step", Unit::Step, &[1.0], &[5.0]);
        let measured = step.measured.as_mut().unwrap();
        measured.roofline = Some(Roofline::new(2e11, 4e11, 1.0, 5.0));
        let text = row(&step);
        assert!(text.ends_with("MB, 2.50× | 200 GFLOP, 500 ms | 50 % / 10 % |"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        let without = row(&outcome("rate", Unit::Images, &[1.0], &[1.0]));
        assert!(HEAD.lines().chain([&*text, &*without]).all(|line| columns(line) == 9));
        let mut report = report(vec![step]);
        let reached = |speed| Reached { speed, by: "a matrix product".into() };
        report.machine.peak = Some(Peak { float32: reached(4e11), bfloat16: reached(8e11) });
        let text = report.markdown();
        assert!(text.contains("threads: 400 GFLOP/s in float32, 800 in bfloat16\n"), "{text}");
        let json = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    #[test]
    fn a_failure_is_a_row_and_a_sentence() {
        let mut failed = outcome("step", Unit::Step, &[1.0], &[1.0]);
        (failed.measured, failed.error) = (None, Some("loss differs".into()));
        let report = report(vec![failed]);
        assert!(!report.is_complete());
        let text = report.markdown();
        assert!(text.contains("| step's work | PyTorch | failed | | | | | |\n"), "{text}");
        assert!(text.ends_with("\nstep: loss differs\n"), "{text}");
    }

    #[test]
    fn the_files_are_written_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let report = report(vec![outcome("a", Unit::Step, &[1.0], &[3.0])]);
        report.write(folder.path()).unwrap();
        let json = fs::read(folder.path().join("results.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Report>(&json).unwrap(), report);
        let picture = fs::read(folder.path().join("results.png")).unwrap();
        assert!(image::load_from_memory(&picture).is_ok());
        assert!(folder.path().join("results.md").exists());
    }
}
