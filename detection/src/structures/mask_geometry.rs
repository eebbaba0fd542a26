//! Masks under the transforms of their images, and cut out by boxes.

use super::{Bitmap, InstanceMask};

impl InstanceMask {
    /// Mirrored in an image that is `width` pixels wide.
    pub fn flip_horizontal(&self, width: f64) -> Self {
        match self {
            InstanceMask::Polygons(polygons) => {
                InstanceMask::Polygons(map_points(polygons, |x, y| (width - x, y)))
            }
            InstanceMask::Bitmap(bitmap) => {
                let mut flipped = bitmap.clone();
                let rows = flipped.pixels.chunks_exact_mut(bitmap.width.max(1));
                rows.for_each(|row| row.reverse());
                InstanceMask::Bitmap(flipped)
            }
        }
    }

    /// Scaled with its image: x times `sx`, y times `sy`; the image then has
    /// `(height, width)`. A bitmap takes the nearest pixel.
    pub fn scale(&self, sx: f64, sy: f64, (height, width): (usize, usize)) -> Self {
        match self {
            InstanceMask::Polygons(polygons) => {
                InstanceMask::Polygons(map_points(polygons, |x, y| (x * sx, y * sy)))
            }
            InstanceMask::Bitmap(bitmap) => {
                InstanceMask::Bitmap(bitmap.resize_nearest(height, width))
            }
        }
    }

    /// What lies in the rectangle of the image from `(left, top)`, `height` ×
    /// `width` pixels, in the rectangle's coordinates. Polygons are cut at its
    /// edges; those outside vanish.
    pub fn crop(&self, left: usize, top: usize, height: usize, width: usize) -> Self {
        let _ = (left, top, height, width);
        todo!()
    }

    /// What a mask head has to predict for `area` (x1, y1, x2, y2): `side` × `side`
    /// cells, row by row, 1 inside, 0 outside. Polygons are rasterised in the box's
    /// frame, bitmaps pooled by RoIAlign and cut at one half (detectron2's
    /// `PolygonMasks` and `BitMasks`).
    pub fn crop_and_resize(&self, area: [f64; 4], side: usize) -> Vec<f32> {
        let _ = (area, side);
        todo!()
    }
}

impl Bitmap {
    /// [`InstanceMask::crop_and_resize`] as torchvision does it: RoIAlign without
    /// the half-pixel shift, its values as they come.
    pub fn crop_and_resize_soft(&self, area: [f64; 4], side: usize) -> Vec<f32> {
        let _ = (area, side);
        todo!()
    }

    /// Every pixel takes its nearest one's value.
    fn resize_nearest(&self, height: usize, width: usize) -> Bitmap {
        let _ = (height, width);
        todo!()
    }
}

fn map_points(polygons: &[Vec<f64>], map: impl Fn(f64, f64) -> (f64, f64)) -> Vec<Vec<f64>> {
    let one = |polygon: &Vec<f64>| {
        polygon
            .chunks_exact(2)
            .flat_map(|point| <[f64; 2]>::from(map(point[0], point[1])))
            .collect()
    };
    polygons.iter().map(one).collect()
}
