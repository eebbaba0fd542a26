//! One optimizer step.

use anyhow::{Context, Result};
use backbone::{DropPathDraws, Mode};
use data::rng::{Rng, purpose};
use data::{Batch, LabelledImages, MixParams, Mixup};
use engine::distributed::{Gradients, World};
use engine::optim::{Ema, Optimizer};
use engine::training::{self, Measured, Sections};
use tch::Tensor;

use super::config::TrainConfig;
use super::state::TrainState;
use crate::classifier::Classifier;

/// The classifier and what updates it.
pub struct Trainer {
    pub config: TrainConfig,
    pub classifier: Classifier,
    pub optimizer: Box<dyn Optimizer>,
    pub ema: Option<Ema>,
    pub mixup: Option<Mixup>,
    pub world: World,
    pub gradients: Gradients,
    /// Images of this process that are computed at a time.
    pub part_size: usize,
}

impl Trainer {
    /// Forward, backward and update on one batch, which is mixed as a whole
    /// before it is computed in parts.
    pub fn step(
        &mut self,
        batch: Batch<LabelledImages>,
        lr: f64,
        state: &mut TrainState,
    ) -> Result<Measured> {
        let device = self.classifier.device();
        let (images, labels) = batch.images.present()?.context("a batch without images")?;
        let (classes, smoothing) = (state.classes.len(), self.config.label_smoothing);
        let mix = self.mixing(state.step);
        let kind = self.config.execution.precision.parameters();
        let images = images.to_device(device).to_kind(kind);
        let (images, targets) = mix.apply(&images, &labels, classes, smoothing)?;

        let (parts, part_size) = (self.config.optim.accum_steps, self.part_size);
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let mut total = Tensor::zeros([0; 0], (kind, device));
        for (part, positions) in batch.positions.chunks(part_size).enumerate() {
            let (start, length) = ((part * part_size) as i64, positions.len() as i64);
            let mode = self.mode(batch.epoch, positions);
            let logits = self.classifier.forward(&images.narrow(0, start, length), &mode)?;
            let targets = targets.narrow(0, start, length);
            let loss = self.config.loss().of(&logits, &targets) / parts as f64;
            let scaled = state.scaler.as_ref().map(|scaler| scaler.scale(&loss));
            self.gradients.backward(scaled.as_ref().unwrap_or(&loss), part + 1 == parts)?;
            total += loss.detach();
        }
        let (optimizer, decay) = (self.optimizer.as_mut(), self.config.optim.weight_decay);
        let grad_norm = training::update(optimizer, state.scaler.as_mut(), lr, decay);
        let step = state.step + 1;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.classifier.variables(), step);
        }
        Ok(Measured { losses: vec![("loss", total)], grad_norm, step, indices: batch.indices })
    }

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

    /// A training pass over samples of these numbers in the epoch.
    fn mode(&self, epoch: u64, positions: &[u64]) -> Mode {
        let blocks = self.classifier.backbone().drop_path_blocks();
        let (seed, device) = (self.config.execution.seed, self.classifier.device());
        let draws = match blocks == 0 || self.config.drop_path == 0.0 {
            true => DropPathDraws::Off,
            false => DropPathDraws::Table(training::drop_path_table(
                seed, epoch, positions, blocks, device,
            )),
        };
        Mode::train()
            .with_drop_path(draws)
            .with_compute(self.config.execution.precision.compute())
            .with_sync_batch_norm(
                self.world.sync_batch_norm().filter(|_| self.config.execution.sync_bn),
            )
    }

    /// Gives all processes the same running statistics.
    pub fn settle_statistics(&self) -> Result<()> {
        let (variables, averages) = (self.classifier.variables(), self.ema.as_ref());
        let synchronised = self.config.execution.sync_bn;
        Ok(training::settle_statistics(&self.world, synchronised, &variables, averages)?)
    }

    /// What a checkpoint holds: model, optimizer, and averages if there are any.
    pub fn sections(&self) -> Sections {
        Sections::new(self.classifier.variables(), self.optimizer.as_ref(), self.ema.as_ref())
    }

    /// Runs `body` with the averaged weights in the model's place; none if there
    /// are no averages.
    pub fn with_averages<T>(&mut self, body: impl FnOnce(&Self) -> T) -> Option<T> {
        let variables = self.classifier.variables();
        self.ema.as_mut()?.exchange(&variables);
        let result = body(self);
        self.ema.as_mut()?.exchange(&variables);
        Some(result)
    }
}
