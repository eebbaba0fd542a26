//! Masks under the transforms of their images, and cut out by boxes.
//!
//! detectron2 `structures/masks.py` and torchvision's `project_masks_on_boxes`
//! for the targets of mask heads.

use super::mask::rasterize;
use super::polygon::clip_to_rectangle;
use super::rle::{self, nearest_source};
use super::{Bitmap, InstanceMask, MaskPatch};

impl InstanceMask {
    /// Mirrored in an image that is `width` pixels wide.
    pub fn flip_horizontal(&self, width: f64) -> Self {
        match self {
            InstanceMask::Polygons(polygons) => {
                InstanceMask::Polygons(map_points(polygons, |x, y| (width - x, y)))
            }
            InstanceMask::Rle(runs) => InstanceMask::Rle(rle::flip_horizontal(runs)),
            InstanceMask::Bitmap(bitmap) => {
                let mut flipped = bitmap.clone();
                let rows = flipped.pixels.chunks_exact_mut(bitmap.width.max(1));
                rows.for_each(<[u8]>::reverse);
                InstanceMask::Bitmap(flipped)
            }
        }
    }

    /// Scaled with its image: x times `sx`, y times `sy`; the image then has
    /// `(height, width)`. Run lengths and bitmaps take the nearest pixel.
    pub fn scale(&self, sx: f64, sy: f64, (height, width): (usize, usize)) -> Self {
        match self {
            InstanceMask::Polygons(polygons) => {
                InstanceMask::Polygons(map_points(polygons, |x, y| (x * sx, y * sy)))
            }
            InstanceMask::Rle(runs) => InstanceMask::Rle(rle::resize_nearest(runs, height, width)),
            InstanceMask::Bitmap(bitmap) => {
                InstanceMask::Bitmap(bitmap.resize_nearest(height, width))
            }
        }
    }

    /// What lies in the rectangle of the image from `(left, top)`, `height` ×
    /// `width` pixels, in the rectangle's coordinates. Polygons are cut at its
    /// edges; those outside vanish. Beyond run lengths and bitmaps there is nothing.
    pub fn crop(&self, left: usize, top: usize, height: usize, width: usize) -> Self {
        match self {
            InstanceMask::Polygons(polygons) => {
                let (x, y) = (left as f64, top as f64);
                let area = [x, y, x + width as f64, y + height as f64];
                let inside: Vec<Vec<f64>> =
                    polygons.iter().filter_map(|one| clip_to_rectangle(one, area)).collect();
                InstanceMask::Polygons(map_points(&inside, |px, py| (px - x, py - y)))
            }
            InstanceMask::Rle(runs) => InstanceMask::Rle(rle::crop(runs, left, top, height, width)),
            InstanceMask::Bitmap(bitmap) => {
                InstanceMask::Bitmap(bitmap.crop(left, top, height, width))
            }
        }
    }

    /// What a mask head has to predict for `area` (x1, y1, x2, y2): `side` × `side`
    /// cells, row by row, 1 inside, 0 outside. Polygons are rasterised in the box's
    /// frame, others pooled by RoIAlign and cut at one half (detectron2's
    /// `PolygonMasks` and `BitMasks`).
    pub fn crop_and_resize(&self, area: [f64; 4], side: usize) -> Vec<f32> {
        match self {
            InstanceMask::Polygons(polygons) => {
                let [x1, y1, x2, y2] = area;
                // A box without width would scale by infinity.
                let ratio = |length: f64| side as f64 / length.max(SHORTEST_SIDE);
                let (sx, sy) = (ratio(x2 - x1), ratio(y2 - y1));
                let framed = map_points(polygons, |x, y| ((x - x1) * sx, (y - y1) * sy));
                let cells = rasterize(&framed, side, side).expect("a head's mask is small");
                Bitmap::from_rle(&cells).pixels.into_iter().map(f32::from).collect()
            }
            InstanceMask::Rle(runs) => MaskPatch::of_runs(runs).binary(area, side),
            InstanceMask::Bitmap(bitmap) => MaskPatch::of_bitmap(bitmap).binary(area, side),
        }
    }
}

/// Pixels that a box has at least where polygons are scaled to it (detectron2).
const SHORTEST_SIDE: f64 = 0.1;

impl Bitmap {
    /// Every pixel takes the value of the one that its centre falls into.
    fn resize_nearest(&self, height: usize, width: usize) -> Bitmap {
        if self.pixels.is_empty() {
            return Bitmap::empty(height, width);
        }
        let columns: Vec<usize> =
            (0..width).map(|x| nearest_source(x, self.width, width)).collect();
        let row = |y: usize| &self.pixels[nearest_source(y, self.height, height) * self.width..];
        let pixels = (0..height).flat_map(|y| columns.iter().map(move |&x| row(y)[x])).collect();
        Bitmap { height, width, pixels }
    }

    /// The rectangle from `(left, top)`; nothing beyond the bitmap.
    fn crop(&self, left: usize, top: usize, height: usize, width: usize) -> Bitmap {
        let mut cropped = Bitmap::empty(height, width);
        let copied = width.min(self.width.saturating_sub(left));
        if copied == 0 {
            return cropped;
        }
        let rows = self.pixels.chunks_exact(self.width).skip(top);
        for (from, to) in rows.zip(cropped.pixels.chunks_exact_mut(width)) {
            to[..copied].copy_from_slice(&from[left..left + copied]);
        }
        cropped
    }
}

