//! The training transform of a classifier.

use super::super::image::Image;
use super::{
    AutoAugment, Normalize, RandomErasing, RandomHorizontalFlip, RandomResizedCrop, Transform,
    TrivialAugmentWide,
};
use crate::LazyImage;
use crate::rng::Rng;
use crate::{Error, Result};

/// An augmentation policy: operations on 8-bit RGB images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// No operations.
    None,
    /// One operation of any strength.
    TrivialAugmentWide(TrivialAugmentWide),
    /// One of 25 pairs of operations.
    AutoAugment(AutoAugment),
}

impl Policy {
    /// Draws operations and applies them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the image isn't 8-bit RGB and there are any.
    pub fn apply(&self, image: Image, rng: &mut Rng) -> Result<Image> {
        match self {
            Policy::None => Ok(image),
            Policy::TrivialAugmentWide(policy) => policy.apply(image, rng),
            Policy::AutoAugment(policy) => policy.apply(image, rng),
        }
    }
}

/// The fine-tuning augmentation: a random resized crop, a random flip, a policy's operations,
/// normalisation, random erasing.
#[derive(Debug, Clone)]
pub struct FinetuneTransform {
    crop: RandomResizedCrop,
    flip: RandomHorizontalFlip,
    policy: Policy,
    normalize: Normalize,
    erasing: Option<RandomErasing>,
}

impl FinetuneTransform {
    /// In this order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a policy on other than three channels.
    pub fn new(
        crop: RandomResizedCrop,
        flip: RandomHorizontalFlip,
        policy: Policy,
        normalize: Normalize,
        erasing: Option<RandomErasing>,
    ) -> Result<Self> {
        if policy != Policy::None && normalize.channels() != 3 {
            let rule = "augmentation policies work on the 3 of RGB";
            return Err(Error::invalid("number of channels", normalize.channels(), rule));
        }
        Ok(FinetuneTransform { crop, flip, policy, normalize, erasing })
    }
}

impl Transform for FinetuneTransform {
    fn shape(&self) -> [usize; 3] {
        self.normalize.shape(self.crop.size())
    }

    fn apply(&self, picture: &dyn LazyImage, rng: &mut Rng, out: &mut [f32]) -> Result<()> {
        let mut image = self.crop.apply(picture, rng)?;
        if self.flip.draw(rng) {
            image = image.flip_horizontal();
        }
        let image = self.policy.apply(image, rng)?;
        self.normalize.write(&image, false, out)?;
        if let Some(erasing) = &self.erasing {
            erasing.apply(out, self.crop.size(), rng);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interpolation, Pixels};

    #[test]
    fn a_policy_needs_three_channels() {
        let build = |policy, channels: usize| {
            let crop =
                RandomResizedCrop::new((4, 4), (1.0, 1.0), (1.0, 1.0), Interpolation::Bicubic);
            let flip = RandomHorizontalFlip::new(0.0).unwrap();
            let normalize = Normalize::new(vec![0.0; channels], vec![1.0; channels]).unwrap();
            FinetuneTransform::new(crop.unwrap(), flip, policy, normalize, None)
        };
        let trivial = Policy::TrivialAugmentWide(TrivialAugmentWide::default());
        let message = build(trivial, 1).unwrap_err().to_string();
        assert!(message.contains("number of channels is 1"), "{message}");
        assert!(build(trivial, 3).is_ok());
        let image = Image::new(4, 4, 5, Pixels::F32(vec![0.5; 80])).unwrap();
        let mut out = vec![0.0; 80];
        build(Policy::None, 5).unwrap().apply(&image, &mut Rng::new(0, &[]), &mut out).unwrap();
        assert_eq!(out, vec![0.5; 80]);
    }

    #[test]
    fn all_parts_have_their_say() {
        let samples = (0..32 * 32 * 3).map(|n| (n * 7 % 251) as u8).collect();
        let image = Image::new(32, 32, 3, Pixels::U8(samples)).unwrap();
        let run = |policy, erasing: Option<f64>, flip, seed| {
            let crop =
                RandomResizedCrop::new((32, 32), (1.0, 1.0), (1.0, 1.0), Interpolation::Bicubic);
            let transform = FinetuneTransform::new(
                crop.unwrap(),
                RandomHorizontalFlip::new(flip).unwrap(),
                policy,
                Normalize::imagenet(),
                erasing.map(|p| RandomErasing::new(p).unwrap()),
            );
            let mut out = vec![0.0; 3 * 32 * 32];
            transform.unwrap().apply(&image, &mut Rng::new(seed, &[]), &mut out).unwrap();
            out
        };
        let plain = run(Policy::None, None, 0.0, 1);
        assert_ne!(run(Policy::None, None, 1.0, 1), plain);
        assert_ne!(run(Policy::None, Some(1.0), 0.0, 1), plain);
        let auto = Policy::AutoAugment(AutoAugment::with_mean(&Normalize::imagenet()));
        for policy in [Policy::TrivialAugmentWide(TrivialAugmentWide::default()), auto] {
            let seeds = || 0..20;
            let changed = seeds().filter(|&seed| run(policy, None, 0.0, seed) != plain).count();
            assert!(changed > 10, "{changed}");
            assert!(
                seeds().all(|seed| run(policy, None, 0.0, seed) == run(policy, None, 0.0, seed))
            );
        }
    }
}
