//! What the encoder is worth so far: how well the classes of labelled images are read off it.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, Result};
use data::{Evaluate, Interpolation};
use engine::distributed::ProcessGroup;
use engine::probe::{ProbeData, ProbeFigure, pooled};
use engine::training::{Position, RunLog, Trainer};
use tch::Kind;

use super::setup::normalize;
use super::task::Pretraining;
use crate::config::TrainConfig;

/// Labelled images that the encoder is tried on now and then.
pub struct Probe {
    data: ProbeData,
    figure: ProbeFigure,
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
        Ok(Some(Self { data, figure: config.probe_figure }))
    }

    /// Images that a probe looks at.
    pub fn image_count(&self) -> usize {
        self.data.image_counts().iter().sum()
    }

    /// Scores the encoder and writes the figures (0–1) down: the one that was chosen, and the nearest
    /// neighbours', which cost nothing more.
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
        let mut figures = vec![self.figure];
        figures.extend([ProbeFigure::Knn].into_iter().filter(|usual| *usual != self.figure));
        let mut record = serde_json::Map::new();
        record.insert("step".into(), step.into());
        record.insert("finished_epoch".into(), epoch.into());
        let mut told = Vec::new();
        for figure in figures {
            let top1 = figure.top1(&training, &validation)?;
            let (key, name) = figure.names();
            record.insert(key.into(), top1.into());
            log.scalar(&format!("probe/{key}"), top1)?;
            told.push(format!("{:.2} % by {name}", 100.0 * top1));
        }
        log.write(&record)?;
        log.note(&format!("epoch {epoch}: {}", told.join(", ")));
        Ok(())
    }
}
