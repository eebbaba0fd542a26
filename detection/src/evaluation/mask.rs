//! Masks as run lengths, the form that COCO stores and compares.

use hotcoco::mask::{self, RleRef};
use hotcoco::{Image, Rle, Segmentation};
use serde::{Deserialize, Serialize};

use crate::structures::Bitmap;
use crate::{Error, Result};

/// A mask of a whole image as COCO's compressed run lengths: a few hundred
/// bytes where the bitmap has as many as pixels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RleMask {
    height: u32,
    width: u32,
    counts: String,
}

impl RleMask {
    /// Encodes a bitmap.
    ///
    /// # Errors
    /// The pixels are not `height · width`, or more than 2³² of them.
    pub fn encode(bitmap: &Bitmap) -> Result<Self> {
        let Bitmap { height, width, pixels } = bitmap;
        let invalid = |rule: &str| {
            let value = format!("{height}×{width} with {} pixels", pixels.len());
            Error::invalid("mask", value, rule)
        };
        let (Ok(h), Ok(w)) = (u32::try_from(*height), u32::try_from(*width)) else {
            return Err(invalid("its sides must fit 32 bits"));
        };
        if height.checked_mul(*width) != Some(pixels.len()) {
            return Err(invalid("it must hold a pixel for each position"));
        }
        // COCO's runs go down the columns.
        let mut columns = vec![0; pixels.len()];
        if *width > 0 {
            for (y, row) in pixels.chunks_exact(*width).enumerate() {
                for (x, pixel) in row.iter().enumerate() {
                    columns[x * height + y] = *pixel;
                }
            }
        }
        let rle = mask::encode(&columns, h, w).map_err(|error| invalid(&error.to_string()))?;
        Ok(Self::from_rle(&rle))
    }

    /// From a segmentation of `image`: polygons, or run lengths in either spelling.
    ///
    /// # Errors
    /// Run lengths of another size, that do not fill the mask, or whose text is none.
    pub(super) fn of_segmentation(
        segmentation: &Segmentation,
        image: &Image,
    ) -> std::result::Result<Self, String> {
        let (height, width) = (image.height, image.width);
        let Some(runs) = segmentation.rle_ref() else {
            let rle = segmentation.to_rle(height, width);
            return match rle {
                Ok(rle) if height > 0 && width > 0 => Ok(Self::from_rle(&rle)),
                _ => Err(format!("its image has {height}×{width} pixels")),
            };
        };
        let (RleRef::Compressed { h, w, .. } | RleRef::Runs { h, w, .. }) = runs;
        if (h, w) != (height, width) {
            return Err(format!("its mask has {h}×{w} pixels, its image {height}×{width}"));
        }
        let rle = runs
            .to_rle()
            .map_err(|_| "its run lengths can't be decoded or exceed its size".to_owned())?;
        let pixels: u64 = rle.counts.iter().map(|&run| u64::from(run)).sum();
        if pixels != u64::from(h) * u64::from(w) {
            return Err(format!("it has runs of {pixels} pixels for {h}×{w}"));
        }
        Ok(Self::from_rle(&rle))
    }

    /// Nothing of an image; none of one without a size.
    pub(super) fn empty(height: u32, width: u32) -> Option<Self> {
        let pixels = height.checked_mul(width).filter(|pixels| *pixels > 0)?;
        Some(Self::from_rle(&Rle { h: height, w: width, counts: vec![pixels] }))
    }

    pub(crate) fn from_rle(rle: &Rle) -> Self {
        Self { height: rle.h, width: rle.w, counts: mask::rle_to_string(rle) }
    }

    /// (height, width) of the image.
    pub fn size(&self) -> (u32, u32) {
        (self.height, self.width)
    }

    /// The smallest box around the mask: x, y, width, height; zeros for an
    /// empty mask.
    pub fn bounding_box(&self) -> [f64; 4] {
        // Every constructor has checked the runs.
        self.runs().to_bbox().unwrap_or_default()
    }

    /// Pixels inside.
    pub fn area(&self) -> u64 {
        self.runs().area().unwrap_or_default()
    }

    /// The mask pixel by pixel.
    pub fn decode(&self) -> Bitmap {
        let (height, width) = (self.height as usize, self.width as usize);
        let columns = self.runs().to_rle().map(|rle| mask::decode(&rle)).unwrap_or_default();
        let mut pixels = vec![0; height * width];
        if height > 0 {
            for (x, column) in columns.chunks_exact(height).enumerate() {
                for (y, pixel) in column.iter().enumerate() {
                    pixels[y * width + x] = *pixel;
                }
            }
        }
        Bitmap { height, width, pixels }
    }

    /// The run lengths, for what is done run by run.
    pub(crate) fn to_rle(&self) -> Rle {
        self.runs().to_rle().unwrap_or(Rle { h: self.height, w: self.width, counts: Vec::new() })
    }

    fn runs(&self) -> RleRef<'_> {
        RleRef::Compressed { counts: &self.counts, h: self.height, w: self.width }
    }

    /// As annotation files hold it.
    pub fn segmentation(&self) -> Segmentation {
        Segmentation::CompressedRle { size: [self.height, self.width], counts: self.counts.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bitmap(height: usize, width: usize, inside: impl Fn(usize, usize) -> bool) -> Bitmap {
        let pixels = (0..height * width).map(|at| u8::from(inside(at / width, at % width)));
        Bitmap { height, width, pixels: pixels.collect() }
    }

    #[test]
    fn bitmaps_survive_and_know_their_box() {
        let shape =
            bitmap(7, 5, |y, x| (2..5).contains(&y) && (1..3).contains(&x) || (y, x) == (5, 1));
        let mask = RleMask::encode(&shape).unwrap();
        assert_eq!(mask.decode(), shape);
        assert_eq!(mask.size(), (7, 5));
        assert_eq!((mask.area(), mask.bounding_box()), (7, [1.0, 2.0, 2.0, 4.0]));
        for shape in
            [bitmap(3, 4, |_, _| false), bitmap(3, 4, |_, _| true), bitmap(0, 0, |_, _| true)]
        {
            assert_eq!(RleMask::encode(&shape).unwrap().decode(), shape);
        }
        let empty = RleMask::encode(&bitmap(3, 4, |_, _| false)).unwrap();
        assert_eq!((empty.area(), empty.bounding_box()), (0, [0.0; 4]));
    }

    #[test]
    fn pixels_must_fill_the_mask() {
        let mut short = bitmap(3, 4, |_, _| true);
        short.pixels.pop();
        let message = RleMask::encode(&short).unwrap_err().to_string();
        assert_eq!(
            message,
            "mask is 3×4 with 11 pixels, but it must hold a pixel for each position"
        );
        let runs = Segmentation::UncompressedRle { size: [3, 4], counts: vec![3, 4] };
        let image = Image { height: 3, width: 4, ..Image::default() };
        let problem = RleMask::of_segmentation(&runs, &image).unwrap_err();
        assert_eq!(problem, "it has runs of 7 pixels for 3×4");
    }
}
