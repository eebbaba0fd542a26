//! What the detector finds in an image.

use tch::Tensor;

use super::Boxes;

/// Objects found in one image, best first.
#[derive(Debug)]
pub struct Detections {
    /// `[N, 4]` in the pixels of the image that was fed.
    pub boxes: Boxes,
    /// `[N]`, in 0–1, falling.
    pub scores: Tensor,
    /// `[N]`, int64, 0 the first class.
    pub classes: Tensor,
    /// `[N, 1, M, M]`: probability of the mask in each cell of the box; none
    /// where the model has no mask head.
    pub masks: Option<Tensor>,
}
