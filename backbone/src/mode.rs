//! How one forward pass runs.

use std::rc::Rc;

use tch::{Kind, Tensor};

use crate::kernels;

/// Training or evaluation, the element type of the arithmetic, and the random
/// draws of drop-path: everything a pass needs besides its input. A value, so
/// that two models (or two threads) never share hidden state.
#[derive(Debug)]
pub struct Mode {
    /// Batch norms use batch statistics and update their running ones;
    /// drop-path is active.
    pub training: bool,
    /// Convolutions and linear layers compute in this type (parameters stay as
    /// they are; norms keep their statistics in the parameters' type). `None`:
    /// the input's own type.
    pub compute: Option<Kind>,
    /// Gradients of weights stay in bfloat16: see [`Mode::with_bf16_weight_grads`].
    pub bf16_weight_grads: bool,
    /// Where drop-path takes its draws from.
    pub drop_path: DropPathDraws,
    /// Batch norms normalise with their running statistics and leave them as
    /// they are, in training too (mmdet's `norm_eval`).
    pub norm_eval: bool,
    /// Stages below this index run as in evaluation although the pass trains: 0
    /// none, 1 the stem, 2 the stem and the first stage, … (detectron2's
    /// `FREEZE_AT`).
    pub freeze_at: usize,
    /// How many stages are computed, finest first.
    pub stages: usize,
    /// Batch norms that use batch statistics share them with other processes by this.
    pub sync_batch_norm: Option<Rc<dyn SyncBatchNorm>>,
}

/// Batch norm over the batches of several processes (`torch.nn.SyncBatchNorm`).
pub trait SyncBatchNorm: std::fmt::Debug {
    /// `x` `[N, C, H, W]`, normalised by the statistics of everybody's positions, then scaled and
    /// shifted by weight and bias `[C]`. The running mean and variance `[C]` move towards these
    /// statistics by `momentum`. N may differ between processes and be 0. Gradients take into
    /// account what an input does to the statistics of all.
    ///
    /// An implementation that fails returns any tensor of x's shape and reports the failure by
    /// itself.
    fn batch_norm(
        &self,
        x: &Tensor,
        affine: [&Tensor; 2],
        running: [&Tensor; 2],
        momentum: f64,
        eps: f64,
    ) -> Tensor;
}

/// The source of drop-path's random draws.
#[derive(Debug)]
pub enum DropPathDraws {
    /// No block is dropped.
    Off,
    /// libtorch's global generator.
    Generator,
    /// Uniform draws in [0, 1), `[blocks, N]`: row b belongs to block b. Makes
    /// a step reproducible whatever ran before it.
    Table(Tensor),
}

impl Mode {
    /// Evaluation: running statistics, no drop-path.
    pub fn eval() -> Self {
        Self {
            training: false,
            compute: None,
            bf16_weight_grads: false,
            drop_path: DropPathDraws::Off,
            norm_eval: false,
            freeze_at: 0,
            stages: usize::MAX,
            sync_batch_norm: None,
        }
    }

    /// Training, with drop-path drawn from libtorch's global generator.
    pub fn train() -> Self {
        Self { training: true, drop_path: DropPathDraws::Generator, ..Self::eval() }
    }

    /// The same pass with convolutions and linear layers in `kind`.
    pub fn with_compute(self, kind: impl Into<Option<Kind>>) -> Self {
        Self { compute: kind.into(), ..self }
    }

    /// The same pass with gradients of convolutions' and linear layers' weights in
    /// bfloat16, if `on` and that is what the pass computes in: half the memory for
    /// the same values, which would only be widened. For passes whose gradients are
    /// not added to others, as sums would be rounded.
    pub fn with_bf16_weight_grads(self, on: bool) -> Self {
        Self { bf16_weight_grads: on, ..self }
    }

    /// The same pass with these drop-path draws.
    pub fn with_drop_path(self, draws: DropPathDraws) -> Self {
        Self { drop_path: draws, ..self }
    }

    /// The same pass with batch norms sharing their statistics by `sync`.
    pub fn with_sync_batch_norm(self, sync: Option<Rc<dyn SyncBatchNorm>>) -> Self {
        Self { sync_batch_norm: sync, ..self }
    }

    /// The same pass with batch norms on their running statistics, if `on`.
    pub fn with_norm_eval(self, on: bool) -> Self {
        Self { norm_eval: on, ..self }
    }

    /// The same pass with stages below this index as in evaluation; see
    /// [`Mode::freeze_at`].
    pub fn with_freeze_at(self, freeze_at: usize) -> Self {
        Self { freeze_at, ..self }
    }

    /// The same pass as far as the first `stages` stages.
    pub fn with_stages(self, stages: usize) -> Self {
        Self { stages, ..self }
    }

    /// The mode of the stage with this index (0 the stem, 1 the first stage, …):
    /// `frozen`, which is [`Mode::frozen`] of this pass, or this mode.
    pub fn for_stage<'a>(&'a self, stage_index: usize, frozen: &'a Mode) -> &'a Mode {
        if stage_index < self.freeze_at { frozen } else { self }
    }

    /// The mode of this pass's frozen stages.
    pub fn frozen(&self) -> Mode {
        // A host may have single batch norms train: not those that are frozen.
        Mode::eval().with_compute(self.compute).with_norm_eval(true)
    }

    /// Whether batch norms use the batch's statistics.
    pub fn uses_batch_statistics(&self) -> bool {
        self.training && !self.norm_eval
    }

    /// How this pass takes weights.
    pub(crate) fn weights(&self) -> Weights {
        Weights { compute: self.compute, bf16_weight_grads: self.bf16_weight_grads }
    }

    /// `tensor` in the type that arithmetic runs in.
    pub fn cast(&self, tensor: &Tensor) -> Tensor {
        cast(tensor, self.compute)
    }
}

/// How a pass takes the weights of convolutions and linear layers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weights {
    compute: Option<Kind>,
    bf16_weight_grads: bool,
}

impl Weights {
    /// `weight`, which one layer uses once in a pass, in the type that arithmetic
    /// runs in.
    pub fn cast(self, weight: &Tensor) -> Tensor {
        match self.compute {
            Some(Kind::BFloat16) if self.bf16_weight_grads && weight.kind() != Kind::BFloat16 => {
                kernels::to_bf16_with_bf16_grad(weight)
            }
            kind => cast(weight, kind),
        }
    }
}

/// `tensor` in `kind`, if one is given.
pub(crate) fn cast(tensor: &Tensor, kind: Option<Kind>) -> Tensor {
    match kind {
        Some(kind) if tensor.kind() != kind => tensor.to_kind(kind),
        _ => tensor.shallow_clone(),
    }
}
