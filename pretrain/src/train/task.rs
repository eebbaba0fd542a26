//! What pretraining does in the training loop.

use std::path::Path;

use anyhow::Result;
use backbone::models::Model;
use backbone::{DropPathDraws, Mode};
use data::ImageSource;
use data::rng::Rng;
use engine::device::to_device;
use engine::run_dir::RunDir;
use engine::schedule::{cosine_lr, cosine_weight_decay};
use engine::training::FORWARD_SHARE;
use engine::training::{
    BatchOf, Criterion, Losses, Position, Rates, RunOutput, RunPlan, Scores, StateOf, Task, Trainer,
};
use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::auto::Images;
use super::execution::try_both;
use super::outputs::Outputs;
use super::probe::Probe;
use crate::config::TrainConfig;
use crate::mask;
use crate::saved;
use crate::spark::{Execution, Spark};

/// Stream of the masks' draws, apart from the data's.
const MASK_STREAM: u64 = 0x6d61_736b;

/// SparK pretraining of an encoder.
pub struct Pretraining {
    pub config: TrainConfig,
    /// What the encoder is.
    pub model: Model,
    pub store: nn::VarStore,
    pub spark: Spark,
    /// What the encoder computes on, once the run has begun.
    pub execution: Execution,
    /// Labelled images that the encoder is tried on, if there are any.
    pub probe: Option<Probe>,
    /// On rank 0.
    pub outputs: Option<Outputs>,
}

/// Images that are computed at a time.
pub struct MicroBatch {
    /// `[n, C, H, W]`, on the device.
    pub images: Tensor,
    pub epoch: u64,
    /// The images' numbers in the epoch.
    pub positions: Vec<u64>,
}

/// What pretraining adds to the state of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainState {
    /// What the encoder computes on: chosen once, as another choice would round otherwise. None
    /// before a new run has timed both, on whatever device it is.
    #[serde(default = "before_there_was_a_choice")]
    pub execution: Option<Execution>,
}

fn before_there_was_a_choice() -> Option<Execution> {
    Some(Execution::Packed)
}

impl Pretraining {
    /// The loss of a micro-batch in a pass of `mode`, whose drop-path draws and mask depend on the
    /// samples alone.
    pub fn loss(
        &self,
        trainer: &Trainer,
        micro_batch: &MicroBatch,
        mode: Mode,
        execution: Execution,
    ) -> Result<Tensor> {
        let MicroBatch { images, epoch, positions } = micro_batch;
        let size = images.size();
        let grid = self.spark.patch_grid((size[2], size[3]))?;
        let seed = self.config.compute.seed;
        let generators = positions.iter().map(|&p| Rng::new(seed, &[MASK_STREAM, *epoch, p]));
        let mask = mask::draw(generators, grid, self.config.keep_count(grid)?, trainer.device)?;
        let mode = mode.with_drop_path(self.drop_path(trainer, *epoch, positions));
        Ok(self.spark.loss(images, &mask, &mode, execution)?)
    }

    /// Draws that depend on the sample alone.
    fn drop_path(&self, trainer: &Trainer, epoch: u64, positions: &[u64]) -> DropPathDraws {
        trainer.drop_path(self.spark.encoder().drop_path_blocks(), (epoch, positions))
    }

    fn pictures_due(&self, at: &Position) -> bool {
        let every = self.config.picture_epochs;
        at.ended_epoch.is_some_and(|epoch| every > 0 && epoch.is_multiple_of(every))
    }

    fn probe_due(&self, at: &Position) -> bool {
        self.probe.is_some() && at.is_due(self.config.probe_epochs, 0)
    }
}

impl Task for Pretraining {
    type Source = ImageSource;
    type MicroBatch = MicroBatch;
    type Settings = TrainConfig;
    type Rule = Images;
    type State = PretrainState;

    const COMMAND: &'static str = "pretrain train";
    const ADVICE: &'static str =
        "A lower --base-lr, a longer --warmup-epochs or --precision float32";
    const SHORTER: &'static str = "--model resnet18, a smaller --input-size or fewer --epochs are \
         quicker; without --preset and these, settings are chosen to take a night at most";
    const CRITERION: Criterion = Criterion::EpochLoss;

    fn settings(&self) -> &TrainConfig {
        &self.config
    }

