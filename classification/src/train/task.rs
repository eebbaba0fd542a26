//! What fine-tuning a classifier does in the training loop.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use backbone::weights;
use data::names::{first_names, same_names};
use data::rng::{Rng, purpose};
use data::{LabelledSource, Loader, MixParams, Mixup};
use engine::remote::{Wanted, local_with};
use engine::run_dir::{RunDir, resolve_checkpoint};
use engine::schedule::cosine_lr;
use engine::training::{
    BatchOf, Criterion, FORWARD_SHARE, Losses, Position, Rates, RunOutput, RunPlan, Scores, Task,
    Trainer,
};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::auto::Images;
use super::config::TrainConfig;
use super::validate::validate;
use super::{TrainState, outputs};
use crate::classifier::Classifier;
use crate::saved::{TrainCheckpoint, label_names};

/// Fine-tuning of a classifier.
pub struct FineTuning {
    pub config: TrainConfig,
    pub classifier: Classifier,
    pub mixup: Option<Mixup>,
    pub validation: Loader<LabelledSource>,
    /// Names of the classes, by number.
    pub classes: Vec<String>,
}

/// Images that are computed at a time.
pub struct MicroBatch {
    /// `[n, 3, H, W]`, on the device.
    images: Tensor,
    /// `[n, classes]`.
    targets: Tensor,
    epoch: u64,
    /// The images' numbers in the epoch.
    positions: Vec<u64>,
}

/// Top-1 accuracies of an evaluation, in 0–1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Of the weights that are learned.
    pub model: f64,
    /// Of their averages, if there are any.
    pub ema: Option<f64>,
}

/// What the state of a run has of the classifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierState {
    /// The latest evaluation's.
    pub accuracy: Option<Accuracy>,
    /// Names of the classes, by number.
    pub classes: Vec<String>,
}

impl FineTuning {
    /// How the batch of step `step` (from 0) is mixed, if it is.
    fn mixing(&self, step: u64) -> MixParams {
        let mut rng = Rng::new(self.config.execution.seed, &[purpose::MIX, step]);
        let side = self.config.input_size;
        match &self.mixup {
            Some(mixup) if rng.uniform() < self.config.mixup_prob => {
                mixup.draw((side, side), &mut rng)
            }
            _ => MixParams::NONE,
        }
    }

    /// Takes in a whole classifier, or its backbone alone.
    fn load_classifier(&self, path: &Path) -> Result<()> {
        let path = &*local_with(path, Wanted::Best)?;
        let (file, classes) = match TrainCheckpoint::open(path)? {
            Some(own) => (own.file, Some(own.state.task.classes)),
            None => {
                let file = weights::read(path)?;
                let names = label_names(&file);
                (file, names)
            }
        };
        if self.config.reset_head {
            let report = self.classifier.load_backbone(&file)?;
            eprintln!("backbone from {}, with a new head:\n{report}", file.path.display());
            return Ok(());
        }
        let report = self.classifier.load(&file)?;
        if let Some(classes) = classes {
            ensure!(
                same_names(&classes, &self.classes),
                "{} was trained on as many, but other classes ({}) than the data has ({}); with \
                 --reset-head its backbone is taken and the head learned anew",
                file.path.display(),
                first_names(classes.iter().map(String::as_str)),
                first_names(self.classes.iter().map(String::as_str))
            );
        }
        eprintln!("initial weights from {}:\n{report}", file.path.display());
        Ok(())
    }
}

impl Task for FineTuning {
    type Source = LabelledSource;
    type MicroBatch = MicroBatch;
    type Settings = TrainConfig;
    type Rule = Images;
    type State = ClassifierState;

    const COMMAND: &'static str = "classify train";
    const ADVICE: &'static str =
        "A lower --base-lr, a longer --warmup-epochs, --clip-grad or --precision float32";
    const SHORTER: &'static str = "--model resnet18, a smaller --input-size or fewer --epochs are \
         quicker; without --preset and these, settings are chosen to take a night at most";
    const CRITERION: Criterion = Criterion::Score;

