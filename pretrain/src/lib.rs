//! SparK pretraining: mask, encode sparsely, densify, decode, compare.
//!
//! "Designing BERT for Convolutional Networks: Sparse and Hierarchical Masked
//! Modeling" (Tian et al., ICLR 2023).

pub mod picture;
pub mod spark;
pub mod sparsity;
