//! The detector: feature pyramid, region proposals, heads, and Mask R-CNN put
//! together.

pub mod config;
mod fpn;
mod images;
mod layers;
mod losses;
mod mask_rcnn;
mod roi_heads;
mod rpn;
pub mod weights;

pub use config::ModelConfig;
pub use fpn::Fpn;
pub use images::ImageBatch;
pub use losses::Losses;
pub use mask_rcnn::{InferenceTrace, MaskRcnn};
pub use roi_heads::RoiHeads;
pub use rpn::{Proposals, Rpn, RpnOutput};
