//! Stochastic depth.

use tch::{Kind, Tensor};

use super::{Activation, Layer};
use crate::FeatureMap;
use crate::mode::{DropPathDraws, Mode};

/// Drops a residual branch for whole images while training and scales the
/// kept ones by 1/(1 − rate) ("Deep Networks with Stochastic Depth"; timm's
/// `DropPath`).
#[derive(Debug, Clone, Copy)]
pub struct DropPath {
    rate: f64,
    block: i64,
}

impl DropPath {
    /// Drops with probability `rate`; `block` is the row of
    /// [`DropPathDraws::Table`] to draw from.
    pub fn new(rate: f64, block: usize) -> Self {
        Self { rate, block: block as i64 }
    }

    /// The end of a ResNet's block: the branch `y`, unless it is dropped, and the shortcut,
    /// rectified.
    pub(crate) fn add_relu(
        &self,
        y: &FeatureMap,
        shortcut: &FeatureMap,
        mode: &Mode,
    ) -> FeatureMap {
        Activation::Relu.forward_in_place(self.forward(y, mode).add(shortcut))
    }
}

/// Rates that rise linearly from 0 to `rate` over `blocks` blocks: the rule of
/// both timm's ResNet and ConvNeXt.
pub fn drop_path_rates(rate: f64, blocks: usize) -> Vec<f64> {
    (0..blocks).map(|block| rate * block as f64 / (blocks.max(2) - 1) as f64).collect()
}

impl Layer for DropPath {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        if !mode.training || self.rate == 0.0 {
            return x.clone();
        }
        let draws = match &mode.drop_path {
            DropPathDraws::Off => return x.clone(),
            DropPathDraws::Generator => Tensor::rand([x.batch()], (Kind::Float, x.device())),
            DropPathDraws::Table(table) => table.get(self.block),
        };
        let scale = draws.ge(self.rate).to_kind(x.kind()) / (1.0 - self.rate);
        x.scale_images(&scale)
    }
}
