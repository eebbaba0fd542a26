//! The transform without randomness.

use super::super::image::{CropBox, Interpolation};
use super::{Normalize, Transform};
use crate::LazyImage;
use crate::rng::Rng;
use crate::{Error, Result};

/// The evaluation transform: resize, crop the centre, normalise.
#[derive(Debug, Clone)]
pub struct Evaluate {
    resize: Resize,
    size: (usize, usize),
    interpolation: Interpolation,
    normalize: Normalize,
}

/// What is resized to what before the crop.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Resize {
    /// The short side to this, the long one in proportion.
    ShortSide(usize),
    /// Both sides to the output's, out of proportion if need be.
    BothSides,
}

impl Evaluate {
    /// The centre of `size` = (height, width) out of an image resized to `short_side`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the crop is empty or doesn't fit every image of that short side.
    pub fn new(
        short_side: usize,
        size: (usize, usize),
        interpolation: Interpolation,
        normalize: Normalize,
    ) -> Result<Self> {
        let (height, width) = size;
        if height == 0 || width == 0 || height.max(width) > short_side {
            let rule = format!("both sides must be in 1..={short_side}, the short side resized to");
            return Err(Error::invalid("crop size", format!("{height}×{width}"), rule));
        }
        let resize = Resize::ShortSide(short_side);
        Ok(Evaluate { resize, size, interpolation, normalize })
    }

    /// The centre square of `size`, which has a share of `crop_pct` of the short side, rounded
    /// down: timm's crop mode `center`. 224 at 0.95 is cut out of 235.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `size` is 0 or `crop_pct` outside 0..=1 or 0.
    pub fn with_crop_pct(
        size: usize,
        crop_pct: f64,
        interpolation: Interpolation,
        normalize: Normalize,
    ) -> Result<Self> {
        if !(crop_pct > 0.0 && crop_pct <= 1.0) {
            let rule = "it is the crop's share of the resized short side, above 0 and up to 1";
            return Err(Error::invalid("crop_pct", crop_pct, rule));
        }
        let short_side = (size as f64 / crop_pct) as usize;
        Evaluate::new(short_side, (size, size), interpolation, normalize)
    }

    /// The whole image resized to `size` = (height, width), out of proportion if need be: timm's
    /// crop mode `squash` with a crop_pct of 1.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side is 0.
    pub fn squashed(
        size: (usize, usize),
        interpolation: Interpolation,
        normalize: Normalize,
    ) -> Result<Self> {
        if size.0 == 0 || size.1 == 0 {
            let value = format!("{}×{}", size.0, size.1);
            return Err(Error::invalid("size", value, "both sides must be at least 1"));
        }
        Ok(Evaluate { resize: Resize::BothSides, size, interpolation, normalize })
    }
}

impl Transform for Evaluate {
    fn shape(&self) -> [usize; 3] {
        self.normalize.shape(self.size)
    }

    fn apply(&self, picture: &dyn LazyImage, _: &mut Rng, out: &mut [f32]) -> Result<()> {
        // Scores are compared with those of others, so every pixel counts.
        let image = picture.image()?;
        let (width, height) = (image.width(), image.height());
        let short_side = match self.resize {
            Resize::ShortSide(short_side) => short_side,
            Resize::BothSides => {
                let resized = image.resize(self.size, self.interpolation)?;
                return self.normalize.write(&resized, false, out);
            }
        };
        // torchvision cuts the long side's fraction off.
        let scaled = |side: usize| short_side * side / width.min(height);
        let resized = image.resize((scaled(height), scaled(width)), self.interpolation)?;
        let margin = |side: usize, crop: usize| {
            ((side - crop) as f64 / 2.0).round_ties_even() as usize // as Python rounds
        };
        let centre = CropBox {
            top: margin(resized.height(), self.size.0),
            left: margin(resized.width(), self.size.1),
            height: self.size.0,
            width: self.size.1,
        };
        self.normalize.write(&resized.crop(centre)?, false, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Image, Pixels};

    fn identity() -> Normalize {
        Normalize::new(vec![0.0], vec![1.0]).unwrap()
    }

    /// Columns hold their own number, so the crop's place can be read off.
    fn columns(width: usize, height: usize) -> Image {
        let samples = (0..height).flat_map(|_| (0..width).map(|x| x as f32)).collect();
        Image::new(width, height, 1, Pixels::F32(samples)).unwrap()
    }

    #[test]
    fn evaluation_takes_the_centre() {
        let transform = Evaluate::new(2, (2, 2), Interpolation::Bicubic, identity()).unwrap();
        let mut out = [0.0; 4];
        transform.apply(&columns(9, 2), &mut Rng::new(0, &[]), &mut out).unwrap();
        // (9 − 2) / 2 = 3.5 rounds to the even 4.
        assert_eq!(out, [4.0, 5.0, 4.0, 5.0]);
    }

    #[test]
    fn a_squashed_image_keeps_its_edges() {
        let transform = Evaluate::squashed((2, 3), Interpolation::Bilinear, identity()).unwrap();
        let mut out = [0.0; 6];
        transform.apply(&columns(9, 2), &mut Rng::new(0, &[]), &mut out).unwrap();
        // Triangles over six columns, cut at the image's edges, around 1, 4 and 7: the first has
        // weights 2, 3, 2, 1 for columns 0 to 3, before it a half-covered 1.
        assert!(out[0] < out[1] && (out[1] - 4.0).abs() < 1e-5, "{out:?}");
        assert!((out[0] + out[2] - 8.0).abs() < 1e-5 && out[0] < 2.0, "{out:?}");
    }

    #[test]
    fn crop_pct_is_the_share_of_the_short_side() {
        let of = |size, crop_pct| {
            Evaluate::with_crop_pct(size, crop_pct, Interpolation::Bicubic, identity())
        };
        assert_eq!(of(224, 0.95).unwrap().resize, Resize::ShortSide(235));
        assert_eq!(of(224, 0.875).unwrap().resize, Resize::ShortSide(256));
        assert_eq!(of(384, 1.0).unwrap().resize, Resize::ShortSide(384));
        assert!(of(224, 0.0).unwrap_err().to_string().contains("crop_pct is 0"));
        assert!(of(224, 1.1).is_err() && of(224, f64::NAN).is_err() && of(0, 0.9).is_err());
        let refused = Evaluate::squashed((0, 3), Interpolation::Bicubic, identity());
        assert!(refused.unwrap_err().to_string().contains("0×3"));
    }

    #[test]
    fn refuses_a_crop_larger_than_the_short_side() {
        let refused = Evaluate::new(224, (256, 192), Interpolation::Bicubic, identity());
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("256×192") && message.contains("1..=224"), "{message}");
    }
}
