//! A model's variables and everything that trains them.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::Result;
use backbone::models::Model;
use backbone::{DropPathDraws, Mode, SyncBatchNorm};
use tch::{Device, Tensor, nn};

use super::{CheckpointTensors, PendingMetrics, drop_path_table};
use crate::distributed::{Gradients, ProcessGroup};
use crate::graph::graph_section;
use crate::optim::{Ema, GradScaler, Optimizer};
use crate::precision::Precision;
use crate::settings::{ExecutionSettings, OptimSettings};

/// Scalar losses by name; their sum is what is learned from.
pub type Losses = Vec<(&'static str, Tensor)>;

/// Learning rate and weight decay of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Before the scale of a parameter group.
    pub lr: f64,
    /// Before the scale of a parameter group.
    pub weight_decay: f64,
}

/// A model's variables, their averages, and what updates them.
pub struct Trainer {
    /// Every parameter and buffer by name, sharing storage with the model.
    pub variables: BTreeMap<String, Tensor>,
    /// What updates the parameters.
    pub optimizer: Box<dyn Optimizer>,
    /// Averaged weights, if there are any.
    pub ema: Option<Ema>,
    /// Loss scaling, with float16.
    pub scaler: Option<GradScaler>,
    /// The processes that train together.
    pub world: ProcessGroup,
    /// Where the variables are.
    pub device: Device,
    /// Images per optimizer step, of all processes.
    pub batch_size: usize,
    /// Images of this process that are computed at a time.
    pub micro_batch_size: usize,
    /// Whether batch norms of several processes share their statistics.
    pub sync_bn: bool,
    /// Whether weight gradients may be bfloat16 where the arithmetic is.
    bf16_weight_grads: bool,
    gradients: Gradients,
    precision: Precision,
    seed: u64,
    /// The network itself, if a file had it; of the process that writes.
    graph: Option<BTreeMap<String, Tensor>>,
}

impl Trainer {
    /// Trains the variables of `store` with `optimizer`; all processes call.
    ///
    /// # Errors
    /// A batch that cannot be divided among the processes, a decay out of range, processes that
    /// train other parameters.
    pub fn new(
        store: &nn::VarStore,
        optimizer: Box<dyn Optimizer>,
        (optim, execution): (&OptimSettings, &ExecutionSettings),
        world: &ProcessGroup,
    ) -> Result<Self> {
        let micro_batch_size = world.micro_batch_size(optim.batch_size, optim.accum_steps)?;
        let precision = execution.precision;
        let variables = store.variables().into_iter().collect();
        Ok(Self {
            ema: optim.build_ema(&variables)?,
            variables,
            optimizer,
            scaler: (precision == Precision::Float16).then(GradScaler::default),
            world: world.clone(),
            device: store.device(),
            batch_size: optim.batch_size,
            micro_batch_size,
            sync_bn: execution.sync_bn,
            // Sums over parts of a batch or over processes would lose digits.
            bf16_weight_grads: optim.accum_steps == 1 && world.is_alone(),
            gradients: Gradients::new(world, store)?,
            precision,
            seed: execution.seed,
            graph: None,
        })
    }

    /// The same with checkpoints that carry `model`, if a file had it: it is needed to go on.
    ///
    /// # Errors
    /// A network that cannot be written.
    pub fn carrying(mut self, model: &Model) -> Result<Self> {
        let graph = model.graph().filter(|_| self.world.is_main());
        self.graph = graph.map(|graph| graph_section(graph)).transpose()?;
        Ok(self)
    }

    /// Begins the averages anew, if there are any, with the variables' values now.
    pub(super) fn restart_averages(&mut self) {
        let Some(ema) = &self.ema else { return };
        tch::no_grad(|| {
            for (name, average) in ema.averages() {
                average.shallow_clone().copy_(&self.variables[name]);
            }
        });
    }

