//! Dynamic loss scaling for float16, after `torch.amp.GradScaler`.

use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::Optimizer;

/// Factor by which the scale grows after `GROWTH_INTERVAL` good steps.
const GROWTH: f64 = 2.0;
/// Factor by which the scale shrinks when a gradient overflowed.
const BACKOFF: f64 = 0.5;
/// Steps without overflow before the scale grows.
const GROWTH_INTERVAL: u32 = 2000;

/// Multiplies the loss so that small float16 gradients do not vanish, and
/// takes the factor down when large ones overflow. It is its own state for a
/// checkpoint.
///
/// One step: `scaler.scale(&loss).backward()`, then
/// `let finite = scaler.unscale(&optimizer)`, `optimizer.step(…)` if `finite`,
/// `scaler.update(finite)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GradScaler {
    scale: f64,
    good_steps: u32,
}

impl Default for GradScaler {
    /// Starts at 65536, PyTorch's choice.
    fn default() -> Self {
        GradScaler { scale: 65536.0, good_steps: 0 }
    }
}

impl GradScaler {
    /// The factor in use.
    pub fn factor(&self) -> f64 {
        self.scale
    }

    /// The loss to run backward from.
    pub fn scale(&self, loss: &Tensor) -> Tensor {
        loss * self.scale
    }

    /// Takes the factor out of the optimizer's gradients in place, and says
    /// whether they are all finite; if not, the step must be left out.
    ///
    /// Waits for the device: the decision is the host's.
    pub fn unscale(&self, optimizer: &dyn Optimizer) -> bool {
        let mut gradients = optimizer.gradients();
        if gradients.is_empty() {
            return true;
        }
        let inverse = 1.0 / self.scale;
        let largest: Vec<Tensor> = tch::no_grad(|| {
            gradients
                .iter_mut()
                .map(|gradient| {
                    *gradient *= inverse;
                    // The maximum norm keeps both infinities and NaN.
                    gradient.norm_scalaropt_dim(f64::INFINITY, [0i64; 0].as_slice(), false)
                })
                .collect()
        });
        Tensor::stack(&largest, 0).isfinite().all().int64_value(&[]) == 1
    }

    /// Adapts the factor after a step whose gradients were `finite` or not.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            self.scale *= BACKOFF;
            self.good_steps = 0;
            return;
        }
        self.good_steps += 1;
        if self.good_steps == GROWTH_INTERVAL {
            self.scale *= GROWTH;
            self.good_steps = 0;
        }
    }
}
