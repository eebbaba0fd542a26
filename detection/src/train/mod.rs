//! The training loop of `detect train`.

mod config;
mod outputs;
mod precise_bn;
mod setup;
mod state;
mod step;
mod validate;

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use engine::checkpoint::Names;
use engine::distributed::World;
use engine::interrupt::watch_for_interrupts;
use engine::training::{RunFiles, RunLog, RunPlan, Start, Taken, refuse_non_finite};
use tch::Device;

pub use config::{Preset, Schedule, TrainConfig};
use setup::Setup;
pub use setup::loader_options;
pub use state::{Class, TrainState};
use step::Trainer;
use validate::{Validation, validate};

use crate::evaluation::Report;

/// What may help against a loss that is not finite.
const ADVICE: &str =
    "A lower --base-lr, a longer --warmup-iterations, --clip-grad or --precision float32";

/// Trains as `config` says and leaves weights, pictures and metrics in its
/// output folder. An interrupt (Ctrl-C, SIGTERM) saves a checkpoint and ends
/// the run in order. All processes of `world` call; rank 0 writes.
///
/// # Errors
/// Anything that keeps the run from starting, unreadable images beyond the
/// configured share, a loss or gradient that is not finite, a full disk.
pub fn train(config: TrainConfig, start: Start, world: &World) -> Result<()> {
    let interrupted = watch_for_interrupts()?;
    let Setup { files, loader, validation, validation_classes, mut trainer, mut state } =
        Setup::new(config, &start, world)?;
    let (images, classes) = (&validation, validation_classes.as_slice());
    let validation = Validation { training: &loader, images, classes };
    let config = trainer.config.clone();
    let steps_per_epoch = loader.steps();
    let total = config.total_steps(steps_per_epoch);
    let continued = start == Start::Resume;
    let (done, log_steps) = (state.step, config.log_steps);
    if state.evaluation_due {
        world.agree(files.folder().map_or(Ok(()), |run| validate::forget(run, done)))?;
    }
    let plan = RunPlan { steps_per_epoch, total_steps: total, done, continued, log_steps };
    let mut log = RunLog::new(world, &files, plan)?;
    let mut report: Option<Report> = None;
    if state.evaluation_due {
        report = evaluate(&mut trainer, &validation, &files, &mut state, &mut log, None)?;
    }

    let (epoch, step_in_epoch) = (state.step / steps_per_epoch, state.step % steps_per_epoch);
    let left = total.saturating_sub(state.step) as usize;
    let epochs = epoch..total.div_ceil(steps_per_epoch).max(epoch);
    for batch in loader.batches(epochs, step_in_epoch).take(left) {
        let batch = batch?;
        let lr = config.lr(state.step, steps_per_epoch);
        let images = batch.images.len() as u64;
        let taken = Taken { epoch: batch.epoch + 1, images, waited: batch.waited, lr, more: &[] };
        world.set_step(state.step + 1);
        let measured = trainer.step(batch, lr, &mut state)?;

        state.step += 1;
        let ended_epoch = (state.step % steps_per_epoch == 0).then(|| state.step / steps_per_epoch);
        let stop = world.any(interrupted.load(Ordering::Relaxed))?;
        let last = state.step == total;
        let due = |every_epochs: u64, every_steps: u64| {
            last || ended_epoch.is_some_and(|e| every_epochs > 0 && e % every_epochs == 0)
                || every_steps > 0 && state.step % every_steps == 0
        };
        let evaluation_due = due(config.eval_epochs, config.eval_steps);
        let checkpoint_due =
            stop || evaluation_due || due(config.checkpoint_epochs, config.checkpoint_steps);
        let must_know = checkpoint_due || ended_epoch.is_some() || log.is_due(state.step);

        // The host waits for the device here, and only when it must: a CPU has
        // the numbers at hand, a GPU is otherwise read one step behind.
        let settled =
            log.measure(measured, must_know || trainer.detector.device() == Device::Cpu)?;
        for settled in &settled {
            let name = |index| loader.dataset().name(index).to_owned();
            refuse_non_finite(world, settled, &files, name, ADVICE)?;
        }
        log.step(state.step, &taken, &settled)?;

        if ended_epoch.is_some() || evaluation_due {
            log.corrupt(loader.corrupt_files())?;
        }
        let epoch = ended_epoch.filter(|_| config.keep > 0);
        if checkpoint_due {
            // Also before an evaluation, which then costs no training whatever it ends with.
            state.evaluation_due = evaluation_due;
            let names = Names { epoch: epoch.filter(|_| !evaluation_due), ..Names::default() };
            trainer.settle_statistics()?;
            files.save(names, &trainer.sections(), &state, config.keep)?;
        }
        if evaluation_due {
            report = evaluate(&mut trainer, &validation, &files, &mut state, &mut log, epoch)?;
        }
        if stop && !last {
            log.finish();
            bail!(
                "interrupted after step {} of {total}; continue with: detect train --output {} \
                 --resume",
                state.step,
                config.output.display()
            );
        }
        log.skip_time();
    }
    log.finish();
    let finish = |run| outputs::finish(&mut trainer, run, report.as_ref());
    world.agree(files.folder().map_or(Ok(()), finish))
}

/// Evaluates, and saves what comes of it: renewed statistics, and whether it is the best so far.
fn evaluate(
    trainer: &mut Trainer,
    validation: &Validation,
    files: &RunFiles,
    state: &mut TrainState,
    log: &mut RunLog,
    epoch: Option<u64>,
) -> Result<Option<Report>> {
    let report = validate(trainer, validation, files, state.step, log)?;
    let section = report.as_ref().and_then(|r| r.segm.as_ref().or(r.bbox.as_ref()));
    let ap = trainer.world.share(|| anyhow::Ok(section.map(|section| section.figures.ap)))?;
    let best = ap.is_some_and(|ap| state.is_best(ap));
    state.evaluation_due = false;
    trainer.settle_statistics()?;
    let names = Names { epoch, best, ..Names::default() };
    files.save(names, &trainer.sections(), state, trainer.config.keep)?;
    Ok(report)
}
