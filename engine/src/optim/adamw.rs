//! AdamW (arXiv 1711.05101), as `torch.optim.AdamW`.

use tch::Tensor;

use super::rule::check_adam;
use super::{BucketedOptimizer, Clip, ParamBatch, StepCount, UpdateRule};
use crate::Result;

/// AdamW's constants; the default is PyTorch's, with SparK's clipping at 5.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWConfig {
    /// Decay rates of the averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the root of the averaged square.
    pub eps: f64,
    /// How gradients are clipped; `None` for no clipping.
    pub clip: Option<Clip>,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { betas: (0.9, 0.999), eps: 1e-8, clip: Some(Clip::Norm(5.0)) }
    }
}

/// The AdamW optimizer. Each parameter counts its own steps.
pub type AdamW = BucketedOptimizer<2, AdamWConfig>;

impl UpdateRule<2> for AdamWConfig {
    const STATE_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];
    const STEP_COUNT: StepCount = StepCount::PerParameter;

    fn check(&self) -> Result<()> {
        check_adam(self.betas, self.eps)
    }

    fn clip(&self) -> Option<Clip> {
        self.clip
    }

    fn update(&self, batch: ParamBatch<2>) {
        let (beta1, beta2) = self.betas;
        let (lr, weight_decay, step) = (batch.lr, batch.weight_decay, batch.step as f64);
        let grad = &batch.grad;
        let [mut exp_avg, mut exp_avg_sq] = batch.state.each_ref().map(Tensor::shallow_clone);
        let _ = exp_avg.lerp_(grad, 1.0 - beta1);
        exp_avg_sq *= beta2;
        let _ = exp_avg_sq.addcmul_(grad, &(grad * (1.0 - beta2)));
        let mut denominator = exp_avg_sq.sqrt();
        denominator /= (1.0 - beta2.powf(step)).sqrt();
        denominator += self.eps;
        let mut update = exp_avg * (-lr / (1.0 - beta1.powf(step)));
        update /= denominator;
        let updates = batch.split(&update);
        let mut params = batch.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            if weight_decay != 0.0 {
                *param *= 1.0 - lr * weight_decay;
            }
            *param += update;
        }
    }
}
