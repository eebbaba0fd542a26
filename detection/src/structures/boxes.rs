//! Axis-aligned boxes.

use tch::Tensor;

/// Boxes as rows (x1, y1, x2, y2) in absolute pixels, `[N, 4]`, of the corners'
/// continuous coordinates: a box that covers the pixel in column 0 alone has
/// x1 = 0 and x2 = 1 (detectron2 `structures/boxes.py`).
#[derive(Debug)]
pub struct Boxes(pub Tensor);

impl Boxes {
    /// The rows, `[N, 4]`.
    pub fn tensor(&self) -> &Tensor {
        &self.0
    }

    /// How many boxes there are.
    pub fn len(&self) -> i64 {
        self.0.size()[0]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Clone for Boxes {
    /// Shares storage.
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}
