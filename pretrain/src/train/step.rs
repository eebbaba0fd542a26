//! One optimizer step.

use std::collections::BTreeMap;

use anyhow::Result;
use backbone::{DropPathDraws, Mode};
use engine::data::Batch;
use engine::optim::{GradScaler, Optimizer};
use engine::rng::Rng;
use tch::{Device, Kind, Tensor, nn};

use super::state::TrainState;
use crate::config::TrainConfig;
use crate::mask;
use crate::spark::{Execution, Spark};

/// Streams of random draws, apart from the data's.
const MASK_STREAM: u64 = 0x6d61_736b;
const DROP_PATH_STREAM: u64 = 0x6472_6f70;

/// The model and what updates it.
pub struct Trainer {
    pub config: TrainConfig,
    pub store: nn::VarStore,
    pub spark: Spark,
    pub optimizer: Box<dyn Optimizer>,
    pub device: Device,
}

/// What a step computed, still on the device.
#[derive(Debug)]
pub struct Measured {
    /// Scalar.
    pub loss: Tensor,
    /// Scalar, before clipping; none if float16 gradients overflowed and the
    /// step was left out.
    pub grad_norm: Option<Tensor>,
    /// Step number, from 1.
    pub step: u64,
    /// Dataset indices of the batch.
    pub indices: Vec<usize>,
}

impl Trainer {
    /// Forward, backward and update on one batch. Nothing here waits for the
    /// device, unless float16 has to look for overflow.
    pub fn step(
        &mut self,
        batch: &Batch,
        lr: f64,
        weight_decay: f64,
        state: &mut TrainState,
    ) -> Result<Measured> {
        let images = Tensor::try_from(&batch.images)?.to_device(self.device);
        let parts = self.config.accum_steps;
        let part_size = self.config.batch_size / parts;
        self.optimizer.zero_grad();
        let mut total = Tensor::zeros([0; 0], (Kind::Float, self.device));
        for (part, positions) in batch.positions.chunks(part_size).enumerate() {
            let images = images.narrow(0, (part * part_size) as i64, part_size as i64);
            let loss = self.loss(&images, batch.epoch, positions)? / parts as f64;
            match &state.scaler {
                Some(scaler) => scaler.scale(&loss).backward(),
                None => loss.backward(),
            }
            total += loss.detach();
        }
        let grad_norm = self.update(lr, weight_decay, state.scaler.as_mut());
        let indices = batch.indices.clone();
        Ok(Measured { loss: total, grad_norm, step: state.step + 1, indices })
    }

    /// The loss of a part of a batch, whose images have these numbers in the
    /// epoch.
    fn loss(&self, images: &Tensor, epoch: u64, positions: &[u64]) -> Result<Tensor> {
        let size = images.size();
        let grid = self.spark.patch_grid((size[2], size[3]))?;
        let seed = self.config.seed;
        let generators = positions.iter().map(|&p| Rng::new(seed, &[MASK_STREAM, epoch, p]));
        let keep = self.config.keep_count(grid)?;
        let mask = mask::draw(generators, grid, keep, self.device)?;
        let mode = Mode::train()
            .with_compute(self.config.precision.compute())
            .with_drop_path(self.drop_path_draws(epoch, positions));
        Ok(self.spark.forward(images, &mask, &mode, Execution::Packed)?.loss)
    }

    /// Draws that depend on the sample alone, so that neither the batch's
    /// parts nor a restart change them.
    fn drop_path_draws(&self, epoch: u64, positions: &[u64]) -> DropPathDraws {
        let blocks = self.spark.encoder().blocks();
        if blocks == 0 || self.config.drop_path == Some(0.0) {
            return DropPathDraws::Off;
        }
        let draws: Vec<f32> = positions
            .iter()
            .flat_map(|&position| {
                let mut rng = Rng::new(self.config.seed, &[DROP_PATH_STREAM, epoch, position]);
                (0..blocks).map(move |_| rng.uniform() as f32)
            })
            .collect();
        let table = Tensor::from_slice(&draws)
            .view([positions.len() as i64, blocks as i64])
            .tr()
            .to_device(self.device);
        DropPathDraws::Table(table)
    }

    fn update(
        &mut self,
        lr: f64,
        weight_decay: f64,
        scaler: Option<&mut GradScaler>,
    ) -> Option<Tensor> {
        let finite = scaler.is_none_or(|scaler| {
            let finite = scaler.unscale(self.optimizer.as_ref());
            scaler.update(finite);
            finite
        });
        finite.then(|| self.optimizer.step(lr, weight_decay).grad_norm)
    }

    /// Every parameter and buffer by its official name, sharing storage.
    pub fn variables(&self) -> BTreeMap<String, Tensor> {
        self.store.variables().into_iter().collect()
    }

    /// What a checkpoint holds: model and optimizer.
    pub fn sections(&self) -> Sections {
        Sections { model: self.variables(), optimizer: self.optimizer.state() }
    }
}

/// Tensors of a checkpoint.
pub struct Sections {
    pub model: BTreeMap<String, Tensor>,
    pub optimizer: BTreeMap<String, Tensor>,
}

impl Sections {
    /// By section name.
    pub fn named(&self) -> [(&str, &BTreeMap<String, Tensor>); 2] {
        [("model", &self.model), ("optimizer", &self.optimizer)]
    }
}
