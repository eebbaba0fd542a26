//! Axis-aligned boxes.

use tch::{Device, Tensor};

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

    /// Width times height, `[N]`; negative where one side is.
    pub fn area(&self) -> Tensor {
        let (width, height) = self.sides();
        width * height
    }

    /// The parts inside an image of `(height, width)`.
    pub fn clip(&self, (height, width): (i64, i64)) -> Boxes {
        let side = |at: i64, limit: i64| self.0.select(1, at).clamp(0, limit);
        let rows = [side(0, width), side(1, height), side(2, width), side(3, height)];
        Boxes(Tensor::stack(&rows, 1))
    }

    /// Which boxes have both sides at least `shortest` pixels long, `[N]`, bool
    /// (torchvision's `remove_small_boxes`).
    pub fn at_least(&self, shortest: f64) -> Tensor {
        let (width, height) = self.sides();
        width.ge(shortest).logical_and(&height.ge(shortest))
    }

    /// Intersection over union with each of `others`, `[N, M]`; 0 where they don't
    /// touch, whatever their areas (detectron2's `pairwise_iou`).
    pub fn iou(&self, others: &Boxes) -> Tensor {
        let shared = self.intersection(others);
        let iou = &shared / self.union(others, &shared);
        iou.where_self(&shared.gt(0.0), &shared.zeros_like())
    }

    /// The rows of `indices` (int64) or of a mask (bool), `[N]`.
    pub fn select(&self, which: &Tensor) -> Boxes {
        Boxes(self.0.index(&[Some(which)]))
    }

    /// x times `sx` and y times `sy`.
    pub fn scale(&self, sx: f64, sy: f64) -> Boxes {
        let factors = Tensor::from_slice(&[sx, sy, sx, sy]);
        Boxes(&self.0 * factors.to_kind(self.0.kind()).to_device(self.0.device()))
    }

    /// Mirrored in an image that is `width` pixels wide.
    pub fn flip_horizontal(&self, width: f64) -> Boxes {
        let column = |at: i64| self.0.select(1, at);
        let rows = [width - column(2), column(1), width - column(0), column(3)];
        Boxes(Tensor::stack(&rows, 1))
    }

    /// The same boxes on `device`.
    pub fn to_device(&self, device: Device) -> Boxes {
        Boxes(self.0.to_device(device))
    }

    /// All rows of `parts`, one after the other.
    pub fn cat(parts: &[Boxes]) -> Boxes {
        let rows: Vec<&Tensor> = parts.iter().map(Boxes::tensor).collect();
        Boxes(Tensor::cat(&rows, 0))
    }

    /// Widths and heights.
    fn sides(&self) -> (Tensor, Tensor) {
        let column = |at: i64| self.0.select(1, at);
        (column(2) - column(0), column(3) - column(1))
    }

    /// Area that each box shares with each of `others`, `[N, M]`.
    fn intersection(&self, others: &Boxes) -> Tensor {
        let ours = |at: i64| self.0.slice(1, at, at + 2, 1).unsqueeze(1);
        let theirs = |at: i64| others.0.slice(1, at, at + 2, 1).unsqueeze(0);
        let sides = ours(2).minimum(&theirs(2)) - ours(0).maximum(&theirs(0));
        sides.clamp_min(0.0).prod_dim_int(2, false, None)
    }

    fn union(&self, others: &Boxes, shared: &Tensor) -> Tensor {
        self.area().unsqueeze(1) + others.area().unsqueeze(0) - shared
    }
}

impl Clone for Boxes {
    /// Shares storage.
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxes(rows: &[[f32; 4]]) -> Boxes {
        Boxes(Tensor::from_slice(&rows.concat()).view([-1, 4]))
    }

    fn values(tensor: Tensor) -> Vec<f32> {
        tensor.flatten(0, -1).try_into().unwrap()
    }

    #[test]
    fn iou_by_hand() {
        let some = boxes(&[[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 5.0, 5.0]]);
        let others = boxes(&[[1.0, 0.0, 3.0, 2.0], [2.0, 0.0, 4.0, 2.0], [5.0, 5.0, 5.0, 5.0]]);
        assert_eq!(values(some.iou(&others)), [2.0 / 6.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        let none = boxes(&[]);
        assert_eq!(none.iou(&others).size(), [0, 3]);
        assert_eq!(some.iou(&none).size(), [2, 0]);
    }

    #[test]
    fn clipped_boxes_lie_inside() {
        let clipped = boxes(&[[-3.0, 2.0, 7.0, 9.0], [20.0, 20.0, 30.0, 30.0]]).clip((8, 6));
        assert_eq!(values(clipped.0.copy()), [0.0, 2.0, 6.0, 8.0, 6.0, 8.0, 6.0, 8.0]);
        assert_eq!(values(clipped.area()), [36.0, 0.0]);
        let large = clipped.at_least(6.0);
        assert_eq!(clipped.select(&large).len(), 1);
        assert_eq!(Vec::<bool>::try_from(large).unwrap(), [true, false]);
    }

    #[test]
    fn flips_and_scales() {
        let some = boxes(&[[1.0, 2.0, 4.0, 8.0]]);
        assert_eq!(values(some.flip_horizontal(10.0).0), [6.0, 2.0, 9.0, 8.0]);
        assert_eq!(values(some.scale(2.0, 0.5).0), [2.0, 1.0, 8.0, 4.0]);
        assert_eq!(Boxes::cat(&[some.clone(), some]).len(), 2);
    }
}
