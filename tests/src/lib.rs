//! What the cross-crate tests share.

mod python;
pub mod rule;

pub use python::{python, run_python};
