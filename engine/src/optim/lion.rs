//! Lion (arXiv 2302.06675), as timm's `timm.optim.Lion`: the sign of an average is the step.

use super::rule::check_betas;
use super::{BucketedOptimizer, Clip, ParamBatch, UpdateRule};
use crate::Result;

/// Lion's constants; the default is the paper's, with SparK's clipping at 5.
#[derive(Debug, Clone, PartialEq)]
pub struct LionConfig {
    /// Decay rates of the average of the gradient: within the step, and from step to step.
    pub betas: (f64, f64),
    /// How gradients are clipped; `None` for no clipping.
    pub clip: Option<Clip>,
}

impl Default for LionConfig {
    fn default() -> Self {
        LionConfig { betas: (0.9, 0.99), clip: Some(Clip::Norm(5.0)) }
    }
}

/// The Lion optimizer. Every value moves by the learning rate, which is therefore a tenth to a
/// third of AdamW's; weight decay is decoupled.
pub type Lion = BucketedOptimizer<1, LionConfig>;

impl UpdateRule<1> for LionConfig {
    const STATE_NAMES: [&'static str; 1] = ["exp_avg"];

    fn check(&self) -> Result<()> {
        check_betas(self.betas)
    }

    fn clip(&self) -> Option<Clip> {
        self.clip
    }

    fn update(&self, batch: ParamBatch<1>) {
        let (beta1, beta2) = self.betas;
        let mut exp_avg = batch.state[0].shallow_clone();
        let mut update = exp_avg.lerp(&batch.grad, 1.0 - beta1).sign_();
        update *= -batch.lr;
        let _ = exp_avg.lerp_(&batch.grad, 1.0 - beta2);
        let (updates, decay) = (batch.split(&update), 1.0 - batch.lr * batch.weight_decay);
        let mut params = batch.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            if batch.weight_decay != 0.0 {
                *param *= decay;
            }
            *param += update;
        }
    }
}