    /// Forward, backward and update on one batch, the `step`th (from 1) and of the images
    /// `indices`, micro-batch by micro-batch. Nothing here waits for the device, unless float16 has to look for overflow.
    ///
    /// # Errors
    /// Those of `losses`, and of the exchange of gradients.
    pub fn step<M>(
        &mut self,
        micro_batches: Vec<M>,
        rates: Rates,
        (step, indices): (u64, Vec<usize>),
        losses: impl Fn(&Self, M) -> Result<Losses>,
    ) -> Result<PendingMetrics> {
        let count = micro_batches.len();
        let mut sums: Losses = Vec::new();
        self.optimizer.zero_grad();
        self.gradients.begin()?;
        for (number, micro_batch) in micro_batches.into_iter().enumerate() {
            let losses = losses(self, micro_batch)?;
            let total = total(&losses) / count as f64;
            let scaled = self.scaler.as_ref().map(|scaler| scaler.scale(&total));
            self.gradients.backward(scaled.as_ref().unwrap_or(&total), number + 1 == count)?;
            add(&mut sums, &losses, count);
        }
        let grad_norm = self.update(rates);
        if let Some(ema) = &mut self.ema {
            ema.update(&self.variables, step);
        }
        Ok(PendingMetrics { losses: sums, grad_norm, step, indices })
    }

    /// Makes the optimizer's step, unless scaled float16 gradients overflowed. Gives the global
    /// norm of the gradients before clipping, on their device; none if the step was left out.
    fn update(&mut self, rates: Rates) -> Option<Tensor> {
        let optimizer = self.optimizer.as_mut();
        let finite = self.scaler.as_mut().is_none_or(|scaler| {
            let finite = scaler.unscale(optimizer);
            scaler.update(finite);
            finite
        });
        finite.then(|| optimizer.step(rates.lr, rates.weight_decay).grad_norm)
    }

    /// A training pass.
    pub fn train_mode(&self) -> Mode {
        Mode::train()
            .with_compute(self.precision.compute())
            .with_bf16_weight_grads(self.bf16_weight_grads)
            .with_sync_batch_norm(self.sync_batch_norm())
    }

    /// A pass in evaluation.
    pub fn eval_mode(&self) -> Mode {
        Mode::eval().with_compute(self.precision.compute())
    }

    /// What batch norms share their statistics by, if they do.
    pub fn sync_batch_norm(&self) -> Option<Rc<dyn SyncBatchNorm>> {
        self.world.sync_batch_norm().filter(|_| self.sync_bn)
    }

    /// Draws of drop-path for `blocks` blocks. They depend on the sample alone, so that neither the
    /// batch's parts nor a restart nor the number of processes changes them.
    pub fn drop_path(&self, blocks: usize, (epoch, positions): (u64, &[u64])) -> DropPathDraws {
        if blocks == 0 {
            return DropPathDraws::Off;
        }
        DropPathDraws::Table(drop_path_table(self.seed, epoch, positions, blocks, self.device))
    }

    /// Gives all processes rank 0's running statistics and their averages, as
    /// DistributedDataParallel does: where batch norms do not share them, each has followed its
    /// own images.
    ///
    /// # Errors
    /// [`crate::Error::Distributed`].
    pub fn broadcast_bn_stats(&self) -> Result<()> {
        if self.sync_bn {
            return Ok(());
        }
        let is_running =
            |name: &str| name.ends_with("running_mean") || name.ends_with("running_var");
        for tensors in [Some(&self.variables), self.ema.as_ref().map(Ema::averages)] {
            let running = tensors.into_iter().flatten().filter(|(name, _)| is_running(name));
            let running = running.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
            self.world.broadcast(&running.collect())?;
        }
        Ok(())
    }

    /// What a checkpoint holds: model, optimizer, averages if there are any, and the network itself
    /// if a file had it.
    pub fn sections(&self) -> CheckpointTensors {
        let (optimizer, averages) = (self.optimizer.as_ref(), self.ema.as_ref());
        CheckpointTensors::new(&self.variables, optimizer, averages, self.graph.as_ref())
    }

    /// Runs `body` with the averaged weights in the model's place, if there are any.
    pub fn with_averages<T>(&mut self, body: impl FnOnce(&mut Self) -> T) -> T {
        if let Some(ema) = &mut self.ema {
            ema.swap(&self.variables);
        }
        let result = body(self);
        if let Some(ema) = &mut self.ema {
            ema.swap(&self.variables);
        }
        result
    }
}

fn total(losses: &Losses) -> Tensor {
    let mut all = losses.iter().map(|(_, loss)| loss.shallow_clone());
    let first = all.next().unwrap_or_else(|| Tensor::from(0f32));
    all.fold(first, |sum, loss| sum + loss)
}

/// Adds a micro-batch's losses to the batch's means.
fn add(sums: &mut Losses, losses: &Losses, count: usize) {
    for (at, (name, loss)) in losses.iter().enumerate() {
        let loss = loss.detach() / count as f64;
        match sums.get_mut(at) {
            Some((_, sum)) => *sum = &*sum + loss,
            None => sums.push((name, loss)),
        }
    }
}
