//! Stochastic gradient descent with momentum, as `torch.optim.SGD`, with the
//! gradients clipped by their global norm before.

use std::collections::BTreeMap;

use tch::Tensor;

use super::bucket::{Buckets, Work, check_state};
use super::clip::{check_decay_rate, check_max_norm, clip_grad_norm};
use super::{Optimizer, ParamGroup, StepStats};
use crate::Result;

/// SGD's constants; the default is Nesterov's momentum 0.9, clipping at 5.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdConfig {
    /// Decay rate of the sum of gradients.
    pub momentum: f64,
    /// Whether the step looks ahead along the momentum.
    pub nesterov: bool,
    /// The global gradient norm is clipped to this; `None` for no clipping.
    pub max_grad_norm: Option<f64>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        SgdConfig { momentum: 0.9, nesterov: true, max_grad_norm: Some(5.0) }
    }
}

/// The SGD optimizer. Weight decay is added to the gradient, as PyTorch does,
/// so it passes through the momentum.
pub struct Sgd {
    buckets: Buckets<1>,
    config: SgdConfig,
}

impl Sgd {
    /// An optimizer with zero state.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a constant out of range or parameters
    /// that cannot be trained.
    pub fn new(groups: Vec<ParamGroup>, config: SgdConfig) -> Result<Self> {
        check_decay_rate("momentum", config.momentum)?;
        check_max_norm(config.max_grad_norm)?;
        Ok(Sgd { buckets: Buckets::new(groups, ["momentum_buffer"])?, config })
    }

    fn update(&self, work: Work<1>, lr: f64, weight_decay: f64) {
        let gradient = work.grad.shallow_clone();
        if weight_decay != 0.0 {
            for (mut grad, param) in work.split(&gradient).into_iter().zip(&work.params) {
                grad += param * weight_decay;
            }
        }
        // From zero this makes the first buffer the gradient itself, which is
        // how PyTorch starts it.
        let mut buffer = work.state[0].shallow_clone();
        buffer *= self.config.momentum;
        buffer += &gradient;
        let mut update = match self.config.nesterov {
            true => gradient + buffer * self.config.momentum,
            false => buffer.copy(),
        };
        update *= lr;
        let updates = work.split(&update);
        let mut params = work.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            *param -= update;
        }
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, lr: f64, weight_decay: f64) -> StepStats {
        tch::no_grad(|| {
            let mut work = self.buckets.work();
            let grad_norm = clip_grad_norm(&mut work, self.config.max_grad_norm);
            for piece in work {
                let lr = lr * piece.lr_scale;
                let weight_decay = weight_decay * piece.weight_decay_scale;
                self.update(piece, lr, weight_decay);
            }
            StepStats { grad_norm }
        })
    }

    fn zero_grad(&mut self) {
        self.buckets.zero_grad();
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.buckets.gradients()
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        self.buckets.state()
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        check_state(&self.state(), state)?;
        self.buckets.load(state);
        Ok(())
    }
}
