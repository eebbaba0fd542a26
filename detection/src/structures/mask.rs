//! The mask of one instance.

use hotcoco::Rle;

use super::rle;
use crate::{Error, Result};

/// A mask in the coordinates of its image.
#[derive(Debug, Clone, PartialEq)]
pub enum InstanceMask {
    /// The union of polygons, each x0, y0, x1, y1, … in absolute pixels (COCO).
    Polygons(Vec<Vec<f64>>),
    /// COCO's run lengths, column by column.
    Rle(Rle),
    /// Pixel by pixel.
    Bitmap(Bitmap),
}

/// A mask of a whole image, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 inside, 0 outside; `height · width` of them.
    pub pixels: Vec<u8>,
}

impl Bitmap {
    /// A bitmap without any pixel set.
    pub fn empty(height: usize, width: usize) -> Self {
        Self { height, width, pixels: vec![0; height * width] }
    }

    /// How many pixels are set.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|&&pixel| pixel != 0).count()
    }

    /// The smallest (x1, y1, x2, y2) around the set pixels, if there are any.
    pub fn bounding_box(&self) -> Option<[f64; 4]> {
        let rows = self.pixels.chunks_exact(self.width.max(1));
        let mut found: Option<[usize; 4]> = None;
        for (y, row) in rows.enumerate() {
            let Some(first) = row.iter().position(|&pixel| pixel != 0) else { continue };
            let last = row.iter().rposition(|&pixel| pixel != 0).unwrap_or(first) + 1;
            let [x1, y1, x2, _] = found.unwrap_or([first, y, last, y]);
            found = Some([x1.min(first), y1, x2.max(last), y + 1]);
        }
        found.map(|sides| sides.map(|side| side as f64))
    }

    /// The run lengths that COCO's formats and evaluation work on (column by
    /// column).
    ///
    /// # Errors
    /// More than 2³² pixels.
    pub fn to_rle(&self) -> Result<Rle> {
        let columns = transpose(&self.pixels, self.height, self.width);
        let (height, width) = (to_u32(self.height)?, to_u32(self.width)?);
        hotcoco::mask::encode(&columns, height, width).map_err(|error| {
            Error::invalid("a mask", format!("{height}×{width}"), error.to_string())
        })
    }

    /// The pixels that `rle` stands for.
    pub fn from_rle(rle: &Rle) -> Self {
        rle::decode(rle)
    }
}

impl InstanceMask {
    /// The smallest (x1, y1, x2, y2) around the mask, if it covers anything.
    pub fn bounding_box(&self) -> Option<[f64; 4]> {
        let polygons = match self {
            InstanceMask::Bitmap(bitmap) => return bitmap.bounding_box(),
            InstanceMask::Rle(runs) => {
                let [x, y, width, height] = hotcoco::mask::to_bbox(runs);
                return (width > 0.0).then_some([x, y, x + width, y + height]);
            }
            InstanceMask::Polygons(polygons) => polygons,
        };
        let points = polygons.iter().flat_map(|polygon| polygon.chunks_exact(2));
        points.fold(None, |found, point| {
            let (x, y) = (point[0], point[1]);
            let [x1, y1, x2, y2] = found.unwrap_or([x, y, x, y]);
            Some([x1.min(x), y1.min(y), x2.max(x), y2.max(y)])
        })
    }

    /// (height, width) of its image; polygons do not tell.
    pub fn size(&self) -> Option<(usize, usize)> {
        match self {
            InstanceMask::Polygons(_) => None,
            InstanceMask::Rle(runs) => Some((runs.h as usize, runs.w as usize)),
            InstanceMask::Bitmap(bitmap) => Some((bitmap.height, bitmap.width)),
        }
    }

    /// The pixels of the mask in its image of `(height, width)`; polygons are
    /// rasterised as COCO does it.
    ///
    /// # Errors
    /// A mask of another size.
    pub fn to_bitmap(&self, (height, width): (usize, usize)) -> Result<Bitmap> {
        if let Some(own) = self.size().filter(|own| *own != (height, width)) {
            let rule = format!("its image has {height}×{width} pixels");
            return Err(Error::invalid("a mask", format!("{}×{}", own.0, own.1), rule));
        }
        match self {
            InstanceMask::Bitmap(bitmap) => Ok(bitmap.clone()),
            InstanceMask::Rle(runs) => Ok(Bitmap::from_rle(runs)),
            InstanceMask::Polygons(polygons) => {
                Ok(Bitmap::from_rle(&rasterize(polygons, height, width)?))
            }
        }
    }
}

/// The pixels inside any of `polygons`; those with fewer than three corners have
/// none.
pub(super) fn rasterize(polygons: &[Vec<f64>], height: usize, width: usize) -> Result<Rle> {
    let polygons: Vec<Vec<f64>> =
        polygons.iter().filter(|polygon| polygon.len() >= 6).cloned().collect();
    hotcoco::mask::fr_polys(&polygons, to_u32(height)?, to_u32(width)?)
        .map_err(|error| Error::invalid("a mask", format!("{height}×{width}"), error.to_string()))
}

fn to_u32(side: usize) -> Result<u32> {
    u32::try_from(side)
        .map_err(|_| Error::invalid("a mask's side", side, "it must be below 2³² pixels"))
}

/// A matrix stored row by row, column by column.
fn transpose(pixels: &[u8], rows: usize, columns: usize) -> Vec<u8> {
    (0..columns).flat_map(|x| (0..rows).map(move |y| pixels[y * columns + x])).collect()
}
