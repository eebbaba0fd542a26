//! Optimizers with inspectable, named state: [`Lamb`], [`AdamW`], [`Sgd`] and [`Lion`].
//!
//! Each is an [`UpdateRule`] in a [`BucketedOptimizer`], which works on lists of
//! parameters: small tensors are concatenated and updated by one kernel, large
//! ones are updated in place. A step never waits for the device: norms and clip
//! coefficients stay there as tensors. The learning rate and weight decay come
//! with each step, from the functions of [`crate::schedule`].

mod adamw;
mod bucket;
mod clip;
mod ema;
mod group;
mod kind;
mod lamb;
mod layer_decay;
mod lion;
mod rule;
mod scaler;
mod sgd;

use std::collections::BTreeMap;

use tch::Tensor;

use crate::Result;

pub use adamw::{AdamW, AdamWConfig};
pub use bucket::ParamBatch;
pub use clip::Clip;
pub use ema::Ema;
pub use group::{ParamGroup, no_decay, param_groups};
pub use kind::{ClipMode, OptimizerKind};
pub use lamb::{Lamb, LambConfig};
pub use layer_decay::{
    LayerGrouping, LayerPosition, has_weight_decay, layer_ids, layered_param_groups,
};
pub use lion::{Lion, LionConfig};
pub use rule::{BucketedOptimizer, StepCount, UpdateRule};
pub use scaler::GradScaler;
pub use sgd::{Sgd, SgdConfig};

/// What one optimizer step has to tell.
#[derive(Debug)]
pub struct StepStats {
    /// The global L2 norm of all gradients before clipping, a 0-d tensor on
    /// the parameters' device: reading it waits for the device.
    pub grad_norm: Tensor,
}

/// What a training loop asks of an optimizer.
pub trait Optimizer {
    /// Updates every parameter that has a gradient; one without is left
    /// alone, its state too. `lr` and `weight_decay` are multiplied by each
    /// group's scale. The gradients may be changed in place.
    fn step(&mut self, lr: f64, weight_decay: f64) -> StepStats;

    /// Drops every gradient, so that a parameter the next backward pass does
    /// not reach has none.
    fn zero_grad(&mut self);

    /// The gradients there are, sharing memory with the parameters' own.
    fn gradients(&self) -> Vec<Tensor>;

    /// The state by name (`exp_avg.<parameter>`, …). The tensors share memory
    /// with the optimizer's: copy them to keep them past the next step.
    fn state(&self) -> BTreeMap<String, Tensor>;

    /// Takes over a state that [`Optimizer::state`] of an optimizer for the
    /// same parameters gave.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a missing or unknown name, another shape
    /// or another kind; the optimizer is then unchanged.
    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()>;
}

#[cfg(test)]
mod tests;
