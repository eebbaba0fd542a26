//! The global gradient norm, and clipping by it.

use tch::{Device, Kind, Tensor};

use super::bucket::Work;
use crate::bridge::{borrow, ffi};
use crate::{Error, Result};

/// The L2 norm over all gradients, 0-d on their device and in the parameters' type;
/// 0 where there are none.
pub(super) fn global_norm<const S: usize>(work: &[Work<S>]) -> Tensor {
    let Some(first) = work.first() else {
        return Tensor::zeros([0; 0], (Kind::Float, Device::Cpu));
    };
    let kind = first.params[0].kind();
    if first.grad.device() == Device::Cpu {
        let squares = work.iter().map(|piece| {
            ffi::sum_of_squares(borrow(&piece.grad)).unwrap_or_else(|error| panic!("{error}"))
        });
        return Tensor::from(squares.sum::<f64>().sqrt()).to_kind(kind);
    }
    let norms: Vec<Tensor> =
        work.iter().map(|piece| piece.grad.norm_scalaropt_dtype(2, kind)).collect();
    Tensor::stack(&norms, 0).norm()
}

/// Scales all gradients in place by `coefficient`, a 0-d tensor.
pub(super) fn scale_gradients<const S: usize>(work: &mut [Work<S>], coefficient: &Tensor) {
    for piece in work {
        let _ = piece.grad.g_mul_(coefficient);
    }
}

/// Clips as `torch.nn.utils.clip_grad_norm_`: by max / (norm + 1e-6), at
/// most 1, and brings all to their parameters' type. Returns the norm before.
pub(super) fn clip_grad_norm<const S: usize>(
    work: &mut [Work<S>],
    max_norm: Option<f64>,
) -> Tensor {
    work.iter_mut().for_each(Work::widen);
    let norm = global_norm(work);
    if let Some(max_norm) = max_norm {
        let coefficient = ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0);
        scale_gradients(work, &coefficient);
    }
    norm
}

/// Checks a maximal norm given by a user.
pub(super) fn check_max_norm(max_norm: Option<f64>) -> Result<()> {
    match max_norm {
        Some(max) if max.is_nan() || max <= 0.0 => Err(Error::invalid(
            "max_grad_norm",
            max,
            "it must be above 0, or absent for no clipping",
        )),
        _ => Ok(()),
    }
}

/// Checks that `value` lies in 0 ≤ value < 1.
pub(super) fn check_decay_rate(operand: &str, value: f64) -> Result<()> {
    match (0.0..1.0).contains(&value) {
        true => Ok(()),
        false => Err(Error::invalid(operand, value, "it must be at least 0 and below 1")),
    }
}

/// Checks the constant in a denominator.
pub(super) fn check_eps(eps: f64) -> Result<()> {
    match eps >= 0.0 && eps.is_finite() {
        true => Ok(()),
        false => Err(Error::invalid("eps", eps, "it must be finite and at least 0")),
    }
}
