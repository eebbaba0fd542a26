//! Mask R-CNN on any [`backbone::Backbone`]: the native check of what a
//! pretrained backbone is worth for detection.
//!
//! "Mask R-CNN" (He et al. 2017) with feature pyramids (Lin et al. 2017), as
//! detectron2 and mmdet build it, on libtorch's own operators alone.

pub mod cli;
pub mod data;
pub mod demo;
pub mod detector;
pub mod error;
pub mod evaluation;
pub mod inference;
pub mod modeling;
pub mod ops;
pub mod picture;
pub mod published;
pub mod saved;
pub mod settings;
pub mod structures;
pub mod train;

pub use error::{Error, Result};
