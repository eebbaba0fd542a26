//! What the cross-crate tests share.

pub mod coco_cases;
pub mod coco_set;
pub mod difference;
pub mod fixture;
pub mod manifest;
pub mod rule;

pub use test_support::{libtorch_minor, python, run_python};