    fn settings(&self) -> &TrainConfig {
        &self.config
    }

    fn load_initial_weights(&self, _: &TrainState) -> Result<()> {
        if let Some(path) = &self.config.backbone_weights {
            let path = resolve_checkpoint(path)?;
            let report = self.classifier.load_backbone(&weights::read(&path)?)?;
            eprintln!("backbone from {}:\n{report}", path.display());
        }
        self.config.weights.as_ref().map_or(Ok(()), |path| self.load_classifier(path))
    }

    fn resume(&self, path: &Path, saved: &TrainState, state: &mut TrainState) -> Result<()> {
        let path = path.display();
        ensure!(
            same_names(&saved.task.classes, &self.classes),
            "{path} was trained on other classes ({}) than the data has ({}); to learn these from \
             it, begin a new run with --weights {path} --reset-head",
            first_names(saved.task.classes.iter().map(String::as_str)),
            first_names(self.classes.iter().map(String::as_str))
        );
        state.task.accuracy = saved.task.accuracy;
        Ok(())
    }

    /// The batch is mixed as a whole before it is cut.
    fn micro_batches(
        &self,
        trainer: &Trainer,
        batch: BatchOf<LabelledSource>,
        step: u64,
    ) -> Result<Vec<MicroBatch>> {
        let (images, labels) = batch.images.present()?.context("a batch without images")?;
        let kind = self.config.execution.precision.parameters();
        let images = images.to_device(trainer.device).to_kind(kind);
        let (classes, smoothing) = (self.classes.len(), self.config.label_smoothing);
        let (images, targets) = self.mixing(step).apply(&images, &labels, classes, smoothing)?;
        let size = trainer.micro_batch_size;
        let micro_batch = |(number, positions): (usize, &[u64])| {
            let (start, length) = ((number * size) as i64, positions.len() as i64);
            MicroBatch {
                images: images.narrow(0, start, length),
                targets: targets.narrow(0, start, length),
                epoch: batch.epoch,
                positions: positions.to_vec(),
            }
        };
        Ok(batch.positions.chunks(size).enumerate().map(micro_batch).collect())
    }

    fn losses(&self, trainer: &Trainer, micro_batch: MicroBatch) -> Result<Losses> {
        let MicroBatch { images, targets, epoch, positions } = micro_batch;
        let blocks = self.classifier.backbone().drop_path_blocks();
        let draws = trainer.drop_path(blocks, (epoch, &positions));
        let mode = trainer.train_mode().with_drop_path(draws);
        let logits = self.classifier.forward(&images, &mode)?;
        Ok(vec![("loss", self.config.loss().of(&logits, &targets))])
    }

    fn rates(&self, plan: &RunPlan, step: u64) -> Rates {
        let warmup = plan.steps_per_epoch * self.config.warmup_epochs;
        Rates {
            lr: cosine_lr(self.config.peak_lr(), step, plan.total_steps, warmup),
            weight_decay: self.config.optim.weight_decay,
        }
    }

    fn evaluation_due(&self, at: &Position) -> bool {
        at.ended_epoch.is_some_and(|epoch| self.config.evaluates_after(epoch))
    }

    fn evaluation_images(&self, plan: &RunPlan, done: u64) -> f64 {
        let due = plan.epochs_after(done).filter(|at| self.evaluation_due(at)).count();
        let models = if self.config.optim.ema > 0.0 { 2 } else { 1 };
        let images = self.validation.dataset().len();
        FORWARD_SHARE * (due * models * images) as f64
    }

    fn evaluate(
        &mut self,
        trainer: &mut Trainer,
        state: &mut TrainState,
        run: &mut RunOutput,
        at: &Position,
    ) -> Result<Scores> {
        let accuracy = validate(self, trainer, at, &mut run.log)?;
        state.task.accuracy = Some(accuracy);
        Ok(Scores { model: Some(accuracy.model), ema: accuracy.ema })
    }

    fn finish(&mut self, _: &mut Trainer, _: &TrainState, run: &RunDir) -> Result<()> {
        outputs::finish(&self.config.run.name, run)
    }
}
