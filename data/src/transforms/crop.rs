//! The random part of an image that a sample shows.

use super::super::image::{CropBox, Image, Interpolation};
use crate::rng::Rng;
use crate::{Error, LazyImage, Result};

/// torchvision's `RandomResizedCrop`: a box of random area and aspect ratio, resized.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomResizedCrop {
    size: (usize, usize),
    scale: (f64, f64),
    ratio: (f64, f64),
    interpolation: Interpolation,
}

impl RandomResizedCrop {
    /// SparK's range of the box's share of the image's area.
    pub const SCALE: (f64, f64) = (0.67, 1.0);
    /// timm's and torchvision's, for training a classifier.
    pub const IMAGENET_SCALE: (f64, f64) = (0.08, 1.0);
    /// torchvision's range of width over height.
    pub const RATIO: (f64, f64) = (3.0 / 4.0, 4.0 / 3.0);

    /// A crop resized to `size` = (height, width), its area's share uniform in `scale`, its
    /// width over height log-uniform in `ratio`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side is 0 or a range is not 0 < low ≤ high (< ∞; scale ≤ 1).
    pub fn new(
        size: (usize, usize),
        scale: (f64, f64),
        ratio: (f64, f64),
        interpolation: Interpolation,
    ) -> Result<Self> {
        if size.0 == 0 || size.1 == 0 {
            let value = format!("{}×{}", size.0, size.1);
            return Err(Error::invalid("crop size", value, "both sides must be at least 1"));
        }
        let ordered = |(low, high): (f64, f64)| low > 0.0 && low <= high;
        if !ordered(scale) || scale.1 > 1.0 {
            let rule = "it must satisfy 0 < low <= high <= 1";
            return Err(Error::invalid("crop scale (low, high)", format!("{scale:?}"), rule));
        }
        if !ordered(ratio) || ratio.1.is_infinite() {
            let rule = "it must satisfy 0 < low <= high";
            return Err(Error::invalid("crop ratio (low, high)", format!("{ratio:?}"), rule));
        }
        Ok(RandomResizedCrop { size, scale, ratio, interpolation })
    }

    /// A part of `picture`, resized.
    ///
    /// # Errors
    /// Those of a file that can't be used.
    pub fn apply(&self, picture: &dyn LazyImage, rng: &mut Rng) -> Result<Image> {
        let (height, width) = picture.size()?;
        picture.resized_crop(self.draw(width, height, rng), self.size, self.interpolation)
    }

    /// (height, width) of the output.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// The filter of the resize.
    pub fn interpolation(&self) -> Interpolation {
        self.interpolation
    }

    /// The box for an image of `width` × `height`, by torchvision's algorithm: ten tries, then
    /// the largest centred box whose aspect ratio is allowed.
    pub fn draw(&self, width: usize, height: usize, rng: &mut Rng) -> CropBox {
        const TRIES: usize = 10;
        let area = (width * height) as f64;
        for _ in 0..TRIES {
            let target = area * rng.between(self.scale.0, self.scale.1);
            let ratio = rng.between(self.ratio.0.ln(), self.ratio.1.ln()).exp();
            let (w, h) = (round((target * ratio).sqrt()), round((target / ratio).sqrt()));
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let top = rng.below(height - h + 1);
                let left = rng.below(width - w + 1);
                return CropBox { top, left, height: h, width: w };
            }
        }

        let ratio = width as f64 / height as f64;
        let (w, h) = if ratio < self.ratio.0 {
            (width, round(width as f64 / self.ratio.0).clamp(1, height))
        } else if ratio > self.ratio.1 {
            (round(height as f64 * self.ratio.1).clamp(1, width), height)
        } else {
            (width, height)
        };
        CropBox { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }
}

/// Rounds as Python does: halves to the even neighbour.
fn round(value: f64) -> usize {
    value.round_ties_even() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crop(scale: (f64, f64), ratio: (f64, f64)) -> RandomResizedCrop {
        RandomResizedCrop::new((8, 8), scale, ratio, Interpolation::Bicubic).unwrap()
    }

    #[test]
    fn boxes_have_the_area_and_ratio_asked_for() {
        let crop = crop((0.2, 0.5), RandomResizedCrop::RATIO);
        let (width, height, draws) = (640, 480, 20_000);
        let mut rng = Rng::new(9, &[]);
        let (mut area_sum, mut log_sum) = (0.0, 0.0);
        for _ in 0..draws {
            let b = crop.draw(width, height, &mut rng);
            assert!(b.left + b.width <= width && b.top + b.height <= height);
            let area = (b.width * b.height) as f64 / (width * height) as f64;
            let ratio = b.width as f64 / b.height as f64;
            // Rounding both sides to whole pixels moves either by less than 1 %.
            assert!((0.198..0.505).contains(&area), "{b:?}");
            assert!((0.742..1.347).contains(&ratio), "{b:?}");
            area_sum += area;
            log_sum += ratio.ln();
        }
        // The tallest box (half the area at 3:4) has 452 rows, so none is rejected and areas are
        // uniform: mean 0.35, standard deviation of the mean 0.3/sqrt(12·20000) = 0.0006; log
        // ratios have mean 0, deviation 0.0012. Five of each.
        assert!((area_sum / f64::from(draws) - 0.35).abs() < 0.003, "{area_sum}");
        assert!((log_sum / f64::from(draws)).abs() < 0.006, "{log_sum}");
    }

    #[test]
    fn boxes_reach_every_edge() {
        let crop = crop((0.5, 0.5), (1.0, 1.0));
        let mut rng = Rng::new(1, &[]);
        let boxes: Vec<_> = (0..500).map(|_| crop.draw(14, 14, &mut rng)).collect();
        // sqrt(98) = 9.9 rounds to 10, leaving 0..=4 for either corner.
        assert!(boxes.iter().all(|b| (b.width, b.height) == (10, 10)));
        for place in 0..=4 {
            assert!(boxes.iter().any(|b| b.top == place) && boxes.iter().any(|b| b.left == place));
        }
    }

    #[test]
    fn extreme_images_fall_back_to_their_centre() {
        let crop = crop((1.0, 1.0), RandomResizedCrop::RATIO);
        let mut rng = Rng::new(0, &[]);
        let wide = CropBox { top: 0, left: 433, height: 100, width: 133 };
        assert_eq!(crop.draw(1000, 100, &mut rng), wide);
        let tall = CropBox { top: 433, left: 0, height: 133, width: 100 };
        assert_eq!(crop.draw(100, 1000, &mut rng), tall);
        let dot = CropBox { top: 0, left: 0, height: 1, width: 1 };
        assert_eq!(crop.draw(1, 1, &mut rng), dot);
    }

    #[test]
    fn refuses_ranges_that_are_none() {
        let attempt = |scale, ratio| {
            RandomResizedCrop::new((8, 8), scale, ratio, Interpolation::Bicubic)
                .map(|_| String::new())
                .unwrap_or_else(|e| e.to_string())
        };
        let ratio = RandomResizedCrop::RATIO;
        assert!(attempt((0.9, 0.2), ratio).contains("(0.9, 0.2)"));
        assert!(attempt((0.0, 0.2), ratio).contains("0 < low"));
        assert!(attempt((0.5, 1.5), ratio).contains("<= 1"));
        assert!(attempt((f64::NAN, 1.0), ratio).contains("NaN"));
        assert!(attempt((0.5, 1.0), (2.0, 1.0)).contains("crop ratio"));
        assert!(attempt((0.5, 1.0), (1.0, f64::INFINITY)).contains("inf"));
        assert_eq!(attempt((0.5, 1.0), ratio), "");
    }
}
