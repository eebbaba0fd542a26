//! Layers that run on every kind of [`FeatureMap`]: the grid, the visible
//! patches, and the masked grid. Parameters carry PyTorch's names.
//!
//! In training, layers keep little for the backward pass ([`Recomputed`]) and can be
//! differentiated once: gradients of gradients (`create_graph`) are refused on
//! processors.
//!
//! A layer assumes input that fits it (the backbone's boundary checks that);
//! misuse panics with a sentence that names the layer's rule.

mod activation;
mod conv;
mod conv_transpose;
mod drop_path;
mod filled;
mod linear;
mod norm;
mod pool;
mod recomputed;
mod scale;
mod sliding;
mod tiles;

pub use activation::Activation;
pub use conv::{Conv2d, Conv2dConfig};
pub use conv_transpose::ConvTranspose4x4;
pub use drop_path::{DropPath, drop_path_rates};
pub use filled::fill;
pub use linear::Linear;
pub(crate) use norm::check_values;
pub use norm::{BatchNorm2d, GroupNorm, LayerNorm2d, check_batch_statistics};
pub use pool::{AvgPool2d, MaxPool2d, global_avg_pool};
pub use recomputed::Recomputed;
pub use scale::{LayerScale, SqueezeExcite};

use crate::FeatureMap;
use crate::mode::Mode;

/// One step of a network.
pub trait Layer: std::fmt::Debug {
    /// The layer's output on `x`, of the same kind as `x`.
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap;

    /// The same of a map that nobody else needs, so that it is not kept for the
    /// backward pass where it can be made again.
    fn consume(&self, x: Recomputed, mode: &Mode) -> FeatureMap {
        self.forward(&x.into_map(), mode)
    }

    /// The output for one other layer, which need not keep it where it is quickly
    /// made again of `x`.
    fn recomputed(&self, x: &FeatureMap, mode: &Mode) -> Recomputed {
        self.forward(x, mode).into()
    }
}

/// Layers one after another.
impl Layer for Vec<Box<dyn Layer>> {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.iter().fold(x.clone(), |x, layer| layer.forward(&x, mode))
    }
}
