//! Stochastic gradient descent with momentum, as `torch.optim.SGD`.

use super::rule::check_decay_rate;
use super::{BucketedOptimizer, Clip, ParamBatch, UpdateRule};
use crate::Result;

/// SGD's constants; the default is Nesterov's momentum 0.9, clipping at 5.
#[derive(Debug, Clone, PartialEq)]
pub struct SgdConfig {
    /// Decay rate of the sum of gradients.
    pub momentum: f64,
    /// Whether the step looks ahead along the momentum.
    pub nesterov: bool,
    /// How gradients are clipped; `None` for no clipping.
    pub clip: Option<Clip>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        SgdConfig { momentum: 0.9, nesterov: true, clip: Some(Clip::Norm(5.0)) }
    }
}

/// The SGD optimizer. Weight decay is added to the gradient, as PyTorch does, so it passes through
/// the momentum.
pub type Sgd = BucketedOptimizer<1, SgdConfig>;

impl UpdateRule<1> for SgdConfig {
    const STATE_NAMES: [&'static str; 1] = ["momentum_buffer"];

    fn check(&self) -> Result<()> {
        check_decay_rate("momentum", self.momentum)
    }

    fn clip(&self) -> Option<Clip> {
        self.clip
    }

    fn update(&self, batch: ParamBatch<1>) {
        let gradient = batch.grad.shallow_clone();
        if batch.weight_decay != 0.0 {
            for (mut grad, param) in batch.split(&gradient).into_iter().zip(&batch.params) {
                grad += param * batch.weight_decay;
            }
        }
        // From zero this makes the first buffer the gradient itself, which is
        // how PyTorch starts it.
        let mut buffer = batch.state[0].shallow_clone();
        buffer *= self.momentum;
        buffer += &gradient;
        let mut update = match self.nesterov {
            true => gradient + buffer * self.momentum,
            false => buffer.copy(),
        };
        update *= batch.lr;
        let updates = batch.split(&update);
        let mut params = batch.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            *param -= update;
        }
    }
}
