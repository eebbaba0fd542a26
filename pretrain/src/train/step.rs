//! One optimizer step.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use backbone::{DropPathDraws, Mode, SyncBatchNorm};
use data::Batch;
use data::rng::Rng;
use engine::device::upload;
use engine::distributed::{Gradients, World};
use engine::optim::Optimizer;
use engine::training::{self, Measured, Sections};
use tch::{Device, Tensor, nn};

use super::state::TrainState;
use crate::config::TrainConfig;
use crate::mask;
use crate::spark::Spark;

/// Stream of the masks' draws, apart from the data's.
const MASK_STREAM: u64 = 0x6d61_736b;

/// The model and what updates it.
pub struct Trainer {
    pub config: TrainConfig,
    pub store: nn::VarStore,
    pub spark: Spark,
    pub optimizer: Box<dyn Optimizer>,
    pub device: Device,
    pub world: World,
    pub gradients: Gradients,
    /// Images of this process that are computed at a time.
    pub part_size: usize,
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
        let kind = self.config.execution.precision.parameters();
        let images = upload(&batch.images, self.device, kind)?;
        let (parts, part_size) = (self.config.optim.accum_steps, self.part_size);
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        let mut total = Tensor::zeros([0; 0], (kind, self.device));
        for (part, positions) in batch.positions.chunks(part_size).enumerate() {
            let images = images.narrow(0, (part * part_size) as i64, part_size as i64);
            let loss = self.loss(&images, batch.epoch, positions)? / parts as f64;
            let scaled = state.scaler.as_ref().map(|scaler| scaler.scale(&loss));
            self.gradients.backward(scaled.as_ref().unwrap_or(&loss), part + 1 == parts)?;
            total += loss.detach();
        }
        let optimizer = self.optimizer.as_mut();
        let grad_norm = training::update(optimizer, state.scaler.as_mut(), lr, weight_decay);
        let (losses, indices) = (vec![("loss", total)], batch.indices.clone());
        Ok(Measured { losses, grad_norm, step: state.step + 1, indices })
    }

    /// The loss of a part of a batch, whose images have these numbers in the
    /// epoch.
    fn loss(&self, images: &Tensor, epoch: u64, positions: &[u64]) -> Result<Tensor> {
        let size = images.size();
        let grid = self.spark.patch_grid((size[2], size[3]))?;
        let seed = self.config.execution.seed;
        let generators = positions.iter().map(|&p| Rng::new(seed, &[MASK_STREAM, epoch, p]));
        let keep = self.config.keep_count(grid)?;
        let mask = mask::draw(generators, grid, keep, self.device)?;
        let mode = Mode::train()
            .with_compute(self.config.execution.precision.compute())
            .with_bf16_weight_grads(self.config.optim.accum_steps == 1 && self.world.is_alone())
            .with_sync_batch_norm(self.sync_batch_norm())
            .with_drop_path(self.drop_path_draws(epoch, positions));
        Ok(self.spark.loss(images, &mask, &mode)?)
    }

    /// What batch norms share their statistics by, if they do.
    fn sync_batch_norm(&self) -> Option<Rc<dyn SyncBatchNorm>> {
        self.world.sync_batch_norm().filter(|_| self.config.execution.sync_bn)
    }

    /// Draws that depend on the sample alone, so that neither the batch's
    /// parts nor a restart change them.
    fn drop_path_draws(&self, epoch: u64, positions: &[u64]) -> DropPathDraws {
        let blocks = self.spark.encoder().drop_path_blocks();
        if blocks == 0 || self.config.drop_path == Some(0.0) {
            return DropPathDraws::Off;
        }
        let seed = self.config.execution.seed;
        let table = training::drop_path_table(seed, epoch, positions, blocks, self.device);
        DropPathDraws::Table(table)
    }

    /// Every parameter and buffer by its official name, sharing storage.
    pub fn variables(&self) -> BTreeMap<String, Tensor> {
        self.store.variables().into_iter().collect()
    }

    /// What a checkpoint holds: model and optimizer.
    pub fn sections(&self) -> Sections {
        Sections::new(self.variables(), self.optimizer.as_ref(), None)
    }
}
