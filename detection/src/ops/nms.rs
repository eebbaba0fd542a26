//! Non-maximum suppression: of boxes that overlap, the best-scored one stays.
//!
//! torchvision `csrc/ops/cpu/nms_kernel.cpp` decides the same way, down to the
//! rounding of float32. Runs on the CPU: the greedy choice is sequential, and
//! the boxes are few; a tensor from another device is copied once.

use std::collections::HashMap;

use tch::{Kind, Tensor};

/// Indices (int64, on the boxes' device) of the boxes that stay, best first.
///
/// A box goes if its IoU with a better one that stays is greater than
/// `threshold`; IoUs are taken in float32. `boxes` is `[N, 4]`, `scores` `[N]`;
/// of equal scores the earlier comes first.
pub fn nms(boxes: &Tensor, scores: &Tensor, threshold: f64) -> Tensor {
    let (rows, order) = fetch(boxes, scores);
    let mut kept = Kept::default();
    let keeps = |&at: &usize| kept.offer(rows[at], threshold);
    indices(order.into_iter().filter(keeps), boxes)
}

/// [`nms`] among the boxes of each of `classes` (`[N]`, int64) separately.
pub fn batched_nms(boxes: &Tensor, scores: &Tensor, classes: &Tensor, threshold: f64) -> Tensor {
    let classes = Vec::<i64>::try_from(classes).expect("a vector of classes");
    let (rows, order) = fetch(boxes, scores);
    let mut kept: HashMap<i64, Kept> = HashMap::new();
    let keeps = |&at: &usize| kept.entry(classes[at]).or_default().offer(rows[at], threshold);
    indices(order.into_iter().filter(keeps), boxes)
}

/// The boxes as rows of float32, and their indices from the best to the worst.
fn fetch(boxes: &Tensor, scores: &Tensor) -> (Vec<[f32; 4]>, Vec<usize>) {
    let boxes = Vec::<f32>::try_from(boxes.flatten(0, -1)).expect("numbers");
    let rows: Vec<[f32; 4]> =
        boxes.chunks_exact(4).map(|row| [row[0], row[1], row[2], row[3]]).collect();
    let scores = Vec::<f64>::try_from(scores).expect("a vector of scores");
    assert_eq!(rows.len(), scores.len(), "NMS: one score a box");
    let mut order: Vec<usize> = (0..rows.len()).collect();
    // Stable. A score that is no number comes first, as in torch.sort.
    order.sort_by(|&a, &b| {
        let (a, b) = (scores[a], scores[b]);
        b.partial_cmp(&a).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
    });
    (rows, order)
}

fn indices(kept: impl Iterator<Item = usize>, boxes: &Tensor) -> Tensor {
    let kept: Vec<i64> = kept.map(|at| at as i64).collect();
    Tensor::from_slice(&kept).to_kind(Kind::Int64).to_device(boxes.device())
}

/// The boxes that stay so far, coordinate by coordinate, so that the comparison
/// of one box with many is vectorised.
#[derive(Default)]
struct Kept {
    x1: Vec<f32>,
    y1: Vec<f32>,
    x2: Vec<f32>,
    y2: Vec<f32>,
    area: Vec<f32>,
}

/// Boxes compared between two looks at whether one of them was hit.
const BLOCK: usize = 32;

impl Kept {
    /// Keeps the box unless one of those kept overlaps it too much; says which.
    fn offer(&mut self, [x1, y1, x2, y2]: [f32; 4], threshold: f64) -> bool {
        let area = (x2 - x1) * (y2 - y1);
        let threshold = largest_float_up_to(threshold);
        let overlaps = |at: usize| {
            // `if` instead of `max`: C++'s std::max and the processor's
            // instruction alike.
            let left = if self.x1[at] < x1 { x1 } else { self.x1[at] };
            let top = if self.y1[at] < y1 { y1 } else { self.y1[at] };
            let right = if x2 < self.x2[at] { x2 } else { self.x2[at] };
            let bottom = if y2 < self.y2[at] { y2 } else { self.y2[at] };
            let width = if right - left > 0.0 { right - left } else { 0.0 };
            let height = if bottom - top > 0.0 { bottom - top } else { 0.0 };
            let shared = width * height;
            shared / (self.area[at] + area - shared) > threshold
        };
        let count = self.area.len();
        let whole = count - count % BLOCK;
        for start in (0..whole).step_by(BLOCK) {
            if (start..start + BLOCK).fold(false, |hit, at| hit | overlaps(at)) {
                return false;
            }
        }
        if (whole..count).any(overlaps) {
            return false;
        }
        self.x1.push(x1);
        self.y1.push(y1);
        self.x2.push(x2);
        self.y2.push(y2);
        self.area.push(area);
        true
    }
}

