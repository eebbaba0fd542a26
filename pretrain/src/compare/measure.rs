//! What a run costs here: short ones, timed.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use engine::metrics::series;
use engine::run_dir::display_path;

use super::plan::Cost;
use super::programs::{METRICS, Program, Training};
use super::words::clock;

/// Steps that are timed.
pub const STEPS: u64 = 6;
/// Part of the budget that a measurement may take.
const PART: f64 = 0.25;

/// A kind of run to be timed.
pub struct Sample<'a> {
    /// What it is, for messages.
    pub what: &'static str,
    /// What runs it.
    pub program: &'a Program,
    /// Its flags.
    pub flags: Vec<OsString>,
    /// Images of a step.
    pub batch: f64,
    /// Whether it would go on, and is to be ended after its steps.
    pub endless: bool,
}

impl Sample<'_> {
    /// Runs it in the folder `run`, which is deleted then.
    ///
    /// # Errors
    /// The run fails, takes a large part of the `budget` (seconds), or is interrupted.
    pub fn cost(self, run: &Path, budget: f64, interrupted: &Arc<AtomicBool>) -> Result<Cost> {
        eprintln!("measuring {}", self.what);
        let Self { what, program, mut flags, batch, endless } = self;
        flags.extend(["--log-steps".into(), "1".into()]);
        let (began, mut first) = (Instant::now(), None);
        let limit = Duration::from_secs_f64(PART * budget);
        let mut too_long = false;
        let training = Training { run: run.to_owned(), flags };
        program.train(&training)?.wait(interrupted, |steps, elapsed| {
            if steps > 0 {
                first.get_or_insert((steps, elapsed));
            }
            too_long |= elapsed > limit && (!endless || steps < 2);
            too_long || endless && (steps >= STEPS || elapsed > limit)
        })?;
        let all = began.elapsed().as_secs_f64();
        super::check_interrupt(interrupted)?;
        ensure!(
            !too_long,
            "{STEPS} steps of {what} with what comes before and after them took more than {}, a \
             quarter of the budget: give more --minutes, a smaller --model, smaller images, or \
             fewer images in val",
            clock(limit.as_secs_f64())
        );
        let path = run.join(METRICS);
        let rates = series(&path, "step", "images_per_second")?;
        ensure!(!rates.is_empty(), "{} has no step", display_path(&path));
        // The first has more to do than those that follow.
        let mut steps: Vec<f64> =
            rates.iter().skip(1).map(|(_, rate)| batch / rate).filter(|time| *time > 0.0).collect();
        if steps.is_empty() {
            steps.extend(rates.iter().map(|(_, rate)| batch / rate));
        }
        steps.sort_by(f64::total_cmp);
        let (made, step) = (rates.len() as f64, steps[steps.len() / 2]);
        let (seen, at) = first.unwrap_or((0, Duration::ZERO));
        let start = (at.as_secs_f64() - seen as f64 * step).clamp(0.0, all);
        let end = (all - start - made * step).max(0.0);
        fs::remove_dir_all(run).with_context(|| format!("cannot remove {}", display_path(run)))?;
        Ok(Cost { start, step, end })
    }
}
