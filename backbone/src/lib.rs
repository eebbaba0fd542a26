//! Convolutional backbones written once and run on two kinds of feature map:
//! the whole grid, for detection and classification, and the visible patches
//! alone, for masked pretraining.
//!
//! A network is a list of [`layers`]; each layer computes on any
//! [`FeatureMap`]. [`models`] holds the architectures by name, [`weights`]
//! reads and writes the files other frameworks use.

pub mod error;
pub mod models;
pub mod weights;

pub use error::{Error, Result};
