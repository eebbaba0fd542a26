//! Image classification on any registered backbone: fine-tuning with SparK's
//! official recipe, evaluation, prediction, and probes of frozen features.
//!
//! "Designing BERT for Convolutional Networks" (Tian et al., ICLR 2023),
//! `downstream_imagenet`.

pub mod classifier;
pub mod cli;
pub mod data;
pub mod evaluation;
pub mod inference;
pub mod losses;
pub mod saved;
pub mod train;
pub mod whole;
