//! What a new optimizer has to say, its [`UpdateRule`], and the optimizer around it.

use std::collections::BTreeMap;

use tch::Tensor;

use super::bucket::{Buckets, ParamBatch, check_state};
use super::clip::{Clip, clip_gradients, global_norm};
use super::{Optimizer, ParamGroup, StepStats};
use crate::{Error, Result};

/// How an update rule counts its steps; the count is part of the saved state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepCount {
    /// Not at all.
    None,
    /// One for all parameters, saved as `step`.
    Shared,
    /// One for each parameter, saved as `step.<parameter>`: one that is unfrozen late gets its
    /// full bias correction.
    PerParameter,
}

/// The arithmetic of an optimizer that keeps `S` state tensors for each parameter. Gathering
/// parameters, clipping, saving and loading are [`BucketedOptimizer`]'s.
pub trait UpdateRule<const S: usize> {
    /// Names of the state tensors in checkpoints: `<name>.<parameter>`.
    const STATE_NAMES: [&'static str; S];
    /// How steps are counted.
    const STEP_COUNT: StepCount = StepCount::None;
    /// Added to the global norm before the clipping norm is divided by it:
    /// `torch.nn.utils.clip_grad_norm_` adds 1e-6.
    const CLIP_EPS: f64 = 1e-6;
    /// Whether [`UpdateRule::update_fused`] takes gradients in bfloat16; else they are brought to
    /// their parameter's dtype before.
    const TAKES_BF16_GRADS: bool = false;

    /// Checks the constants.
    ///
    /// # Errors
    /// [`Error::Input`] for one out of range.
    fn check(&self) -> Result<()>;

    /// How gradients are clipped.
    fn clip(&self) -> Option<Clip>;

    /// Updates parameters and states in place. The gradient is clipped, has the parameters' dtype
    /// and may be overwritten.
    fn update(&self, batch: ParamBatch<S>);

    /// The same in one kernel, if there is one for these tensors: false if not, and then nothing
    /// but the gradient's memory layout may have changed. `grad_scale`, 0-d and in the parameters'
    /// dtype, is still to be multiplied with the gradient.
    fn update_fused(&self, _batch: &mut ParamBatch<S>, _grad_scale: Option<&Tensor>) -> bool {
        false
    }
}

/// An optimizer over buckets of parameters that follows an update rule.
pub struct BucketedOptimizer<const S: usize, R> {
    buckets: Buckets<S>,
    rule: R,
    /// Steps made; counted for [`StepCount::Shared`].
    steps: u64,
}

impl<const S: usize, R: UpdateRule<S>> BucketedOptimizer<S, R> {
    /// An optimizer with zero state.
    ///
    /// # Errors
    /// [`Error::Input`] for a constant out of range or parameters that cannot be trained.
    pub fn new(groups: Vec<ParamGroup>, rule: R) -> Result<Self> {
        rule.check()?;
        rule.clip().map_or(Ok(()), Clip::check)?;
        Ok(Self { buckets: Buckets::new(groups, R::STATE_NAMES)?, rule, steps: 0 })
    }
}

impl<const S: usize, R: UpdateRule<S>> Optimizer for BucketedOptimizer<S, R> {
    fn step(&mut self, lr: f64, weight_decay: f64) -> StepStats {
        self.steps += 1;
        let grad_norm = tch::no_grad(|| {
            let mut batches = self.buckets.batches(lr, weight_decay);
            let clip = self.rule.clip();
            // Bounds in bfloat16 would be rounded.
            if !R::TAKES_BF16_GRADS || matches!(clip, Some(Clip::Value(_))) {
                batches.iter_mut().for_each(ParamBatch::grad_to_param_dtype);
            }
            let grad_norm = global_norm(&batches);
            let scale = clip_gradients(&mut batches, &grad_norm, clip, R::CLIP_EPS);
            for mut batch in batches {
                if R::STEP_COUNT == StepCount::Shared {
                    batch.step = self.steps;
                }
                if self.rule.update_fused(&mut batch, scale.as_ref()) {
                    continue;
                }
                batch.grad_to_param_dtype();
                if let Some(scale) = &scale {
                    let _ = batch.grad.g_mul_(scale);
                }
                self.rule.update(batch);
            }
            grad_norm
        });
        if R::STEP_COUNT == StepCount::PerParameter {
            self.buckets.count_steps();
        }
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
        match R::STEP_COUNT {
            StepCount::None => {}
            StepCount::Shared => {
                state.insert("step".into(), Tensor::from(self.steps as i64));
            }
            StepCount::PerParameter => state.extend(self.buckets.steps()),
        }
        state
    }

    fn load_state(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        check_state(&self.state(), state)?;
        self.buckets.load(state);
        match R::STEP_COUNT {
            StepCount::None => {}
            StepCount::Shared => self.steps = state["step"].int64_value(&[]) as u64,
            StepCount::PerParameter => self.buckets.load_steps(state),
        }
        Ok(())
    }
}

/// Checks that `value`, named `operand`, lies in 0 ≤ value < 1.
pub(super) fn check_decay_rate(operand: &str, value: f64) -> Result<()> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(Error::invalid(operand, value, "it must be at least 0 and below 1")),
    }
}

/// Checks two decay rates, `beta1` and `beta2`.
pub(super) fn check_betas(betas: (f64, f64)) -> Result<()> {
    check_decay_rate("beta1", betas.0)?;
    check_decay_rate("beta2", betas.1)
}

/// Checks the constants of Adam: decay rates, and what is added to a denominator.
pub(super) fn check_adam(betas: (f64, f64), eps: f64) -> Result<()> {
    check_betas(betas)?;
    match eps >= 0.0 && eps.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid("eps", eps, "it must be finite and at least 0")),
    }
}
