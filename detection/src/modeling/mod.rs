//! The detector: feature pyramid, region proposals, heads, and Mask R-CNN put together.
