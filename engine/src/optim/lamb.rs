//! LAMB (arXiv 1904.00962) in the variant of NVIDIA's FusedLamb and timm's `timm.optim.Lamb`:
//! gradients are clipped by their global norm inside the step, and layers without weight decay
//! take no trust ratio.

use tch::Tensor;

use super::rule::check_adam;
use super::{BucketedOptimizer, Clip, ParamBatch, StepCount, UpdateRule};
use crate::Result;
use crate::bridge::{borrow, ffi, list};

/// LAMB's constants; the default is SparK's pretraining of ResNets (ConvNeXt
/// takes betas (0.9, 0.999)).
#[derive(Debug, Clone, PartialEq)]
pub struct LambConfig {
    /// Decay rates of the averages of the gradient and of its square.
    pub betas: (f64, f64),
    /// Added to the root of the averaged square.
    pub eps: f64,
    /// How gradients are clipped; `None` for no clipping.
    pub clip: Option<Clip>,
    /// Whether the averages are divided by 1 − βᵗ.
    pub bias_correction: bool,
    /// Whether the gradient enters its average by 1 − β₁, rather than by 1.
    pub grad_averaging: bool,
    /// Whether parameters without weight decay take the trust ratio too.
    pub always_adapt: bool,
}

impl Default for LambConfig {
    fn default() -> Self {
        LambConfig {
            betas: (0.9, 0.95),
            eps: 1e-6,
            clip: Some(Clip::Norm(5.0)),
            bias_correction: true,
            grad_averaging: true,
            always_adapt: false,
        }
    }
}

/// The LAMB optimizer. Its step counter is one for all parameters.
pub type Lamb = BucketedOptimizer<2, LambConfig>;

impl UpdateRule<2> for LambConfig {
    const STATE_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];
    const STEP_COUNT: StepCount = StepCount::Shared;
    const CLIP_EPS: f64 = 0.0;
    const TAKES_BF16_GRADS: bool = true;

    fn check(&self) -> Result<()> {
        check_adam(self.betas, self.eps)
    }

    fn clip(&self) -> Option<Clip> {
        self.clip
    }

    fn update(&self, batch: ParamBatch<2>) {
        let update = self.adam_direction(&batch);
        let mut updates = batch.split(&update);
        if batch.weight_decay != 0.0 {
            for (update, param) in updates.iter_mut().zip(&batch.params) {
                *update += param * batch.weight_decay;
            }
        }
        if self.takes_trust_ratio(&batch) {
            let ratios = trust_ratios(&batch.params, &updates).unbind(0);
            for (update, ratio) in updates.iter_mut().zip(&ratios) {
                *update *= ratio;
            }
        }
        let mut params = batch.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            *param -= update * batch.lr;
        }
    }

    /// The kernel is for processors.
    fn update_fused(&self, batch: &mut ParamBatch<2>, grad_scale: Option<&Tensor>) -> bool {
        if !batch.make_dense() {
            return false;
        }
        let (beta1, beta2) = self.betas;
        let (bias_correction1, bias_correction2) = self.bias_corrections(batch.step);
        let constants = ffi::LambConstants {
            lr: batch.lr,
            weight_decay: batch.weight_decay,
            beta1,
            beta2,
            beta3: self.beta3(),
            bias_correction1,
            bias_correction2,
            eps: self.eps,
            trust: self.takes_trust_ratio(batch),
        };
        let options = (batch.params[0].kind(), batch.grad.device());
        // Made only where it is needed: there is one of these calls for every large parameter.
        let grad_scale =
            grad_scale.map_or_else(|| Tensor::ones([0; 0], options), Tensor::shallow_clone);
        let [exp_avg, exp_avg_sq] = batch.state.each_ref().map(borrow);
        ffi::lamb_update(
            &list(&batch.params),
            borrow(&batch.grad),
            exp_avg,
            exp_avg_sq,
            borrow(&grad_scale),
            &constants,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        true
    }
}

impl LambConfig {
    fn takes_trust_ratio(&self, batch: &ParamBatch<2>) -> bool {
        batch.weight_decay != 0.0 || self.always_adapt
    }

    /// The weight of a gradient in its average.
    fn beta3(&self) -> f64 {
        if self.grad_averaging { 1.0 - self.betas.0 } else { 1.0 }
    }

    /// What the averages are divided by in this step.
    fn bias_corrections(&self, step: u64) -> (f64, f64) {
        let correction = |beta: f64| match self.bias_correction {
            true => 1.0 - beta.powf(step as f64),
            false => 1.0,
        };
        (correction(self.betas.0), correction(self.betas.1))
    }

    /// Advances the averages and returns m̂ / (√v̂ + eps), shaped as the
    /// batch's gradient.
    fn adam_direction(&self, batch: &ParamBatch<2>) -> Tensor {
        let beta = self.betas;
        let corrections = self.bias_corrections(batch.step);
        let grad = &batch.grad;
        let [mut exp_avg, mut exp_avg_sq] = batch.state.each_ref().map(Tensor::shallow_clone);
        exp_avg *= beta.0;
        exp_avg += grad * self.beta3();
        exp_avg_sq *= beta.1;
        let _ = exp_avg_sq.addcmul_(grad, &(grad * (1.0 - beta.1)));
        let mut denominator = exp_avg_sq.sqrt();
        denominator /= corrections.1.sqrt();
        denominator += self.eps;
        let mut direction = exp_avg / corrections.0;
        direction /= denominator;
        direction
    }
}

/// ‖parameter‖ / ‖update‖ for each, `[n]`; 1 where either norm is 0.
fn trust_ratios(params: &[Tensor], updates: &[Tensor]) -> Tensor {
    let norms = |tensors: &[Tensor]| {
        Tensor::stack(&tensors.iter().map(Tensor::norm).collect::<Vec<_>>(), 0)
    };
    let (params, updates) = (norms(params), norms(updates));
    let both = params.gt(0.0).logical_and(&updates.gt(0.0));
    (&params / &updates).where_self(&both, &params.ones_like())
}
