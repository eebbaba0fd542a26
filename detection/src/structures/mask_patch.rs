//! Targets of mask heads out of the part of a mask that has its pixels.

use std::borrow::Cow;

use hotcoco::Rle;

use super::mask::rasterize;
use super::rle::{Cutout, cut_out};
use super::{Bitmap, InstanceMask};
use crate::Result;
use crate::ops::roi_align::{Axis, CoordinatePrecision, Sampling};

/// A mask ready to be pooled: the pixels around those that are set, and where they lie. Of run
/// lengths and polygons only these are ever drawn.
#[derive(Debug)]
pub struct MaskPatch<'a> {
    /// (height, width) of the whole mask.
    size: (usize, usize),
    left: usize,
    top: usize,
    pixels: Cow<'a, Bitmap>,
}

impl<'a> MaskPatch<'a> {
    /// Of `mask` in its image of `size` (height, width).
    ///
    /// # Errors
    /// An image too large to draw polygons in.
    pub fn new(mask: &'a InstanceMask, size: (usize, usize)) -> Result<Self> {
        Ok(match mask {
            InstanceMask::Polygons(polygons) => {
                Self::of_runs(&rasterize(polygons, size.0, size.1)?)
            }
            InstanceMask::Rle(runs) => Self::of_runs(runs),
            InstanceMask::Bitmap(bitmap) => Self::of_bitmap(bitmap),
        })
    }

    /// Of run lengths.
    pub fn of_runs(runs: &Rle) -> Self {
        let Cutout { left, top, pixels } = cut_out(runs);
        let size = (runs.h as usize, runs.w as usize);
        Self { size, left, top, pixels: Cow::Owned(pixels) }
    }

    /// All of a bitmap.
    pub fn of_bitmap(bitmap: &'a Bitmap) -> Self {
        let size = (bitmap.height, bitmap.width);
        Self { size, left: 0, top: 0, pixels: Cow::Borrowed(bitmap) }
    }

    /// RoIAlign of `area` (x1, y1, x2, y2) cut at one half, as detectron2 does it: `side` × `side`
    /// cells, row by row.
    pub fn binary(&self, area: [f64; 4], side: usize) -> Vec<f32> {
        let cells = self.pool(area, side, true);
        cells.into_iter().map(|share| f32::from(u8::from(share >= 0.5))).collect()
    }

    /// The same as torchvision does it: RoIAlign without the half-pixel shift, its values as they
    /// come.
    pub fn soft(&self, area: [f64; 4], side: usize) -> Vec<f32> {
        self.pool(area, side, false).into_iter().map(|share| share as f32).collect()
    }

    /// RoIAlign of the pixels in `area`, adaptively sampled; `side` × `side`.
    fn pool(&self, [x1, y1, x2, y2]: [f64; 4], side: usize, aligned: bool) -> Vec<f64> {
        // Both references place samples in float32.
        let sampling =
            Sampling { scale: 1.0, ratio: 0, aligned, precision: CoordinatePrecision::Single };
        let vertical = Axis::new(y1, y2, side, self.size.0, &sampling);
        let horizontal = Axis::new(x1, x2, side, self.size.1, &sampling);
        let mut cells = vec![0.0; side * side];
        for (bin, cells) in cells.chunks_exact_mut(side.max(1)).enumerate() {
            for &(y, weight) in vertical.bin(bin) {
                let Some(row) = self.row(y) else { continue };
                for (column, cell) in cells.iter_mut().enumerate() {
                    let covered = horizontal.bin(column).iter().filter(|&&(x, _)| {
                        x.checked_sub(self.left).and_then(|x| row.get(x)).is_some_and(|&p| p != 0)
                    });
                    *cell += weight * covered.map(|&(_, share)| share).sum::<f64>();
                }
            }
        }
        cells
    }

    /// The pixels of row `y` of the whole mask, from `left` on; none where nothing is set.
    fn row(&self, y: usize) -> Option<&[u8]> {
        let (at, width) = (y.checked_sub(self.top)?, self.pixels.width);
        self.pixels.pixels.get(at * width..(at + 1) * width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_targets_by_hand() {
        let pixels = [1, 1, 0, 0].repeat(4);
        let left = Bitmap { height: 4, width: 4, pixels };
        let runs = left.to_rle().unwrap();
        // Without the half-pixel shift a sample at x = 1.5 lies between the columns
        // 1 and 2.
        for patch in [MaskPatch::of_bitmap(&left), MaskPatch::of_runs(&runs)] {
            assert_eq!(patch.soft([0.0, 0.0, 2.0, 2.0], 2), [1.0, 0.5, 1.0, 0.5]);
        }
    }
}
