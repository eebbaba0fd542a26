//! Operators on boxes and maps, each against its reference: anchors, box coder,
//! matcher, samplers, NMS, RoIAlign, mask pasting.

pub mod anchors;
pub mod box_coder;
pub mod matcher;
pub mod nms;
pub mod paste;
pub mod roi_align;
pub mod sampling;

pub use anchors::{AnchorGenerator, AnchorStyle};
pub use box_coder::BoxCoder;
pub use matcher::{Match, Matcher};
pub use nms::{batched_nms, nms};
pub use paste::{MaskPaste, paste_masks};
pub use roi_align::roi_align;
pub use sampling::subsample;
