//! What the cross-crate tests share.

pub mod coco_cases;
pub mod coco_set;
pub mod difference;
mod python;
pub mod rule;

pub use python::{python, run_python};