    fn load_initial_weights(&self, _: &StateOf<Self>) -> Result<()> {
        let Some(weights) = &self.config.init_weights else { return Ok(()) };
        let (family, in_chans) = (self.model.family(), self.config.in_chans);
        let report = saved::load_weights(weights, family, in_chans, &self.store)?;
        eprintln!("initial weights from {}:\n{report}", weights.display());
        Ok(())
    }

    fn resume(&self, _: &Path, saved: &StateOf<Self>, state: &mut StateOf<Self>) -> Result<()> {
        let was = saved.task.execution;
        match (self.config.execution.named(), was) {
            (Some(now), Some(was)) if now != was => eprintln!(
                "continuing {now} what was {was}: the same function, whose sums are rounded in \
                 another order"
            ),
            (Some(_), _) => {}
            (None, _) => state.task.execution = was,
        }
        Ok(())
    }

    fn warn_world_size_changed(&self) {
        if self.config.shard_by_rank {
            eprintln!("shard assignment changed too, so batches differ");
        }
    }

    fn begin(
        &mut self,
        trainer: &Trainer,
        state: &mut StateOf<Self>,
        run: &mut RunOutput,
    ) -> Result<()> {
        let (execution, told) = match state.task.execution {
            Some(execution) => (execution, execution.to_string()),
            None => {
                let trials = try_both(self, trainer)?;
                run.log.write(&trials.record(state.step))?;
                (trials.faster(), trials.to_string())
            }
        };
        (self.execution, state.task.execution) = (execution, Some(execution));
        run.log.note(&format!("execution  {told}"));
        Ok(())
    }

    fn micro_batches(
        &self,
        trainer: &Trainer,
        batch: BatchOf<ImageSource>,
        _: u64,
    ) -> Result<Vec<MicroBatch>> {
        let kind = self.config.compute.precision.parameters();
        let images = to_device(&batch.images, trainer.device, kind)?;
        let size = trainer.micro_batch_size;
        let micro_batch = |(number, positions): (usize, &[u64])| MicroBatch {
            images: images.narrow(0, (number * size) as i64, positions.len() as i64),
            epoch: batch.epoch,
            positions: positions.to_vec(),
        };
        Ok(batch.positions.chunks(size).enumerate().map(micro_batch).collect())
    }

    fn losses(&self, trainer: &Trainer, micro_batch: MicroBatch) -> Result<Losses> {
        let loss = self.loss(trainer, &micro_batch, trainer.train_mode(), self.execution)?;
        Ok(vec![("loss", loss)])
    }

    fn rates(&self, plan: &RunPlan, step: u64) -> Rates {
        let (config, total) = (&self.config, plan.total_steps);
        let warmup = plan.steps_per_epoch * config.warmup_epochs;
        let (first, last) = (config.optim.weight_decay, config.weight_decay_end);
        Rates {
            lr: cosine_lr(config.peak_lr(), step, total, warmup),
            weight_decay: cosine_weight_decay(first, last, step, total),
        }
    }

    fn evaluation_due(&self, at: &Position) -> bool {
        self.pictures_due(at) || self.probe_due(at)
    }

    fn evaluation_images(&self, plan: &RunPlan, done: u64) -> f64 {
        let Some(probe) = &self.probe else { return 0.0 };
        let due = plan.epochs_after(done).filter(|at| self.probe_due(at)).count();
        FORWARD_SHARE * (due * probe.image_count()) as f64
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer,
        _: &mut StateOf<Self>,
        run: &mut RunOutput,
        at: &Position,
    ) -> Result<Scores> {
        trainer.with_averages(|trainer| {
            let drawn = match &self.outputs {
                Some(outputs) if self.pictures_due(at) => {
                    outputs.draw(self, trainer, at.epoch, &mut run.log)
                }
                _ => Ok(()),
            };
            trainer.world.all_ok(drawn)?;
            let probe = self.probe.as_ref().filter(|_| self.probe_due(at));
            probe.map_or(Ok(()), |probe| probe.run(self, trainer, at, &mut run.log))
        })?;
        Ok(Scores::default())
    }

    fn finish(&mut self, trainer: &mut Trainer, state: &StateOf<Self>, _: &RunDir) -> Result<()> {
        let Some(outputs) = &self.outputs else { return Ok(()) };
        trainer.with_averages(|trainer| outputs.finish(self, trainer, state.step))
    }
}
