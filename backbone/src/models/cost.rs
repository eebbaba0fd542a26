//! Counting parameters and arithmetic.

use crate::layers::Conv2dConfig;
use crate::mask::Size;

/// Parameters and multiply-adds of a network. Papers call the latter FLOPs;
/// as in timm's and torchvision's tables, norms, activations and pooling are
/// not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Trainable numbers.
    pub params: i64,
    /// Multiply-adds for one image.
    pub flops: i64,
}

impl Cost {
    /// Adds a convolution whose output measures `size`.
    pub(crate) fn convolution(&mut self, from: i64, to: i64, config: Conv2dConfig, size: Size) {
        let weights = from / config.groups * to * config.kernel.0 * config.kernel.1;
        self.params += weights + if config.bias { to } else { 0 };
        self.flops += weights * size.0 * size.1;
    }

    /// Adds a linear layer applied to `rows` rows; none if `to` is 0.
    pub(crate) fn linear(&mut self, from: i64, to: i64, rows: i64) {
        self.params += if to > 0 { from * to + to } else { 0 };
        self.flops += from * to * rows;
    }

    /// Adds a batch norm's weight and bias.
    pub(crate) fn batch_norm(&mut self, channels: i64) {
        self.params += 2 * channels;
    }

    /// Adds a layer norm's weight and bias.
    pub(crate) fn layer_norm(&mut self, channels: i64) {
        self.params += 2 * channels;
    }
}
