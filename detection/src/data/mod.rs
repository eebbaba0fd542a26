//! COCO-format data sets: reading, augmenting, batching.
//!
//! A [`CocoDataset`] is an annotation file, checked, and the folder of its images. A
//! [`TrainTransform`] or [`EvalTransform`] changes an image and its objects together, and a
//! [`DetectionLoader`] does both on threads ahead of the step. Everything random depends on
//! (seed, epoch, position) alone.

pub(crate) mod annotations;
mod check;
pub(crate) mod coco;
pub(crate) mod findings;
mod loader;
mod objects;
mod plan;
mod sample;
mod transform;

pub use annotations::{GroundTruth, Id};
pub use check::{CheckOptions, ClassRow, DataReport, Distribution, check};
pub use coco::{Category, CocoDataset};
pub use findings::{Finding, Severity};
pub use loader::{CocoSource, DetectionLoader, TrainLoaderOptions};
pub use objects::Objects;
pub use plan::Share;
pub use sample::Sample;
pub use transform::{Augmentation, EvalTransform, TrainTransform};
