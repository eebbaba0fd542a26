//! From a decoded image to the normalised floats of one sample.

mod crop;
mod normalize;

pub use crop::RandomResizedCrop;
pub use normalize::{IMAGENET_MEAN, IMAGENET_STD, Normalize};

use super::image::{CropBox, Image, Interpolation};
use crate::rng::Rng;
use crate::{Error, Result};

/// What turns an image into a network's input. All randomness comes from the given stream.
pub trait Transform: Send + Sync {
    /// Channels of the images taken, and of the output.
    fn channels(&self) -> usize;

    /// (height, width) of the output.
    fn size(&self) -> (usize, usize);

    /// Writes the sample into `out`, `[C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the image's channels or the length of `out` don't fit.
    fn apply(&self, image: &Image, rng: &mut Rng, out: &mut [f32]) -> Result<()>;
}

/// Mirrors left and right with a probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RandomHorizontalFlip {
    probability: f64,
}

impl RandomHorizontalFlip {
    /// A flip of `probability`.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside 0..=1.
    pub fn new(probability: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(Error::invalid("flip probability", probability, "it must be in 0..=1"));
        }
        Ok(RandomHorizontalFlip { probability })
    }

    /// Whether to flip this time.
    pub fn draw(&self, rng: &mut Rng) -> bool {
        rng.uniform() < self.probability
    }
}

/// The pretraining augmentation: a random resized crop, a random flip, normalisation.
#[derive(Debug, Clone)]
pub struct Augment {
    /// Which part is taken, and the output's size.
    pub crop: RandomResizedCrop,
    /// Whether it is mirrored.
    pub flip: RandomHorizontalFlip,
    /// Mean and standard deviation of every channel.
    pub normalize: Normalize,
}

impl Transform for Augment {
    fn channels(&self) -> usize {
        self.normalize.channels()
    }

    fn size(&self) -> (usize, usize) {
        self.crop.size()
    }

    fn apply(&self, image: &Image, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let area = self.crop.draw(image.width(), image.height(), rng);
        let flip = self.flip.draw(rng);
        let resized = image.resized_crop(area, self.crop.size(), self.crop.interpolation())?;
        self.normalize.write(&resized, flip, out)
    }
}

/// The evaluation transform: resize the short side, crop the centre, normalise.
#[derive(Debug, Clone)]
pub struct Evaluate {
    short_side: usize,
    size: (usize, usize),
    interpolation: Interpolation,
    normalize: Normalize,
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
        Ok(Evaluate { short_side, size, interpolation, normalize })
    }
}

impl Transform for Evaluate {
    fn channels(&self) -> usize {
        self.normalize.channels()
    }

    fn size(&self) -> (usize, usize) {
        self.size
    }

    fn apply(&self, image: &Image, _: &mut Rng, out: &mut [f32]) -> Result<()> {
        let (width, height) = (image.width(), image.height());
        let short = width.min(height);
        // torchvision cuts the long side's fraction off.
        let scaled = |side: usize| self.short_side * side / short;
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
    use crate::data::Pixels;

    #[test]
    fn evaluation_takes_the_centre() {
        // Columns hold their own number, so the crop's place can be read off.
        let samples = (0..2).flat_map(|_| (0..9).map(|x| x as f32)).collect();
        let image = Image::new(9, 2, 1, Pixels::F32(samples)).unwrap();
        let normalize = Normalize::new(vec![0.0], vec![1.0]).unwrap();
        let transform = Evaluate::new(2, (2, 2), Interpolation::Bicubic, normalize).unwrap();
        let mut out = [0.0; 4];
        transform.apply(&image, &mut Rng::new(0, &[]), &mut out).unwrap();
        // (9 − 2) / 2 = 3.5 rounds to the even 4.
        assert_eq!(out, [4.0, 5.0, 4.0, 5.0]);
    }

    #[test]
    fn refuses_a_crop_larger_than_the_short_side() {
        let normalize = Normalize::new(vec![0.0], vec![1.0]).unwrap();
        let refused = Evaluate::new(224, (256, 192), Interpolation::Bicubic, normalize);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains("256×192") && message.contains("1..=224"), "{message}");
    }

    #[test]
    fn flips_as_often_as_told() {
        let flip = RandomHorizontalFlip::new(0.25).unwrap();
        let mut rng = Rng::new(4, &[]);
        let flips = (0..10_000).filter(|_| flip.draw(&mut rng)).count();
        // Binomial(10000, 1/4) has standard deviation 43; five of them.
        assert!(flips.abs_diff(2500) < 217, "{flips}");
        assert!(RandomHorizontalFlip::new(1.5).is_err());
        assert!(RandomHorizontalFlip::new(f64::NAN).is_err());
    }
}
