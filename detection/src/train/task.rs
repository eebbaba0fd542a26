//! What training a detector does in the training loop.

use std::path::Path;

use anyhow::{Result, ensure};
use backbone::weights::LoadOptions;
use backbone::{DropPathDraws, Mode};
use data::names::first_names;
use data::rng::Rng;
use engine::remote;
use engine::run_dir::{RunDir, resolve_checkpoint};
use engine::training::{
    BatchOf, Criterion, FORWARD_SHARE, Position, Rates, RunOutput, RunPlan, Scores, Task, Trainer,
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::auto::DetectionRule;
use super::config::TrainConfig;
use super::validate::{Validation, validate};
use super::{TrainState, outputs};
use crate::data::{Category, CocoSource, Id, Sample};
use crate::detector::Detector;
use crate::evaluation::Report;
use crate::modeling::Losses;
use crate::modeling::weights::{ReadOptions, read_backbone, read_detector};
use crate::saved;

/// Streams of random draws, apart from the data's.
const SAMPLING_STREAM: u64 = 0x726f_6973;
const PLUGIN_STREAM: u64 = 0x706c_7567;

/// What an image takes in evaluation, of what it takes in training: inference is half of a step
/// (docs/detection.md has both), scored one by one.
const INFERENCE_SHARE: f64 = 0.5;

/// Training of a detector.
pub struct DetectorTraining {
    pub config: TrainConfig,
    pub detector: Detector,
    pub validation: Validation,
    /// What the detector tells apart, by number.
    pub classes: Vec<Class>,
    /// What is worth a look in the annotations.
    pub notes: Vec<String>,
    /// The last evaluation's, on rank 0.
    pub report: Option<Report>,
}

/// Images that are computed at a time.
pub struct MicroBatch {
    samples: Vec<Sample>,
    epoch: u64,
}

/// A class of the data set that a detector was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its category id.
    pub id: Id,
    /// Its name.
    pub name: String,
}

impl From<&Category> for Class {
    fn from(category: &Category) -> Self {
        Self { id: category.id.within_64_bits(), name: category.name.clone() }
    }
}

/// What the state of a run has of the detector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorState {
    /// What it tells apart, by number.
    pub classes: Vec<Class>,
}

impl DetectorTraining {
    /// The losses of some samples. All draws depend on the sample alone, so that neither the
    /// batch's parts nor a restart change them.
    pub fn losses_of(&self, trainer: &Trainer, samples: Vec<Sample>, epoch: u64) -> Result<Losses> {
        let seed = self.config.execution.seed;
        let positions: Vec<u64> = samples.iter().map(|sample| sample.position).collect();
        let mut rngs: Vec<Rng> =
            positions.iter().map(|&p| Rng::new(seed, &[SAMPLING_STREAM, epoch, p])).collect();
        if self.detector.plugin {
            // A plugin draws from libtorch's generator.
            let first = positions.first().copied().unwrap_or_default();
            let draw = Rng::new(seed, &[PLUGIN_STREAM, epoch, first]).next_u64();
            tch::manual_seed(draw as i64);
        }
        let blocks = self.detector.model.bottom_up().drop_path_blocks();
        let mode = self.mode(trainer, trainer.drop_path(blocks, (epoch, &positions)));
        let (images, targets): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.image, sample.targets)).unzip();
        Ok(self.detector.model.losses(&images, &targets, &mode, &mut rngs, &trainer.world)?)
    }

    /// The feature maps of some samples as in training, but with no block left out.
    pub fn maps_of(&self, trainer: &Trainer, samples: Vec<Sample>) -> Result<()> {
        let images: Vec<_> = samples.into_iter().map(|sample| sample.image).collect();
        let blocks = self.detector.model.bottom_up().drop_path_blocks() as i64;
        let options = (Kind::Float, trainer.device);
        let draws = match blocks == 0 {
            true => DropPathDraws::Off,
            false => DropPathDraws::Table(Tensor::ones([blocks, images.len() as i64], options)),
        };
        self.detector.model.maps(&images, &self.mode(trainer, draws), &trainer.world)?;
        Ok(())
    }

    /// A training pass. A plugin knows no arithmetic but its own, and draws by itself. Weight
    /// gradients stay float32: those of heads are sums over the levels of the pyramid, which
    /// would lose digits in bfloat16.
    fn mode(&self, trainer: &Trainer, draws: DropPathDraws) -> Mode {
        let mode = match self.detector.plugin {
            true => Mode::train(),
            false => trainer.train_mode().with_drop_path(draws).with_bf16_weight_grads(false),
        };
        mode.with_freeze_at(self.config.detector.freeze_at)
    }
}

impl Task for DetectorTraining {
    type Source = CocoSource;
    type MicroBatch = MicroBatch;
    type Settings = TrainConfig;
    type Rule = DetectionRule;
    type State = DetectorState;

