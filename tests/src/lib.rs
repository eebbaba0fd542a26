//! What the cross-crate tests share.

mod python;

pub use python::{python, run_python};
