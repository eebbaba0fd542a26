//! The global gradient norm, and clipping by norm or by value.

use tch::{Device, Kind, Tensor};

use super::bucket::ParamBatch;
use crate::bridge::{borrow, ffi};
use crate::{Error, Result};

/// How gradients are clipped before an update; the bound is above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// All together to this global L2 norm, as `torch.nn.utils.clip_grad_norm_`: they are
    /// multiplied by min(1, bound / (norm + 1e-6)). LAMB leaves the 1e-6 out, as timm's does.
    Norm(f64),
    /// Each value to −bound…bound, as `torch.nn.utils.clip_grad_value_`.
    Value(f64),
}

impl Clip {
    /// Checks the bound.
    pub(super) fn check(self) -> Result<()> {
        let (operand, bound) = match self {
            Clip::Norm(bound) => ("clip norm", bound),
            Clip::Value(bound) => ("clip value", bound),
        };
        match bound > 0.0 {
            true => Ok(()),
            false => Err(Error::invalid(operand, bound, "it must be above 0")),
        }
    }
}

/// The L2 norm over all gradients, 0-d on their device and in the parameters' dtype;
/// 0 where there are none.
pub(super) fn global_norm<const S: usize>(batches: &[ParamBatch<S>]) -> Tensor {
    let Some(first) = batches.first() else {
        return Tensor::zeros([0; 0], (Kind::Float, Device::Cpu));
    };
    let kind = first.params[0].kind();
    if first.grad.device() == Device::Cpu {
        let squares = batches.iter().map(|batch| {
            ffi::sum_of_squares(borrow(&batch.grad)).unwrap_or_else(|error| panic!("{error}"))
        });
        return Tensor::from(squares.sum::<f64>().sqrt()).to_kind(kind);
    }
    let norms: Vec<Tensor> =
        batches.iter().map(|batch| batch.grad.norm_scalaropt_dtype(2, kind)).collect();
    Tensor::stack(&norms, 0).norm()
}

/// Clips values in place. For clipping by norm nothing is changed: what is returned, 0-d, is still
/// to be multiplied with every gradient. `norm` is the global one, `eps` what is added to it.
pub(super) fn clip_gradients<const S: usize>(
    batches: &mut [ParamBatch<S>],
    norm: &Tensor,
    clip: Option<Clip>,
    eps: f64,
) -> Option<Tensor> {
    match clip? {
        // min(1, bound/norm) is 1 at norm 0, where bound/norm is infinite.
        Clip::Norm(bound) => {
            let norm = if eps == 0.0 { norm.shallow_clone() } else { norm + eps };
            Some((norm.reciprocal() * bound).clamp_max(1.0))
        }
        Clip::Value(bound) => {
            for batch in batches {
                let _ = batch.grad.clamp_(-bound, bound);
            }
            None
        }
    }
}
