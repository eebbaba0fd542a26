//! What the encoder is worth so far: nearest neighbours among labelled images.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use data::{Evaluate, Interpolation};
use engine::distributed::ProcessGroup;
use engine::probe::{Knn, ProbeData, pooled};
use engine::training::{Position, RunLog, Trainer};
use serde::Serialize;
use tch::Kind;

use super::setup::normalize;
use super::task::Pretraining;
use crate::config::TrainConfig;

/// A probe's line of `metrics.jsonl`; the accuracy is in 0–1.
#[derive(Serialize)]
struct ProbeRecord {
    step: u64,
    finished_epoch: u64,
    knn_top1: f64,
}

/// Labelled images that the encoder is tried on now and then.
pub struct Probe {
    data: ProbeData,
}

impl Probe {
    /// The images that `config` names, if it does.
    ///
    /// # Errors
    /// A folder without `train` and `val`, or without classes in them.
    pub fn open(config: &TrainConfig, world: &ProcessGroup) -> Result<Option<Self>> {
        let Some(folder) = &config.probe else { return Ok(None) };
        let size = (config.input_size.height as usize, config.input_size.width as usize);
        let side = size.0.max(size.1);
        let transform = Evaluate::new(side, size, Interpolation::Bicubic, normalize(config)?)?;
        let options = config.loading.options(world);
        let batch = world.micro_batch_size(config.optim.batch_size, config.optim.accum_steps)?;
        let data = ProbeData::open(folder, Arc::new(transform), batch, &options, world)
            .with_context(|| format!("cannot probe on --probe {}", folder.display()))?;
        data.notes().filter(|_| world.is_main()).for_each(|note| eprintln!("note: {note}"));
        Ok(Some(Self { data }))
    }

    /// Images that a probe looks at.
    pub fn image_count(&self) -> usize {
        self.data.image_counts().iter().sum()
    }

    /// Scores the encoder and writes the figure down.
    pub fn run(
        &self,
        task: &Pretraining,
        trainer: &Trainer,
        at: &Position,
        log: &mut RunLog,
    ) -> Result<()> {
        let (mode, encoder) = (trainer.eval_mode(), task.spark.encoder());
        let kind = task.config.compute.precision.parameters();
        let (step, epoch) = (at.step, at.epoch);
        let features = |images: &tch::Tensor| {
            Ok(pooled(encoder, &images.to_kind(kind), &mode)?.to_kind(Kind::Float))
        };
        let known: BTreeSet<String> =
            self.data.left_out().into_iter().map(|(name, _)| name).collect();
        let [training, validation] = self.data.features(trainer.device, features, |_| {})?;
        let mut new = self.data.left_out();
        new.retain(|(name, _)| !known.contains(name));
        for (name, why) in trainer.world.gather(&new)?.concat() {
            log.note(&format!("left out of the probe: {name}: {why}"));
        }
        let found = Knn::default().predict(&training, validation.features())?;
        let knn_top1 = validation.accuracy(&found);
        log.write(&ProbeRecord { step, finished_epoch: epoch, knn_top1 })?;
        log.scalar("probe/knn_top1", knn_top1)?;
        log.note(&format!("epoch {epoch}: {:.2} % by nearest neighbours", 100.0 * knn_top1));
        Ok(())
    }
}
