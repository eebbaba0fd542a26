//! The objects of an image on their way from the annotation file to the model.

use tch::Tensor;

use crate::structures::{Boxes, InstanceMask, Targets};

/// Sides of a box below this are none, in pixels (detectron2 `filter_empty_instances`).
const EMPTY: f64 = 1e-5;

/// The labelled objects of one image, crowds left out, in the image's pixels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// (x1, y1, x2, y2) of each.
    pub boxes: Vec<[f64; 4]>,
    /// The class of each, 0 the first.
    pub classes: Vec<i64>,
    /// The mask of each.
    pub masks: Vec<InstanceMask>,
}

impl Objects {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.boxes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.boxes.is_empty()
    }

    /// Scaled with their image from `from` to `to`, both (height, width).
    pub fn resize(&mut self, from: (usize, usize), to: (usize, usize)) {
        let (sx, sy) = (to.1 as f64 / from.1 as f64, to.0 as f64 / from.0 as f64);
        for [x1, y1, x2, y2] in &mut self.boxes {
            (*x1, *y1, *x2, *y2) = (*x1 * sx, *y1 * sy, *x2 * sx, *y2 * sy);
        }
        for mask in &mut self.masks {
            *mask = mask.scale(sx, sy, to);
        }
    }

    /// Mirrored left to right in an image `width` pixels wide.
    pub fn flip_horizontal(&mut self, width: usize) {
        let width = width as f64;
        for [x1, _, x2, _] in &mut self.boxes {
            (*x1, *x2) = (width - *x2, width - *x1);
        }
        for mask in &mut self.masks {
            *mask = mask.flip_horizontal(width);
        }
    }

    /// What is left of them in a part of their image. Their boxes become those of what is left
    /// of their masks, as in detectron2 when it crops; those with nothing left are dropped.
    pub fn crop(&mut self, area: data::CropBox) {
        for (bounds, mask) in self.boxes.iter_mut().zip(&mut self.masks) {
            *mask = mask.crop(area.left, area.top, area.height, area.width);
            *bounds = mask.bounding_box().unwrap_or_default();
        }
        self.keep(|bounds, _| has_area(bounds));
    }

    /// Cuts boxes at the edges of the image of (height, width) and drops the objects without a
    /// box or mask.
    pub fn clip(&mut self, (height, width): (usize, usize)) {
        let (height, width) = (height as f64, width as f64);
        for [x1, y1, x2, y2] in &mut self.boxes {
            (*x1, *x2) = (x1.clamp(0.0, width), x2.clamp(0.0, width));
            (*y1, *y2) = (y1.clamp(0.0, height), y2.clamp(0.0, height));
        }
        self.keep(|bounds, mask| has_area(bounds) && mask.bounding_box().is_some());
    }

    fn keep(&mut self, rule: impl Fn(&[f64; 4], &InstanceMask) -> bool) {
        let kept: Vec<bool> =
            self.boxes.iter().zip(&self.masks).map(|(bounds, mask)| rule(bounds, mask)).collect();
        retain(&mut self.boxes, &kept);
        retain(&mut self.classes, &kept);
        retain(&mut self.masks, &kept);
    }

    /// As tensors on the CPU.
    pub fn into_targets(self) -> Targets {
        let rows: Vec<f32> = self.boxes.iter().flatten().map(|&side| side as f32).collect();
        Targets {
            boxes: Boxes(Tensor::from_slice(&rows).view([self.boxes.len() as i64, 4])),
            classes: Tensor::from_slice(&self.classes),
            masks: self.masks,
        }
    }
}

fn has_area([x1, y1, x2, y2]: &[f64; 4]) -> bool {
    x2 - x1 > EMPTY && y2 - y1 > EMPTY
}

fn retain<T>(all: &mut Vec<T>, kept: &[bool]) {
    let mut kept = kept.iter();
    all.retain(|_| *kept.next().unwrap_or(&false));
}
