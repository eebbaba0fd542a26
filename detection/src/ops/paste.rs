//! Masks of cells pasted into the boxes they were predicted for.
//!
//! detectron2 `layers/mask_ops.py`, torchvision `models/detection/roi_heads.py`.
//! Interpolation is separable and confined to the box, so a mask costs what its
//! box covers, and no image is ever filled: masks come out as run lengths.

use std::ops::Range;

use hotcoco::Rle;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::structures::rle::from_columns;

/// How masks are pasted into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskPaste {
    /// Sampled at the centres of pixels, outside of the mask 0 (detectron2, mmdet).
    Detectron2,
    /// Enlarged by a border of 0 and resized to whole pixels.
    Torchvision,
}

/// Pastes each of `masks` (`[N, 1, M, M]`, probabilities) into its box (`[N, 4]`)
/// in an image of `(height, width)`. A pixel belongs to the object where the
/// interpolated probability is at least `threshold`, or above it as torchvision
/// has it.
pub fn paste_masks(
    masks: &Tensor,
    boxes: &Tensor,
    size: (usize, usize),
    threshold: f32,
    paste: MaskPaste,
) -> Vec<Rle> {
    let side = masks.size()[3] as usize;
    let masks = Vec::<f32>::try_from(masks.flatten(0, -1)).expect("numbers");
    let boxes = Vec::<f32>::try_from(boxes.flatten(0, -1)).expect("numbers");
    masks
        .chunks_exact(side * side)
        .zip(boxes.as_chunks().0)
        .map(|(mask, &area)| paste.mask(mask, side, area, size, threshold))
        .collect()
}

impl MaskPaste {
    /// One mask of `side` × `side` cells in `area` (x1, y1, x2, y2).
    fn mask(
        self,
        mask: &[f32],
        side: usize,
        [x1, y1, x2, y2]: [f32; 4],
        (height, width): (usize, usize),
        threshold: f32,
    ) -> Rle {
        let line = match self {
            Self::Detectron2 => Line::looked_up,
            Self::Torchvision => Line::resized,
        };
        let (rows, columns) = (line(y1, y2, height, side), line(x1, x2, width, side));
        let size = (height, width);
        match self {
            Self::Detectron2 => interpolate(mask, side, &rows, &columns, size, |p| p >= threshold),
            Self::Torchvision => interpolate(mask, side, &rows, &columns, size, |p| p > threshold),
        }
    }
}

/// The pixels of an image's row or column that a mask reaches.
struct Line {
    pixels: Range<usize>,
    /// For each of them: two neighbouring cells, counted from the cell before the
    /// mask's first, and the share of the second.
    samples: Vec<(usize, f32)>,
}

impl Line {
    /// Pixel centres of an image of `size` looked up in a mask of `side` cells from
    /// `low` to `high`; in float32, operation by operation as detectron2 does.
    fn looked_up(low: f32, high: f32, size: usize, side: usize) -> Self {
        let (first, last) = (low.floor() - 1.0, high.ceil() + 1.0);
        let pixels = within(first as i64, last as i64, size);
        let sample = |pixel: usize| {
            let centre = pixel as f32 + 0.5;
            let normalised = (centre - low) / (high - low) * 2.0 - 1.0;
            let position = ((normalised + 1.0) * side as f32 - 1.0) / 2.0;
            // Beyond the border (or no number) all is zero, at any distance.
            let position = position.max(-1.0).min(side as f32);
            (position.floor(), position - position.floor())
        };
        let samples = pixels.clone().map(sample);
        let samples = samples.map(|(cell, share)| ((cell + 1.0) as usize, share)).collect();
        Self { pixels, samples }
    }

    /// A mask of `side` cells and a border of one, resized bilinearly to the whole
    /// pixels of the box that was enlarged with it.
    fn resized(low: f32, high: f32, size: usize, side: usize) -> Self {
        let bordered = side + 2;
        let scale = (bordered as f64 / side as f64) as f32;
        let half = (high - low) * 0.5 * scale;
        let centre = (high + low) * 0.5;
        // Truncated towards zero; saturates.
        let (first, last) = ((centre - half) as i64, (centre + half) as i64);
        let length = last.saturating_sub(first).saturating_add(1).max(1);
        let pixels = within(first, last.saturating_add(1), size);
        let ratio = bordered as f32 / length as f32;
        let sample = |pixel: usize| {
            let position = (ratio * ((pixel as i64 - first) as f32 + 0.5) - 0.5).max(0.0);
            let cell = (position as usize).min(bordered - 1);
            (cell, (position - cell as f32).min(1.0))
        };
        Self { samples: pixels.clone().map(sample).collect(), pixels }
    }
}