    const COMMAND: &'static str = "detect train";
    const ADVICE: &'static str =
        "A lower --base-lr, a longer --warmup-iterations, --clip-grad or --precision float32";
    const SHORTER: &'static str = "--backbone resnet18, smaller --short-sides or fewer --epochs \
         are quicker; without --preset and these, settings are chosen to take a night at most";
    const CRITERION: Criterion = Criterion::Score;

    fn settings(&self) -> &TrainConfig {
        &self.config
    }

    fn load_initial_weights(&self, _: &TrainState) -> Result<()> {
        let (config, detector) = (&self.config, &self.detector);
        let settings = detector.model.config();
        if let Some(path) = &config.backbone_weights {
            let path = resolve_checkpoint(path)?;
            let options = LoadOptions::of(settings.family());
            let report = read_backbone(&path, &detector.store, settings, &options)?;
            eprintln!("backbone from {}:\n{report}", path.display());
        }
        let Some(path) = &config.weights else { return Ok(()) };
        let path = &*remote::local(path)?;
        if let Some(own) = saved::own_checkpoint(path)? {
            own.load(detector, config.reset_head)?;
            eprintln!("initial weights from {}", path.display());
            return Ok(());
        }
        let options =
            ReadOptions { without_predictors: config.reset_head, ..ReadOptions::default() };
        let report = read_detector(path, &detector.store, settings, &options)?;
        eprintln!("initial weights from {}:\n{report}", path.display());
        Ok(())
    }

    fn resume(&self, path: &Path, saved: &TrainState, _: &mut TrainState) -> Result<()> {
        ensure!(
            saved.task.classes == self.classes,
            "{} was trained on other classes ({}) than the data has ({}); to learn these from it, \
             begin a new run with --weights {0} --reset-head",
            path.display(),
            first_names(saved.task.classes.iter().map(|class| class.name.as_str())),
            first_names(self.classes.iter().map(|class| class.name.as_str()))
        );
        Ok(())
    }

    fn micro_batches(
        &self,
        trainer: &Trainer,
        batch: BatchOf<CocoSource>,
        _: u64,
    ) -> Result<Vec<MicroBatch>> {
        let mut samples = batch.images;
        let mut micro_batches = Vec::new();
        while !samples.is_empty() {
            let rest = samples.split_off(trainer.micro_batch_size.min(samples.len()));
            micro_batches.push(MicroBatch { samples, epoch: batch.epoch });
            samples = rest;
        }
        Ok(micro_batches)
    }

    fn losses(
        &self,
        trainer: &Trainer,
        micro_batch: MicroBatch,
    ) -> Result<engine::training::Losses> {
        let MicroBatch { samples, epoch } = micro_batch;
        let losses = self.losses_of(trainer, samples, epoch)?;
        Ok(losses.iter().map(|(name, loss)| (name, loss.shallow_clone())).collect())
    }

    fn rates(&self, plan: &RunPlan, step: u64) -> Rates {
        let lr = self.config.lr(step, plan.steps_per_epoch);
        Rates { lr, weight_decay: self.config.optim.weight_decay }
    }

    fn evaluation_due(&self, at: &Position) -> bool {
        at.is_due(self.config.eval_epochs, self.config.eval_steps)
    }

    fn evaluation_images(&self, plan: &RunPlan, done: u64) -> f64 {
        let (every, steps) = (self.config.eval_steps, plan.total_steps);
        let by_epochs = plan.epochs_after(done).filter(|at| at.is_due(self.config.eval_epochs, 0));
        let until = |step: u64| step.checked_div(every).unwrap_or(0);
        let by_steps = until(steps) - until(done);
        let due = by_epochs.count() as u64 + by_steps;
        let images = self.validation.images.image_count() as u64;
        let precise = self.config.precise_bn * self.config.optim.batch_size as u64;
        INFERENCE_SHARE * (due * images) as f64 + FORWARD_SHARE * (due * precise) as f64
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer,
        _: &mut TrainState,
        run: &mut RunOutput,
        at: &Position,
    ) -> Result<Scores> {
        self.report = validate(self, trainer, run, at.step)?;
        let section = self.report.as_ref().and_then(|r| r.segm.as_ref().or(r.bbox.as_ref()));
        let ap = trainer
            .world
            .broadcast_from_rank0(|| anyhow::Ok(section.map(|section| section.figures.ap)))?;
        Ok(Scores { model: ap, ema: None })
    }

    fn finish(&mut self, trainer: &mut Trainer, _: &TrainState, run: &RunDir) -> Result<()> {
        trainer.with_averages(|_| outputs::finish(&self.detector, self.report.as_ref(), run))
    }
}
