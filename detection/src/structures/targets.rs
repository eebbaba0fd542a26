//! What a training image holds.

use tch::{Device, Tensor};

use super::{Boxes, InstanceMask};

/// The labelled objects of one image, crowds left out.
#[derive(Debug)]
pub struct Targets {
    /// `[N, 4]`, float32, in the pixels of the image as it is fed.
    pub boxes: Boxes,
    /// `[N]`, int64, 0 the first class (the background has no number here).
    pub classes: Tensor,
    /// N masks in the pixels of the image as it is fed.
    pub masks: Vec<InstanceMask>,
}

impl Targets {
    /// The same objects with the tensors on `device`.
    pub fn to_device(&self, device: Device) -> Self {
        Self {
            boxes: Boxes(self.boxes.0.to_device(device)),
            classes: self.classes.to_device(device),
            masks: self.masks.clone(),
        }
    }
}
