//! Random erasing (Zhong et al., arXiv 1708.04896): a box of noise.

use super::super::image::CropBox;
use crate::rng::Rng;
use crate::{Error, Result};

/// timm's `RandomErasing` in mode `pixel`: with a probability, one box of the normalised image is
/// replaced by normal noise, of its own for each sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomErasing {
    probability: f64,
}

impl RandomErasing {
    /// Range of the box's share of the image's area.
    pub const AREA: (f64, f64) = (0.02, 1.0 / 3.0);
    /// Range of height over width.
    pub const ASPECT: (f64, f64) = (0.3, 1.0 / 0.3);

    /// Erasing of `probability`.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside 0..=1.
    pub fn new(probability: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&probability) {
            let rule = "it must be in 0..=1";
            return Err(Error::invalid("random erasing probability", probability, rule));
        }
        Ok(RandomErasing { probability })
    }

    /// The box to erase in an image of `size` = (height, width), if any: ten tries for one
    /// smaller than the image.
    pub fn draw(&self, (height, width): (usize, usize), rng: &mut Rng) -> Option<CropBox> {
        const TRIES: usize = 10;
        if rng.uniform() >= self.probability {
            return None;
        }
        let (low, high) = Self::ASPECT;
        for _ in 0..TRIES {
            let area = (height * width) as f64 * rng.between(Self::AREA.0, Self::AREA.1);
            let aspect = rng.between(low.ln(), high.ln()).exp();
            let h = (area * aspect).sqrt().round_ties_even() as usize;
            let w = (area / aspect).sqrt().round_ties_even() as usize;
            if h < height && w < width {
                let (top, left) = (rng.below(height - h + 1), rng.below(width - w + 1));
                return Some(CropBox { top, left, height: h, width: w });
            }
        }
        None
    }

    /// Erases a box of `image`, `[C, H, W]` with `size` = (height, width), or none.
    pub fn apply(&self, image: &mut [f32], size: (usize, usize), rng: &mut Rng) {
        let Some(area) = self.draw(size, rng) else { return };
        let (height, width) = size;
        for plane in image.chunks_exact_mut(height * width) {
            for row in plane.chunks_exact_mut(width).skip(area.top).take(area.height) {
                let erased = &mut row[area.left..area.left + area.width];
                erased.iter_mut().for_each(|sample| *sample = rng.normal() as f32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_of_noise_and_nothing_else() {
        let (erasing, size) = (RandomErasing::new(1.0).unwrap(), (40, 60));
        let (mut sum, mut squares, mut count) = (0.0, 0.0, 0.0);
        for seed in 0..20 {
            let area = erasing.draw(size, &mut Rng::new(seed, &[])).unwrap();
            let mut image = vec![9.0; 3 * 40 * 60];
            erasing.apply(&mut image, size, &mut Rng::new(seed, &[]));
            for (at, &sample) in image.iter().enumerate() {
                let (row, column) = (at / 60 % 40, at % 60);
                let inside = (area.top..area.top + area.height).contains(&row)
                    && (area.left..area.left + area.width).contains(&column);
                // Noise never gets as far as 9.
                assert_eq!(sample != 9.0, inside);
                if inside {
                    sum += f64::from(sample);
                    squares += f64::from(sample * sample);
                    count += 1.0;
                }
            }
        }
        // At least 20 · 3 · 48 samples: standard errors below 0.019 and 0.027; five of each.
        assert!((sum / count).abs() < 0.095 && (squares / count - 1.0).abs() < 0.14);
    }

    #[test]
    fn leaves_images_too_small_for_a_box() {
        let erasing = RandomErasing::new(1.0).unwrap();
        let mut rng = Rng::new(0, &[]);
        assert_eq!(erasing.draw((1, 1), &mut rng).map_or(0, |area| area.height * area.width), 0);
        assert!(RandomErasing::new(-0.1).is_err() && RandomErasing::new(f64::NAN).is_err());
    }
}
