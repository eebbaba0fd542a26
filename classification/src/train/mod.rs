//! The training loop of `classify train`.

mod config;
mod outputs;
mod setup;
mod state;
mod step;
mod validate;

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use data::{LabelledSource, Loader};
use engine::checkpoint::Names;
use engine::distributed::World;
use engine::interrupt::watch_for_interrupts;
use engine::metrics::drop_record;
use engine::schedule::cosine_lr;
use engine::training::{RunFiles, RunLog, RunPlan, Start, Taken, refuse_non_finite};
use tch::Device;

pub use config::{OptimizerKind, Policy, Preset, TrainConfig};
use setup::Setup;
pub use setup::{averages, optimizer};
pub use state::{Accuracy, TrainState};
use step::Trainer;
use validate::validate;

/// What may help against a loss that is not finite.
const ADVICE: &str =
    "A lower --base-lr, a longer --warmup-epochs, --clip-grad or --precision float32";

/// Fine-tunes as `config` says and leaves weights, pictures and metrics in its
/// output folder. An interrupt (Ctrl-C, SIGTERM) saves a checkpoint and ends the
/// run in order. All processes of `world` call; rank 0 writes.
///
/// # Errors
/// Anything that keeps the run from starting, unreadable images beyond the
/// configured share, a loss or gradient that is not finite, a full disk.
pub fn train(config: TrainConfig, start: Start, world: &World) -> Result<()> {
    let interrupted = watch_for_interrupts()?;
    let Setup { files, loader, validation, mut trainer, mut state } =
        Setup::new(config, &start, world)?;
    let config = trainer.config.clone();
    let steps_per_epoch = loader.steps();
    let total = steps_per_epoch * config.optim.epochs;
    let warmup = steps_per_epoch * config.warmup_epochs;
    let continued = start == Start::Resume;
    let (done, log_steps) = (state.step, config.run.log_steps);
    let plan = RunPlan { steps_per_epoch, total_steps: total, done, continued, log_steps };
    let pending = files.folder().filter(|_| state.unevaluated && continued);
    world.agree(pending.map_or(Ok(()), |run| drop_record(&run.metrics(), state.step, "top1")))?;
    let mut log = RunLog::new(world, &files, plan)?;

    let (epoch, step_in_epoch) = (state.step / steps_per_epoch, state.step % steps_per_epoch);
    if state.unevaluated {
        evaluate(&mut trainer, &validation, &mut state, epoch, &files, &mut log)?;
    }
    for batch in loader.batches(epoch..config.optim.epochs.max(epoch), step_in_epoch) {
        let batch = batch?;
        let lr = cosine_lr(config.peak_lr(), state.step, total, warmup);
        let images = batch.indices.len() as u64;
        let taken = Taken { epoch: batch.epoch + 1, images, waited: batch.waited, lr, more: &[] };
        world.set_step(state.step + 1);
        let measured = trainer.step(batch, lr, &mut state)?;

        state.step += 1;
        let ended_epoch = (state.step % steps_per_epoch == 0).then(|| state.step / steps_per_epoch);
        let stop = world.any(interrupted.load(Ordering::Relaxed))?;
        let evaluation_due = ended_epoch.is_some_and(|epoch| config.evaluates_after(epoch));
        let checkpoint_due = stop
            || evaluation_due
            || ended_epoch.is_some_and(|epoch| epoch % config.run.checkpoint_epochs == 0)
            || config.run.checkpoint_steps > 0 && state.step % config.run.checkpoint_steps == 0;
        let must_know = checkpoint_due || ended_epoch.is_some() || log.is_due(state.step);

        // The host waits for the device here, and only when it must: a CPU has
        // the numbers at hand, a GPU is otherwise read one step behind.
        let on_cpu = trainer.classifier.device() == Device::Cpu;
        let settled = log.measure(measured, must_know || on_cpu)?;
        for settled in &settled {
            let name = |index| loader.source().dataset().images().name(index);
            refuse_non_finite(world, settled, &files, name, ADVICE)?;
        }
        log.step(state.step, &taken, &settled)?;

        if ended_epoch.is_some() {
            log.corrupt(loader.corrupt_files())?;
        }
        if checkpoint_due {
            trainer.settle_statistics()?;
            // Before the evaluation: should that fail, the run goes on from here, and makes it.
            state.unevaluated = evaluation_due;
            let epoch = ended_epoch.filter(|_| config.run.keep_checkpoints > 0);
            let names = Names { epoch, ..Names::default() };
            files.save(names, &trainer.sections(), &state, config.run.keep_checkpoints)?;
        }
        if let Some(epoch) = ended_epoch.filter(|_| evaluation_due) {
            evaluate(&mut trainer, &validation, &mut state, epoch, &files, &mut log)?;
        }
        if stop && state.step < total {
            log.finish();
            bail!(
                "interrupted after step {} of {total}; continue with: classify train --output {} \
                 --resume",
                state.step,
                config.run.output.display()
            );
        }
        log.skip_time();
    }
    log.finish();
    world.agree(files.folder().map_or(Ok(()), |run| outputs::finish(&trainer, run)))
}

/// Scores the validation images, and saves the checkpoint with what that says of it.
fn evaluate(
    trainer: &mut Trainer,
    validation: &Loader<LabelledSource>,
    state: &mut TrainState,
    epoch: u64,
    files: &RunFiles,
    log: &mut RunLog,
) -> Result<()> {
    let accuracy = validate(trainer, validation, (state.step, epoch), log)?;
    let (best, best_ema) = state.take_in(accuracy);
    let keep = trainer.config.run.keep_checkpoints;
    let epoch = (keep > 0).then_some(epoch);
    Ok(files.save(Names { epoch, best, best_ema }, &trainer.sections(), state, keep)?)
}
