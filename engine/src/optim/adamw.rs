//! AdamW (arXiv 1711.05101), as `torch.optim.AdamW`, with the gradients
//! clipped by their global norm before.

use std::collections::BTreeMap;

use tch::Tensor;

use super::bucket::{Buckets, Work, check_state};
use super::clip::{check_decay_rate, check_eps, check_max_norm, clip_grad_norm};
use super::{Optimizer, ParamGroup, StepStats};
use crate::Result;

/// AdamW's constants; the default is PyTorch's, with SparK's clipping at 5.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWConfig {
    /// Decay rates of the averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the root of the averaged square.
    pub eps: f64,
    /// The global gradient norm is clipped to this; `None` for no clipping.
    pub max_grad_norm: Option<f64>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { betas: (0.9, 0.999), eps: 1e-8, max_grad_norm: Some(5.0) }
    }
}

/// The AdamW optimizer. Each parameter counts its own steps, so one that is
/// unfrozen late gets its full bias correction.
pub struct AdamW {
    buckets: Buckets<2>,
    config: AdamWConfig,
}

impl AdamW {
    /// An optimizer with zero state.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a constant out of range or parameters
    /// that cannot be trained.
    pub fn new(groups: Vec<ParamGroup>, config: AdamWConfig) -> Result<Self> {
        check_decay_rate("beta1", config.betas.0)?;
        check_decay_rate("beta2", config.betas.1)?;
        check_eps(config.eps)?;
        check_max_norm(config.max_grad_norm)?;
        Ok(AdamW { buckets: Buckets::new(groups, ["exp_avg", "exp_avg_sq"])?, config })
    }

    fn update(&self, work: Work<2>, lr: f64, weight_decay: f64) {
        let (beta1, beta2) = self.config.betas;
        let step = (work.steps + 1) as f64;
        let grad = &work.grad;
        let [mut exp_avg, mut exp_avg_sq] = work.state.each_ref().map(Tensor::shallow_clone);
        let _ = exp_avg.lerp_(grad, 1.0 - beta1);
        exp_avg_sq *= beta2;
        let _ = exp_avg_sq.addcmul_(grad, &(grad * (1.0 - beta2)));
        let mut denominator = exp_avg_sq.sqrt();
        denominator /= (1.0 - beta2.powf(step)).sqrt();
        denominator += self.config.eps;
        let mut update = exp_avg * (-lr / (1.0 - beta1.powf(step)));
        update /= denominator;
        let updates = work.split(&update);
        let mut params = work.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            if weight_decay != 0.0 {
                *param *= 1.0 - lr * weight_decay;
            }
            *param += update;
        }
    }
}

impl Optimizer for AdamW {
    fn step(&mut self, lr: f64, weight_decay: f64) -> StepStats {
        let grad_norm = tch::no_grad(|| {
            let mut work = self.buckets.work();
            let grad_norm = clip_grad_norm(&mut work, self.config.max_grad_norm);
            for piece in work {
                let lr = lr * piece.lr_scale;
                let weight_decay = weight_decay * piece.weight_decay_scale;
                self.update(piece, lr, weight_decay);
            }
            grad_norm
        });
        self.buckets.count_steps();
        StepStats { grad_norm }
    }

    fn zero_grad(&mut self) {
        self.buckets.zero_grad();
    }

    fn gradients(&self) -> Vec<Tensor> {
        self.buckets.gradients()
    }

    fn state(&self) -> BTreeMap<String, Tensor> {
        let mut state = self.buckets.state();
        state.extend(self.buckets.steps());
        state
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        check_state(&self.state(), state)?;
        self.buckets.load(state);
        self.buckets.load_steps(state);
        Ok(())
    }
}
