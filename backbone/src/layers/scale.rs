//! Layers that scale channels: layer scale and squeeze-and-excitation.

use tch::Tensor;
use tch::nn::Path;

use super::{Activation, Conv2d, Conv2dConfig, Layer, Recomputable, global_avg_pool};
use crate::{FeatureMap, Init, Mode, Module};

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

/// Squeeze-and-excitation (Hu et al. 2018), with timm's names `fc1` and `fc2`
/// (1×1 convolutions with bias).
///
/// The gate of an image follows from the mean over its visible positions: masked
/// ones, whose zeros would shrink it, do not count. So packed and masked-dense
/// execution agree, and the gate does not depend on the mask ratio.
#[derive(Debug)]
pub struct SqueezeExcite {
    fc1: Conv2d,
    fc2: Conv2d,
    gate: Activation,
}

impl SqueezeExcite {
    /// Squeezes `channels` to `reduced`; ReLU between, sigmoid at the end.
    /// Kaiming fan-out weights.
    pub fn new(path: &Path, channels: i64, reduced: i64) -> Self {
        Self::with_init(path, channels, reduced, Init::KaimingFanOut)
    }

    /// The same with these initial weights.
    pub fn with_init(path: &Path, channels: i64, reduced: i64, init: Init) -> Self {
        let pointwise = Conv2dConfig::square(1).bias().init(init);
        Self {
            fc1: Conv2d::new(&(path / "fc1"), channels, reduced, pointwise),
            fc2: Conv2d::new(&(path / "fc2"), reduced, channels, pointwise),
            gate: Activation::Sigmoid,
        }
    }

    /// What a host sees of the layer called `name`.
    pub(crate) fn modules(&self, name: &str) -> [(String, Module); 2] {
        [(format!("{name}.fc1"), self.fc1.module()), (format!("{name}.fc2"), self.fc2.module())]
    }

    /// The scaled map, for one layer, which need not keep it for the backward
    /// pass; nor is `x` kept where it can be recomputed.
    pub(crate) fn forward_recomputable(&self, x: Recomputable, mode: &Mode) -> Recomputable {
        let gate = x.map().beside_images(&self.gate(x.map(), mode));
        let (input, kept) = (x.recompute_fn(), gate.detach());
        let map = x.apply_to_map(|map| map.map(|x| x * &gate));
        Recomputable::new(map, move || input.call() * &kept)
    }

    /// The factor of every image and channel, `[N, C]`.
    fn gate(&self, x: &FeatureMap, mode: &Mode) -> Tensor {
        let pooled = FeatureMap::Grid(global_avg_pool(x).unsqueeze(-1).unsqueeze(-1));
        let squeezed = Activation::Relu.forward(&self.fc1.forward(&pooled, mode), mode);
        let gate = self.gate.forward(&self.fc2.forward(&squeezed, mode), mode);
        gate.tensor().flatten(1, -1)
    }
}

impl Layer for SqueezeExcite {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        x.scale_images(&self.gate(x, mode))
    }
}
