//! The optimizer's step under loss scaling.

use tch::Tensor;

use crate::optim::{GradScaler, Optimizer};

/// Makes the optimizer's step, unless scaled float16 gradients overflowed. Gives the global norm
/// of the gradients before clipping, on their device; none if the step was left out.
pub fn update(
    optimizer: &mut dyn Optimizer,
    scaler: Option<&mut GradScaler>,
    lr: f64,
    weight_decay: f64,
) -> Option<Tensor> {
    let finite = scaler.is_none_or(|scaler| {
        let finite = scaler.unscale(optimizer);
        scaler.update(finite);
        finite
    });
    finite.then(|| optimizer.step(lr, weight_decay).grad_norm)
}
