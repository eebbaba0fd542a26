//! Layers that run on every kind of [`FeatureMap`]: the grid, the visible
//! patches, and the masked grid. Parameters carry PyTorch's names.
//!
//! A network of your own needs [`Layer::forward`] and nothing else.
//!
//! In training, layers keep little for the backward pass: they recompute what is
//! cheap. They can be differentiated once: gradients of gradients (`create_graph`)
//! are refused on processors.
//!
//! A layer assumes input that fits it (the backbone's boundary checks that);
//! misuse panics with a sentence that names the layer's rule.

mod activation;
mod conv;
mod conv_transpose;
mod drop_path;
mod linear;
mod mask_token;
mod norm;
mod pool;
mod recompute;
mod scale;
mod sliding;
mod tiles;
mod up_block;

pub use activation::Activation;
pub use conv::{Conv2d, Conv2dConfig};
pub use conv_transpose::ConvTranspose4x4;
pub use drop_path::{DropPath, drop_path_rates};
pub use linear::Linear;
pub use mask_token::fill_masked;
pub use norm::{BatchNorm2d, GroupNorm, LayerNorm2d, Norm, check_batch_statistics};
pub(crate) use norm::{BatchNormParts, check_values};
pub use pool::{AvgPool2d, MaxPool2d, global_avg_pool};
pub(crate) use recompute::Recomputable;
pub use scale::{LayerScale, SqueezeExcite};
pub(crate) use sliding::Sliding;
pub use up_block::UpBlock;

use crate::FeatureMap;
use crate::mode::Mode;

/// One step of a network.
pub trait Layer: std::fmt::Debug {
    /// The layer's output on `x`, of the same kind as `x`.
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap;
}

/// Layers one after another.
impl Layer for Vec<Box<dyn Layer>> {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.iter().fold(x.clone(), |x, layer| layer.forward(&x, mode))
    }
}
