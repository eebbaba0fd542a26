//! The training loop of `pretrain train`.

mod curve;
mod outputs;
mod probe;
mod setup;
mod state;
mod step;

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use engine::checkpoint::Names;
use engine::distributed::World;
use engine::interrupt::watch_for_interrupts;
use engine::schedule::{cosine_lr, cosine_weight_decay};
use engine::training::{RunLog, RunPlan, Start, Taken, refuse_non_finite, settle_statistics};
use serde::Serialize;
use tch::Device;

use crate::config::TrainConfig;
use outputs::Outputs;
use probe::Probe;
use setup::Setup;
pub use setup::normalize;
pub use state::TrainState;

/// What may help against a loss that is not finite.
const ADVICE: &str = "A lower --base-lr, a longer --warmup-epochs or --precision float32";

/// An epoch's line of `metrics.jsonl`.
#[derive(Serialize)]
struct EpochRecord {
    step: u64,
    finished_epoch: u64,
    epoch_loss: f64,
}

/// Pretrains as `config` says and leaves weights, pictures and metrics in its
/// output folder. An interrupt (Ctrl-C, SIGTERM) saves a checkpoint and ends
/// the run in order. All processes of `world` call; rank 0 writes.
///
/// # Errors
/// Anything that keeps the run from starting, unreadable images beyond the
/// configured share, a loss or gradient that is not finite, a full disk.
pub fn train(config: TrainConfig, start: Start, world: &World) -> Result<()> {
    let interrupted = watch_for_interrupts()?;
    let Setup { files, loader, mut trainer, mut state, probe } = Setup::new(config, &start, world)?;
    let config = trainer.config.clone();
    let steps_per_epoch = loader.steps();
    let total = steps_per_epoch * config.optim.epochs;
    let warmup = steps_per_epoch * config.warmup_epochs;
    let outputs = files.folder().map(|run| Outputs::new(run, &loader, &config)).transpose();
    let outputs = world.agree(outputs)?;
    let continued = start == Start::Resume;
    let (done, log_steps) = (state.step, config.run.log_steps);
    let plan = RunPlan { steps_per_epoch, total_steps: total, done, continued, log_steps };
    let mut log = RunLog::new(world, &files, plan)?;

    let (epoch, step_in_epoch) = (state.step / steps_per_epoch, state.step % steps_per_epoch);
    let due = probe.as_ref().filter(|p| step_in_epoch == 0 && p.is_due(epoch, config.optim.epochs));
    if let Some(probe) = due.filter(|_| continued && done > 0) {
        // Checkpoints are saved before the probe, which the last run may not have come to.
        let done_before = world.share(|| Probe::was_run(files.folder(), done))?;
        if !done_before {
            probe.run(&trainer, (done, epoch), &mut log)?;
        }
    }
    for batch in loader.batches(epoch..config.optim.epochs, step_in_epoch) {
        let batch = batch?;
        let lr = cosine_lr(config.peak_lr(), state.step, total, warmup);
        let weight_decay = cosine_weight_decay(
            config.optim.weight_decay,
            config.weight_decay_end,
            state.step,
            total,
        );
        world.set_step(state.step + 1);
        let measured = trainer.step(&batch, lr, weight_decay, &mut state)?;

        state.step += 1;
        let ended_epoch = (state.step % steps_per_epoch == 0).then(|| state.step / steps_per_epoch);
        let stop = world.any(interrupted.load(Ordering::Relaxed))?;
        let probe = probe.as_ref().filter(|probe| {
            ended_epoch.is_some_and(|epoch| probe.is_due(epoch, config.optim.epochs))
        });
        let checkpoint_due = stop
            || probe.is_some()
            || ended_epoch
                .is_some_and(|e| e % config.run.checkpoint_epochs == 0 || e == config.optim.epochs)
            || config.run.checkpoint_steps > 0 && state.step % config.run.checkpoint_steps == 0;
        let must_know = checkpoint_due || ended_epoch.is_some() || log.is_due(state.step);

        // The host waits for the device here, and only when it must: a CPU has
        // the numbers at hand, a GPU is otherwise read one step behind.
        let settled = log.measure(measured, must_know || trainer.device == Device::Cpu)?;
        for settled in &settled {
            let name = |index| loader.dataset().name(index);
            refuse_non_finite(world, settled, &files, name, ADVICE)?;
            state.count_loss(settled.loss());
        }
        let taken = Taken {
            epoch: batch.epoch + 1,
            images: batch.indices.len() as u64,
            waited: batch.waited,
            lr,
            more: &[("weight_decay", weight_decay)],
        };
        log.step(state.step, &taken, &settled)?;

        let mut names = Names::default();
        if let Some(epoch) = ended_epoch {
            let loss = state.end_epoch();
            names.best = checkpoint_due && state.is_best(loss);
            names.epoch = (config.run.keep_checkpoints > 0).then_some(epoch);
            let record = EpochRecord { step: state.step, finished_epoch: epoch, epoch_loss: loss };
            log.write(&record)?;
            log.scalar("epoch/loss", epoch, loss)?;
            log.corrupt(loader.corrupt_files())?;
        }
        // Before pictures and probe, whatever comes of these.
        if checkpoint_due {
            settle_statistics(world, config.execution.sync_bn, &trainer.variables(), None)?;
            files.save(names, &trainer.sections(), &state, config.run.keep_checkpoints)?;
        }
        if let Some(epoch) = ended_epoch {
            let picture_due = config.picture_epochs > 0 && epoch % config.picture_epochs == 0;
            if let Some(outputs) = outputs.as_ref().filter(|_| picture_due) {
                outputs.draw(&trainer, epoch, state.step, &mut log)?;
            }
            if let Some(probe) = probe {
                probe.run(&trainer, (state.step, epoch), &mut log)?;
            }
        }
        if stop {
            log.finish();
            bail!(
                "interrupted after step {} of {total}; continue with: pretrain train --output {} \
                 --resume",
                state.step,
                config.run.output.display()
            );
        }
        log.skip_time();
    }
    log.finish();
    world.agree(outputs.map_or(Ok(()), |outputs| outputs.finish(&trainer, &state)))
}
