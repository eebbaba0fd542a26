//! From a decoded image to the normalised floats of one sample.

mod auto_augment;
mod color;
mod crop;
mod erasing;
mod evaluate;
mod fine_tune;
mod geometry;
mod normalize;
mod operation;
mod trivial_augment;

pub use auto_augment::{AutoAugment, POLICY_V0, PolicyStep, StepKind};
pub use crop::RandomResizedCrop;
pub use erasing::RandomErasing;
pub use evaluate::Evaluate;
pub use fine_tune::{FinetuneTransform, Policy};
pub use normalize::{IMAGENET_MEAN, IMAGENET_STD, Normalize};
pub use operation::Operation;
pub use trivial_augment::TrivialAugmentWide;

use crate::LazyImage;
use crate::rng::Rng;
use crate::{Error, Result};

/// What turns an image into a network's input. All randomness comes from the given stream.
pub trait Transform: Send + Sync {
    /// `[C, H, W]` of the output; the images taken have as many channels.
    fn shape(&self) -> [usize; 3];

    /// Writes the sample into `out`, of [`Transform::shape`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the image's channels or the length of `out` don't fit; those
    /// of a file that can't be used.
    fn apply(&self, picture: &dyn LazyImage, rng: &mut Rng, out: &mut [f32]) -> Result<()>;
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
pub struct PretrainTransform {
    /// Which part is taken, and the output's size.
    pub crop: RandomResizedCrop,
    /// Whether it is mirrored.
    pub flip: RandomHorizontalFlip,
    /// Mean and standard deviation of every channel.
    pub normalize: Normalize,
}

impl Transform for PretrainTransform {
    fn shape(&self) -> [usize; 3] {
        self.normalize.shape(self.crop.size())
    }

    fn apply(&self, picture: &dyn LazyImage, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let resized = self.crop.apply(picture, rng)?;
        self.normalize.write(&resized, self.flip.draw(rng), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
