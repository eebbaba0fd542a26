//! LAMB (arXiv 1904.00962) in the variant of NVIDIA's FusedLamb and timm:
//! gradients are clipped by their global norm inside the step, and layers
//! without weight decay take no trust ratio.

use std::collections::BTreeMap;

use tch::Tensor;

use super::bucket::{Buckets, Work, check_state};
use super::clip::{check_decay_rate, check_eps, check_max_norm, global_norm};
use super::{Optimizer, ParamGroup, StepStats};
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
    /// The global gradient norm is clipped to this; `None` for no clipping.
    pub max_grad_norm: Option<f64>,
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
            max_grad_norm: Some(5.0),
            bias_correction: true,
            grad_averaging: true,
            always_adapt: false,
        }
    }
}

/// The LAMB optimizer. Its step counter is one for all parameters.
pub struct Lamb {
    buckets: Buckets<2>,
    config: LambConfig,
    step: u64,
}

/// The constants of one step of one group.
struct Constants {
    lr: f64,
    weight_decay: f64,
    bias_correction1: f64,
    bias_correction2: f64,
}

impl Lamb {
    /// An optimizer with zero state.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for a constant out of range or parameters
    /// that cannot be trained.
    pub fn new(groups: Vec<ParamGroup>, config: LambConfig) -> Result<Self> {
        check_decay_rate("beta1", config.betas.0)?;
        check_decay_rate("beta2", config.betas.1)?;
        check_eps(config.eps)?;
        check_max_norm(config.max_grad_norm)?;
        let buckets = Buckets::new(groups, ["exp_avg", "exp_avg_sq"])?;
        Ok(Lamb { buckets, config, step: 0 })
    }

    /// What gradients of this global norm are scaled by: max / norm where that
    /// is below 1.
    fn coefficient(&self, norm: &Tensor) -> Tensor {
        match self.config.max_grad_norm {
            // min(1, max/norm) is 1 at norm 0, where max/norm is infinite.
            Some(max_norm) => (norm.reciprocal() * max_norm).clamp_max(1.0),
            None => norm.ones_like(),
        }
    }

    /// The whole update of parameters on a processor.
    fn update_fused(&self, work: &Work<2>, constants: &Constants, coefficient: &Tensor) {
        let (beta1, beta2) = self.config.betas;
        let constants = ffi::LambConstants {
            lr: constants.lr,
            weight_decay: constants.weight_decay,
            beta1,
            beta2,
            beta3: self.beta3(),
            bias_correction1: constants.bias_correction1,
            bias_correction2: constants.bias_correction2,
            eps: self.config.eps,
            trust: self.takes_trust_ratio(constants),
        };
        let [exp_avg, exp_avg_sq] = work.state.each_ref().map(borrow);
        ffi::lamb_update(
            &list(&work.params),
            borrow(&work.grad),
            exp_avg,
            exp_avg_sq,
            borrow(coefficient),
            &constants,
        )
        .unwrap_or_else(|error| panic!("{error}"));
    }

    fn takes_trust_ratio(&self, constants: &Constants) -> bool {
        constants.weight_decay != 0.0 || self.config.always_adapt
    }

    /// The weight of a gradient in its average.
    fn beta3(&self) -> f64 {
        if self.config.grad_averaging { 1.0 - self.config.betas.0 } else { 1.0 }
    }

    fn update(&self, work: Work<2>, constants: &Constants) {
        let update = self.adam_direction(&work, constants);
        let mut updates = work.split(&update);
        if constants.weight_decay != 0.0 {
            for (update, param) in updates.iter_mut().zip(&work.params) {
                *update += param * constants.weight_decay;
            }
        }
        if self.takes_trust_ratio(constants) {
            let ratios = trust_ratios(&work.params, &updates).unbind(0);
            for (update, ratio) in updates.iter_mut().zip(&ratios) {
                *update *= ratio;
            }
        }
        let mut params = work.params;
        for (param, update) in params.iter_mut().zip(&updates) {
            *param -= update * constants.lr;
        }
    }

    /// Advances the averages and returns m̂ / (√v̂ + eps), shaped as the
    /// work's gradient.
    fn adam_direction(&self, work: &Work<2>, constants: &Constants) -> Tensor {
        let (beta1, beta2) = self.config.betas;
        let grad = &work.grad;
        let [mut exp_avg, mut exp_avg_sq] = work.state.each_ref().map(Tensor::shallow_clone);
        exp_avg *= beta1;
        exp_avg += grad * self.beta3();
        exp_avg_sq *= beta2;
        let _ = exp_avg_sq.addcmul_(grad, &(grad * (1.0 - beta2)));
        let mut denominator = exp_avg_sq.sqrt();
        denominator /= constants.bias_correction2.sqrt();
        denominator += self.config.eps;
        let mut direction = exp_avg / constants.bias_correction1;
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

impl Optimizer for Lamb {
    fn step(&mut self, lr: f64, weight_decay: f64) -> StepStats {
        self.step += 1;
        let (beta1, beta2) = self.config.betas;
        let correction = |beta: f64| match self.config.bias_correction {
            true => 1.0 - beta.powf(self.step as f64),
            false => 1.0,
        };
        tch::no_grad(|| {
            let work = self.buckets.work();
            let grad_norm = global_norm(&work);
            let coefficient = self.coefficient(&grad_norm);
            for mut piece in work {
                let constants = Constants {
                    lr: lr * piece.lr_scale,
                    weight_decay: weight_decay * piece.weight_decay_scale,
                    bias_correction1: correction(beta1),
                    bias_correction2: correction(beta2),
                };
                if piece.make_dense() {
                    self.update_fused(&piece, &constants, &coefficient);
                } else {
                    piece.widen();
                    let _ = piece.grad.g_mul_(&coefficient);
                    self.update(piece, &constants);
                }
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
        let mut state = self.buckets.state();
        state.insert("step".into(), Tensor::from(self.step as i64));
        state
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        check_state(&self.state(), state)?;
        self.buckets.load(state);
        self.step = state["step"].int64_value(&[]) as u64;
        Ok(())
    }
}