/// A float32 is greater than `value` if and only if it is greater than this.
fn largest_float_up_to(value: f64) -> f32 {
    let rounded = value as f32;
    if f64::from(rounded) > value { rounded.next_down() } else { rounded }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(boxes: &[[f32; 4]], scores: &[f32], threshold: f64) -> Vec<i64> {
        let boxes = Tensor::from_slice(&boxes.concat()).view([-1, 4]);
        nms(&boxes, &Tensor::from_slice(scores), threshold).try_into().unwrap()
    }

    #[test]
    fn an_overlap_on_the_threshold_stays() {
        // 2 of 4 pixels: one half, exactly.
        let boxes = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]];
        assert_eq!(run(&boxes, &[0.5, 0.75], 0.5), [1, 0]);
        assert_eq!(run(&boxes, &[0.5, 0.75], 0.5 - 1e-12), [1]);
        // 0.7 lies between two float32 numbers, and so does an overlap of 7 in 10.
        let boxes = [[0.0, 0.0, 10.0, 1.0], [0.0, 0.0, 7.0, 1.0]];
        let overlap = f64::from(7.0f32 / 10.0);
        assert_eq!(run(&boxes, &[0.5, 0.75], 0.7).len(), if overlap > 0.7 { 1 } else { 2 });
    }

    #[test]
    fn equal_scores_keep_their_order_and_classes_do_not_meet() {
        let one = [0.0, 0.0, 4.0, 4.0];
        assert_eq!(run(&[one; 3], &[0.5; 3], 0.5), [0]);
        let boxes = Tensor::from_slice(&[one; 3].concat()).view([-1, 4]);
        let scores = Tensor::from_slice(&[0.5f32, 0.5, 0.9]);
        let kept = batched_nms(&boxes, &scores, &Tensor::from_slice(&[3i64, 1, 3]), 0.5);
        assert_eq!(Vec::<i64>::try_from(kept).unwrap(), [2, 1]);
        assert!(run(&[], &[], 0.5).is_empty());
    }

    proptest! {
        /// Against the definition, with enough boxes for whole blocks of comparisons.
        #[test]
        fn as_defined(
            rows in prop::collection::vec((0u8..60, 0u8..60, 0u8..20, 0u8..20, 0u8..30), 0..150),
            threshold in 0.05f64..0.95,
        ) {
            let boxes: Vec<[f32; 4]> = rows
                .iter()
                .map(|&(x, y, w, h, _)| [x, y, x + w, y + h].map(f32::from))
                .collect();
            let scores: Vec<f32> = rows.iter().map(|row| f32::from(row.4)).collect();
            let mut order: Vec<usize> = (0..rows.len()).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let iou = |a: [f32; 4], b: [f32; 4]| {
                let side = |at: usize| (a[at + 2].min(b[at + 2]) - a[at].max(b[at])).max(0.0);
                let area = |c: [f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
                let shared = side(0) * side(1);
                shared / (area(a) + area(b) - shared)
            };
            let mut kept: Vec<usize> = Vec::new();
            for at in order {
                if !kept.iter().any(|&k| f64::from(iou(boxes[k], boxes[at])) > threshold) {
                    kept.push(at);
                }
            }
            let kept: Vec<i64> = kept.into_iter().map(|at| at as i64).collect();
            prop_assert_eq!(run(&boxes, &scores, threshold), kept);
        }
    }
}
