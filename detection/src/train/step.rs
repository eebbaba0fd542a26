//! One optimizer step.

use anyhow::Result;
use backbone::Mode;
use data::Batch;
use data::rng::Rng;
use engine::distributed::{Gradients, World};
use engine::optim::{Ema, Optimizer};
use engine::training::{self, Measured, Sections};
use tch::Tensor;

use super::config::TrainConfig;
use super::state::TrainState;
use crate::data::Sample;
use crate::detector::Detector;
use crate::modeling::Losses;

/// Streams of random draws, apart from the data's.
const SAMPLING_STREAM: u64 = 0x726f_6973;
const PLUGIN_STREAM: u64 = 0x706c_7567;

/// The detector and what updates it.
pub struct Trainer {
    pub config: TrainConfig,
    pub detector: Detector,
    pub optimizer: Box<dyn Optimizer>,
    pub ema: Option<Ema>,
    pub world: World,
    pub gradients: Gradients,
    /// Images of this process that are computed at a time.
    pub part_size: usize,
}

impl Trainer {
    /// Forward, backward and update on one batch.
    pub fn step(
        &mut self,
        batch: Batch<Vec<Sample>>,
        lr: f64,
        state: &mut TrainState,
    ) -> Result<Measured> {
        let (parts, part_size) = (self.config.accum_steps, self.part_size);
        let mut samples = batch.images;
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let mut sums: Vec<(&'static str, Tensor)> = Vec::new();
        while !samples.is_empty() {
            let rest = samples.split_off(part_size.min(samples.len()));
            let losses = self.losses(std::mem::replace(&mut samples, rest), batch.epoch)?;
            let total = losses.total() / parts as f64;
            let scaled = state.scaler.as_ref().map(|scaler| scaler.scale(&total));
            self.gradients.backward(scaled.as_ref().unwrap_or(&total), samples.is_empty())?;
            add(&mut sums, &losses, parts);
        }
        let (optimizer, decay) = (self.optimizer.as_mut(), self.config.weight_decay);
        let grad_norm = training::update(optimizer, state.scaler.as_mut(), lr, decay);
        let step = state.step + 1;
        if let Some(ema) = &mut self.ema {
            ema.update(&self.detector.variables(), step);
        }
        Ok(Measured { losses: sums, grad_norm, step, indices: batch.indices })
    }

    /// The losses of a part of a batch. All draws depend on the sample alone, so
    /// that neither the batch's parts nor a restart change them.
    pub fn losses(&self, samples: Vec<Sample>, epoch: u64) -> Result<Losses> {
        let seed = self.config.seed;
        let positions: Vec<u64> = samples.iter().map(|sample| sample.position).collect();
        let mut rngs: Vec<Rng> =
            positions.iter().map(|&p| Rng::new(seed, &[SAMPLING_STREAM, epoch, p])).collect();
        let device = self.detector.device();
        let draw = |blocks| training::drop_path_table(seed, epoch, &positions, blocks, device);
        let mode = self.mode(draw);
        if self.detector.plugin {
            // A plugin draws from libtorch's generator.
            let first = positions.first().copied().unwrap_or_default();
            let draw = Rng::new(seed, &[PLUGIN_STREAM, epoch, first]).next_u64();
            tch::manual_seed(draw as i64);
        }
        let (images, targets): (Vec<_>, Vec<_>) =
            samples.into_iter().map(|sample| (sample.image, sample.targets)).unzip();
        Ok(self.detector.model.losses(&images, &targets, &mode, &mut rngs, &self.world)?)
    }

    /// A training pass; `draw` gives drop-path's draws, as for [`Detector::train_mode`].
    pub fn mode(&self, draw: impl FnOnce(usize) -> Tensor) -> Mode {
        let sync = self.world.sync_batch_norm().filter(|_| self.synchronised());
        self.detector.train_mode(&self.config, draw).with_sync_batch_norm(sync)
    }

    /// Whether batch norms share their statistics: a plugin's know nothing of it.
    pub fn synchronised(&self) -> bool {
        self.config.sync_bn && !self.detector.plugin
    }

    /// Gives all processes the same running statistics.
    pub fn settle_statistics(&self) -> Result<()> {
        let (variables, averages) = (self.detector.variables(), self.ema.as_ref());
        let synchronised = self.synchronised();
        Ok(training::settle_statistics(&self.world, synchronised, &variables, averages)?)
    }

    /// What a checkpoint holds: model, optimizer, and averages if there are any.
    pub fn sections(&self) -> Sections {
        Sections::new(self.detector.variables(), self.optimizer.as_ref(), self.ema.as_ref())
    }

    /// Runs `body` with the averaged weights in the model's place, if there are
    /// any.
    pub fn with_averages<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let variables = self.detector.variables();
        if let Some(ema) = &mut self.ema {
            ema.exchange(&variables);
        }
        let result = body(self);
        if let Some(ema) = &mut self.ema {
            ema.exchange(&variables);
        }
        result
    }
}

/// Adds a part's losses to the batch's means.
fn add(sums: &mut Vec<(&'static str, Tensor)>, losses: &Losses, parts: usize) {
    for (at, (name, loss)) in losses.iter().enumerate() {
        let loss = loss.detach() / parts as f64;
        match sums.get_mut(at) {
            Some((_, sum)) => *sum = &*sum + loss,
            None => sums.push((name, loss)),
        }
    }
}
