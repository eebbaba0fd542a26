//! Runs that are killed and go on, against ones that are not, on the device.

use std::thread;

use anyhow::{Result, bail, ensure};

use super::Setting;
use crate::programs::{Program, Workplace};
use crate::recorder::{Finding, Recorder, said};
use crate::report::Tolerance;

/// Steps of a run, each with a checkpoint after it.
const STEPS: &str = "5";
/// It is killed after this one has been recorded.
const KILLED_AFTER: u64 = 2;

const SAME: Tolerance = Tolerance::new(
    1e-6,
    "CUDA adds up some gradients by atomic operations, in another order each time: 1e-15 in \
     float64, which the steps magnify; processors give the same bits",
);

/// The checks.
pub fn run(setting: &Setting, recorder: &mut Recorder) -> Result<()> {
    let work = Workplace::new(setting)?;
    for program in Program::ALL {
        match work.lacks(program) {
            Some(why) => recorder.skip(program.name(), why),
            None => recorder.check(program.name(), || check(setting, &work, program)),
        }
    }
    Ok(())
}

fn check(setting: &Setting, work: &Workplace, program: Program) -> Result<Finding> {
    work.prepare(program)?;
    let flags = ["--device", setting.kind.name(), "--precision", "float64", "--epochs", STEPS];
    let flags = [&flags[..], &["--checkpoint-epochs", "1"]].concat();
    let [whole, killed] = ["whole", "killed"].map(|name| format!("{}-{name}", program.name()));
    // Side by side: most of it is waiting for libraries and files.
    thread::scope(|scope| {
        let run = scope.spawn(|| work.run(&mut work.training(program, &whole, &flags)));
        let kill =
            work.kill_after(&mut work.training(program, &killed, &flags), &killed, KILLED_AFTER);
        let run = run.join().unwrap_or_else(|panic| bail!("{}", said(panic.as_ref())));
        run.and(kill)
    })?;
    let at = work.curve(&killed)?.last().map_or(0, |point| point.step);
    let resumed = [&flags[..], &["--resume"]].concat();
    work.run(&mut work.training(program, &killed, &resumed))?;

    let (whole, killed) = (work.curve(&whole)?, work.curve(&killed)?);
    ensure!(
        whole.len() == killed.len() && !whole.is_empty(),
        "the run that was killed has {} steps, the whole one {}",
        killed.len(),
        whole.len()
    );
    let apart = whole.iter().zip(&killed).map(|(whole, killed)| {
        if whole.step == killed.step {
            (whole.loss - killed.loss).abs() / whole.loss.abs().max(1e-12)
        } else {
            f64::INFINITY
        }
    });
    // f64::max leaves out what is no number.
    let figure =
        apart.reduce(|a, b| if a.total_cmp(&b).is_gt() { a } else { b }).unwrap_or(f64::NAN);
    Ok(Finding::apart(figure, SAME, format!("losses of {STEPS} steps; killed after step {at}")))
}
