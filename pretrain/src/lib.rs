//! SparK pretraining: mask, encode sparsely, densify, decode, compare.
//!
//! "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked
//! Modeling" (Tian et al., ICLR 2023). [`spark`] is the model; [`train`] the
//! loop behind the `pretrain` program.

pub mod cli;
pub mod compare;
pub mod config;
pub mod features;
pub mod mask;
pub mod picture;
pub mod playground;
pub mod prepare;
pub mod reconstruct;
pub mod saved;
pub mod spark;
pub mod sparsity;
pub mod train;
