//! Convolutional backbones written once and run on two kinds of feature map:
//! the whole grid, for detection and classification, and the visible patches
//! alone, for masked pretraining.
//!
//! A network is a list of [`layers`]; each layer computes on any
//! [`FeatureMap`]. [`models`] holds the architectures by name, [`weights`]
//! reads and writes the files other frameworks use.

mod backbone;
pub mod error;
pub mod feature_map;
pub mod graph;
pub mod hub;
pub mod init;
mod kernels;
pub mod layers;
pub mod mask;
pub mod mode;
pub mod models;
mod modules;
pub mod plugin;
pub mod pt2;
pub mod weights;

pub use backbone::{Backbone, NormKind, Stage};
pub use error::{Error, Result};
pub use feature_map::FeatureMap;
pub use init::Init;
pub use kernels::to_device_nonblocking;
pub use mask::{PatchMask, Size};
pub use mode::{DropPathDraws, Mode, SyncBatchNorm};
pub use modules::{Module, NormControl};
