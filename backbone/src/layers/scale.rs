//! Layers that scale channels: layer scale and squeeze-and-excitation.

use tch::Tensor;
use tch::nn::Path;

use super::{Activation, Conv2d, Conv2dConfig, Layer, global_avg_pool};
use crate::{FeatureMap, Init, Mode};

/// A learned factor per channel (CaiT, section 2; ConvNeXt's `gamma`).
#[derive(Debug)]
pub struct LayerScale {
    /// `[C]`.
    gamma: Tensor,
}

impl LayerScale {
    /// Parameter `gamma` directly under `path`, every factor `init`.
    pub fn new(path: &Path, channels: i64, init: f64) -> Self {
        Self { gamma: Init::Constant(init).parameter(path, "gamma", &[channels]) }
    }
}

impl Layer for LayerScale {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        x.map(|x| x * mode.cast(&self.gamma).view([1, -1, 1, 1]))
    }
}

/// Squeeze-and-excitation (Hu et al. 2018) over visible positions; timm's
/// names `fc1` and `fc2` (1×1 convolutions with bias).
#[derive(Debug)]
pub struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
    gate: Activation,
}

impl SqueezeExcite {
    /// Squeezes `channels` to `reduced`; ReLU between, sigmoid at the end.
    pub fn new(path: &Path, channels: i64, reduced: i64) -> Self {
        let pointwise = Conv2dConfig::square(1).bias();
        Self {
            fc1: Conv2d::new(&(path / "fc1"), channels, reduced, pointwise),
            fc2: Conv2d::new(&(path / "fc2"), reduced, channels, pointwise),
            gate: Activation::Sigmoid,
        }
    }
}

impl Layer for SqueezeExcite {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let pooled = FeatureMap::Grid(global_avg_pool(x).unsqueeze(-1).unsqueeze(-1));
        let squeezed = Activation::Relu.forward(&self.fc1.forward(&pooled, mode), mode);
        let gate = self.gate.forward(&self.fc2.forward(&squeezed, mode), mode);
        x.scale_images(&gate.tensor().flatten(1, -1))
    }
}