/// The polygons with every corner mapped.
fn map_points(polygons: &[Vec<f64>], map: impl Fn(f64, f64) -> (f64, f64)) -> Vec<Vec<f64>> {
    let corners = |polygon: &Vec<f64>| {
        let corner = |point: &[f64]| <[f64; 2]>::from(map(point[0], point[1]));
        polygon.chunks_exact(2).flat_map(corner).collect()
    };
    polygons.iter().map(corners).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bitmap(height: usize, width: usize, inside: impl Fn(usize, usize) -> bool) -> Bitmap {
        let pixel = |at: usize| u8::from(inside(at / width, at % width));
        Bitmap { height, width, pixels: (0..height * width).map(pixel).collect() }
    }

    /// A rectangle (x1, y1, x2, y2) as polygon and, in a 12×16 image, as bitmap and as run
    /// lengths.
    fn each(area: [usize; 4]) -> [InstanceMask; 3] {
        let [x1, y1, x2, y2] = area.map(|side| side as f64);
        let inside = |y, x| (area[1]..area[3]).contains(&y) && (area[0]..area[2]).contains(&x);
        let bitmap = bitmap(12, 16, inside);
        [
            InstanceMask::Polygons(vec![vec![x1, y1, x2, y1, x2, y2, x1, y2]]),
            InstanceMask::Rle(bitmap.to_rle().unwrap()),
            InstanceMask::Bitmap(bitmap),
        ]
    }

    #[test]
    fn all_forms_transform_alike() {
        for mask in each([3, 2, 8, 7]) {
            assert_eq!(mask.bounding_box(), Some([3.0, 2.0, 8.0, 7.0]));
            assert_eq!(mask.to_bitmap((12, 16)).unwrap().area(), 25);
            let flipped = mask.flip_horizontal(16.0);
            assert_eq!(flipped.bounding_box(), Some([8.0, 2.0, 13.0, 7.0]));
            let scaled = mask.scale(2.0, 3.0, (36, 32));
            assert_eq!(scaled.bounding_box(), Some([6.0, 6.0, 16.0, 21.0]));
            let cropped = mask.crop(5, 3, 6, 10);
            assert_eq!(cropped.bounding_box(), Some([0.0, 0.0, 3.0, 4.0]));
            assert_eq!(cropped.to_bitmap((6, 10)).unwrap().area(), 12);
            assert_eq!(mask.crop(9, 0, 5, 5).bounding_box(), None);
            // Its left and upper half, seen through a box twice as wide.
            let cells = mask.crop_and_resize([3.0, 2.0, 13.0, 7.0], 4);
            assert_eq!(cells, [1.0, 1.0, 0.0, 0.0].repeat(4));
        }
    }

    #[test]
    fn a_mask_of_another_size_is_refused() {
        let [polygons, others @ ..] = each([0, 0, 1, 1]);
        assert_eq!(polygons.to_bitmap((12, 17)).unwrap().area(), 1);
        for mask in others {
            let message = mask.to_bitmap((12, 17)).unwrap_err().to_string();
            assert!(message.contains("12×16") && message.contains("12×17"), "{message}");
        }
    }

    #[test]
    fn targets_of_empty_masks_and_boxes_are_zero() {
        let nothing = InstanceMask::Polygons(vec![]);
        assert_eq!(nothing.crop_and_resize([0.0, 0.0, 4.0, 4.0], 2), [0.0; 4]);
        assert_eq!(nothing.bounding_box(), None);
        let line = InstanceMask::Polygons(vec![vec![0.0, 0.0, 4.0, 4.0]]);
        assert_eq!(line.crop_and_resize([0.0, 0.0, 4.0, 4.0], 2), [0.0; 4]);
        let full = InstanceMask::Bitmap(bitmap(4, 4, |_, _| true));
        assert_eq!(full.crop_and_resize([1.0, 1.0, 1.0, 1.0], 2), [0.0; 4]);
        assert_eq!(full.crop_and_resize([9.0, 9.0, 12.0, 12.0], 2), [0.0; 4]);
    }

    proptest! {
        #[test]
        fn run_lengths_keep_every_pixel(
            pixels in prop::collection::vec(0u8..2, 1..80),
            width in 1usize..9,
        ) {
            let height = pixels.len() / width;
            prop_assume!(height > 0);
            let pixels = pixels[..height * width].to_vec();
            let bitmap = Bitmap { height, width, pixels };
            let rle = bitmap.to_rle().unwrap();
            prop_assert_eq!(hotcoco::mask::area(&rle) as usize, bitmap.area());
            let [x, y, w, h] = hotcoco::mask::to_bbox(&rle);
            let around = bitmap.bounding_box().unwrap_or([0.0; 4]);
            prop_assert_eq!([x, y, x + w, y + h], around);
            prop_assert_eq!(Bitmap::from_rle(&rle), bitmap);
        }

        #[test]
        fn flipping_twice_changes_nothing(
            pixels in prop::collection::vec(0u8..2, 24),
            width in prop::sample::select(vec![1usize, 2, 3, 4, 6, 8, 12, 24]),
        ) {
            let bitmap = Bitmap { height: 24 / width, width, pixels };
            let mask = InstanceMask::Bitmap(bitmap);
            let width = width as f64;
            prop_assert_eq!(mask.flip_horizontal(width).flip_horizontal(width), mask);
        }
    }
}
