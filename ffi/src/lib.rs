//! The backbones as a shared library, `libspark_backbone.so`, for hosts on
//! libtorch: C (`include/spark_backbone.h`), C++
//! (`include/spark/backbone.hpp`), TorchScript (`torch.classes.spark.Backbone`)
//! and, over that, the Python package in `python/`.
//!
//! `abi` is the C interface, and everything else stands on it. `handle`
//! holds what a call does in safe Rust, `edge` keeps panics, bad pointers and
//! bad strings from crossing, `bridge` reaches the C++ that tch does not
//! offer.

mod abi;
mod bridge;
mod config;
mod edge;
mod handle;