/// The pixels from `first` to before `last` that an image of `size` has.
fn within(first: i64, last: i64, size: usize) -> Range<usize> {
    let last = last.clamp(0, size as i64) as usize;
    (first.max(0) as usize).min(last)..last
}

/// Sets the pixels whose interpolated probability lies `inside`.
fn interpolate(
    mask: &[f32],
    side: usize,
    rows: &Line,
    columns: &Line,
    (height, width): (usize, usize),
    inside: impl Fn(f32) -> bool,
) -> Rle {
    // The pixels of the box, column by column as run lengths have them.
    let count = rows.pixels.len();
    let mut pixels = vec![0u8; count * columns.pixels.len()];
    // A row of the mask between zeros: before its first cell, after its last, and
    // once more for the neighbour of the one after.
    let mut line = vec![0.0f32; side + 3];
    let cells = |row: usize| (1..=side).contains(&row).then(|| &mask[(row - 1) * side..][..side]);
    for (y, &(row, share)) in rows.samples.iter().enumerate() {
        line.fill(0.0);
        for (cells, weight) in [(cells(row), 1.0 - share), (cells(row + 1), share)] {
            let Some(cells) = cells else { continue };
            line[1..=side].iter_mut().zip(cells).for_each(|(sum, cell)| *sum += weight * cell);
        }
        for (x, &(cell, share)) in columns.samples.iter().enumerate() {
            let probability = line[cell] * (1.0 - share) + line[cell + 1] * share;
            pixels[x * count + y] = u8::from(inside(probability));
        }
    }
    let corner = (columns.pixels.start, rows.pixels.start);
    from_columns(&pixels, count, corner, (height, width))
}

#[cfg(test)]
mod tests {
    use super::MaskPaste::{Detectron2, Torchvision};
    use super::*;
    use crate::structures::Bitmap;

    fn pasted(paste: MaskPaste, mask: &[f32], area: [f32; 4], size: (usize, usize)) -> Bitmap {
        let side = mask.len().isqrt();
        Bitmap::from_rle(&paste.mask(mask, side, area, size, 0.5))
    }

    #[test]
    fn a_full_mask_fills_its_box() {
        let pasted = pasted(Detectron2, &[1.0; 4], [1.0, 2.0, 4.0, 4.0], (6, 5));
        assert_eq!(pasted.bounding_box(), Some([1.0, 2.0, 4.0, 4.0]));
        assert_eq!(pasted.area(), 6);
    }

    #[test]
    fn boxes_beyond_the_image_paste_what_is_inside() {
        let mask = [1.0; 9];
        let inside = pasted(Detectron2, &mask, [-10.0, -10.0, 2.0, 3.0], (4, 4));
        assert_eq!(inside.bounding_box(), Some([0.0, 0.0, 2.0, 3.0]));
        for area in [[9.0, 9.0, 12.0, 12.0], [-9.0, -9.0, -5.0, -5.0], [f32::NAN; 4]] {
            assert_eq!(pasted(Detectron2, &mask, area, (4, 4)).area(), 0, "{area:?}");
            let torchvision = pasted(Torchvision, &mask, area, (4, 4));
            // A box that is no number is truncated to the first pixel.
            assert!(torchvision.area() <= 1, "{area:?}");
        }
    }

    #[test]
    fn a_box_without_area_holds_nothing() {
        let pasted = pasted(Detectron2, &[1.0; 4], [1.0, 1.0, 1.0, 3.0], (4, 4));
        assert_eq!(pasted.area(), 0);
    }

    #[test]
    fn halves_by_hand() {
        // The left half is certain, the right impossible: between the two cells'
        // centres at x = 2 and 6 the probability falls from 1 to 0.
        let pasted = pasted(Detectron2, &[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 8.0, 4.0], (4, 8));
        let row: Vec<u8> = pasted.pixels[8..16].to_vec();
        assert_eq!(row, [1, 1, 1, 1, 0, 0, 0, 0]);
    }
}
