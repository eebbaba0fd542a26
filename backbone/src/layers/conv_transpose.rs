//! The transposed convolution that doubles a map's sides.

use tch::Tensor;
use tch::nn::Path;

use super::Layer;
use crate::{FeatureMap, Init, Mode, kernels};

/// `torch.nn.ConvTranspose2d(c, c, 4, stride=2, padding=1)`, of whole grids.
#[derive(Debug)]
pub struct ConvTranspose4x4 {
    /// `[in, out, 4, 4]`.
    weight: Tensor,
    /// `[out]`.
    bias: Tensor,
}

impl ConvTranspose4x4 {
    /// Parameters `weight` `[c, c, 4, 4]`, Kaiming fan-out, and `bias` `[c]`,
    /// zero.
    pub fn new(path: &Path, channels: i64) -> Self {
        Self {
            weight: Init::KaimingFanOut.parameter(path, "weight", &[channels, channels, 4, 4]),
            bias: Init::Constant(0.0).parameter(path, "bias", &[channels]),
        }
    }
}

impl Layer for ConvTranspose4x4 {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        x.map(|x| {
            let (weight, bias) = (mode.cast(&self.weight), mode.cast(&self.bias));
            kernels::conv_transpose_4x4(&mode.cast(x), &weight, &bias)
        })
    }
}
