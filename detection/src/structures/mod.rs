//! What passes between data, model and evaluation: boxes, masks, targets and
//! detections.

mod boxes;
mod detections;
mod mask;
mod mask_geometry;
mod mask_patch;
mod polygon;
pub(crate) mod rle;
mod targets;

pub use boxes::Boxes;
pub use detections::Detections;
pub use mask::{Bitmap, InstanceMask};
pub use mask_patch::MaskPatch;
pub use targets::Targets;
