//! Pointwise activations.

use super::{Layer, Recomputable};
use crate::{FeatureMap, Mode, kernels};

/// A pointwise function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// max(x, 0).
    Relu,
    /// min(max(x, 0), 6).
    Relu6,
    /// x·Φ(x) with the exact error function.
    Gelu,
    /// x·σ(x), also called swish.
    Silu,
    /// 1 / (1 + exp(−x)).
    Sigmoid,
    /// x·relu6(x + 3) / 6.
    HardSwish,
    /// x for x ≥ 0, else this slope times x.
    LeakyRelu(f64),
    /// x.
    Identity,
}

impl Activation {
    /// The function of every element.
    pub fn apply(self, x: &tch::Tensor) -> tch::Tensor {
        match self {
            Self::Relu => x.relu(),
            Self::Relu6 => kernels::relu6(x),
            Self::Gelu => x.gelu("none"),
            Self::Silu => x.silu(),
            Self::Sigmoid => x.sigmoid(),
            Self::HardSwish => x.hardswish(),
            // tch's leaky_relu has no slope argument.
            Self::LeakyRelu(slope) => x.relu() - (-x).relu() * slope,
            Self::Identity => x.shallow_clone(),
        }
    }

    /// The bounds of functions that clamp.
    pub(super) fn bounds(self) -> Option<[f64; 2]> {
        match self {
            Self::Identity => Some([f64::NEG_INFINITY, f64::INFINITY]),
            Self::Relu => Some([0.0, f64::INFINITY]),
            Self::Relu6 => Some([0.0, 6.0]),
            _ => None,
        }
    }

    /// The function of a map that nobody else needs, such as the output of a
    /// norm or a sum, in its memory where that is possible.
    pub(crate) fn forward_in_place(self, x: FeatureMap) -> FeatureMap {
        match (self, &x) {
            // Masking copies in any case.
            (_, FeatureMap::Masked { .. }) => x.map(|x| self.apply(x)),
            (Self::Relu, _) => x.map(|x| x.shallow_clone().relu_()),
            (Self::Relu6, _) => x.map(kernels::relu6_in_place),
            _ => x.map(|x| self.apply(x)),
        }
    }

    /// The function of a map that nobody else needs, for one layer; neither need be kept for the
    /// backward pass where they can be recomputed.
    pub(crate) fn forward_owned(self, x: Recomputable) -> Recomputable {
        let input = x.recompute_fn();
        let map = x.apply_to_map(|map| map.map(|x| self.apply(x)));
        Recomputable::new(map, move || self.apply(&input.call()))
    }
}

impl Layer for Activation {
    fn forward(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        x.map(|x| self.apply(x))
    }
}
