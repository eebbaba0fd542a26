//! A block of SparK's decoder.

use tch::nn::Path;

use super::{Activation, BatchNorm2d, Conv2d, Conv2dConfig, ConvTranspose4x4, Layer, Recomputable};
use crate::{FeatureMap, Init, Mode};

/// Doubles a map's sides, then two 3×3 convolutions with batch norms, ReLU6
/// between them (official `decoder.py`, `UNetBlock`). Of whole grids.
#[derive(Debug)]
pub struct UpBlock {
    up_sample: ConvTranspose4x4,
    conv0: Conv2d,
    norm1: BatchNorm2d,
    conv3: Conv2d,
    norm4: BatchNorm2d,
}

impl UpBlock {
    /// From `[N, from, H, W]` to `[N, to, 2H, 2W]`. Parameters `up_sample` and
    /// `conv.0`, `conv.1`, `conv.3`, `conv.4` under `path`, the official names.
    pub fn new(path: &Path, from: i64, to: i64) -> Self {
        let config = Conv2dConfig::square(3).init(Init::TRUNC_NORMAL_02);
        let conv = path / "conv";
        Self {
            up_sample: ConvTranspose4x4::new(&(path / "up_sample"), from),
            conv0: Conv2d::new(&(&conv / 0), from, from, config),
            norm1: BatchNorm2d::new(&(&conv / 1), from),
            conv3: Conv2d::new(&(&conv / 3), from, to, config),
            norm4: BatchNorm2d::new(&(&conv / 4), to),
        }
    }

    /// `blocks` one after another. What passes between them is not kept for the
    /// backward pass.
    pub fn forward_sequence(blocks: &[Self], x: FeatureMap, mode: &Mode) -> FeatureMap {
        let x = blocks.iter().fold(x.into(), |x, block| block.forward_owned(x, mode));
        x.into_map()
    }

    fn forward_owned(&self, x: Recomputable, mode: &Mode) -> Recomputable {
        let x = self.up_sample.forward_fused(&self.conv0, x, mode);
        let x = self.norm1.forward_act(Activation::Relu6, x.into(), mode);
        let x = self.conv3.forward_owned(x, mode);
        self.norm4.forward_act(Activation::Identity, x.into(), mode)
    }
}

impl Layer for UpBlock {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.forward_owned(x.clone().into(), mode).into_map()
    }
}
