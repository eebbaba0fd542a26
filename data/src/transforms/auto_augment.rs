//! AutoAugment (Cubuk et al., arXiv 1805.09501): one of 25 searched pairs of operations.

use super::super::image::Image;
use super::{Normalize, Operation};
use crate::Result;
use crate::rng::Rng;

/// What a [`PolicyStep`] does; its strength is given as a level of 0 to 10.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    /// Up to a slope of 0.3, either way.
    ShearX,
    /// Up to a slope of 0.3, either way.
    ShearY,
    /// Up to 0.45 of the height, either way.
    TranslateYRel,
    /// Up to 30°, either way.
    Rotate,
    /// A saturation of 0.1 to 1.9.
    Color,
    /// Keeps 0 to 4 bits.
    Posterize,
    /// Inverts from a level of 0 to 256 on.
    Solarize,
    /// Adds 0 to 110.
    SolarizeAdd,
    /// No strength.
    AutoContrast,
    /// No strength.
    Equalize,
    /// No strength.
    Invert,
}

impl StepKind {
    /// The operation at `level`, the other way if `negative` and there are two, for an image of
    /// `height`, with timm's rounding.
    pub fn at(self, level: u32, negative: bool, height: usize) -> Operation {
        let share = f64::from(level.min(10)) / 10.0;
        let signed = |value: f64| if negative { -value } else { value };
        match self {
            StepKind::ShearX => Operation::ShearX(signed(share * 0.3)),
            StepKind::ShearY => Operation::ShearY(signed(share * 0.3)),
            // timm's positive direction is up.
            StepKind::TranslateYRel => Operation::TranslateY(-signed(share * 0.45) * height as f64),
            StepKind::Rotate => Operation::Rotate(signed(share * 30.0)),
            StepKind::Color => Operation::Color(share * 1.8 + 0.1),
            StepKind::Posterize => Operation::Posterize((share * 4.0) as u32),
            StepKind::Solarize => Operation::Solarize((share * 256.0).floor()),
            StepKind::SolarizeAdd => Operation::SolarizeAdd((share * 110.0) as u8),
            StepKind::AutoContrast => Operation::AutoContrast,
            StepKind::Equalize => Operation::Equalize,
            StepKind::Invert => Operation::Invert,
        }
    }
}

/// Half of a policy's pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyStep {
    /// What is done.
    pub kind: StepKind,
    /// How often, 0..=1.
    pub probability: f64,
    /// How strongly, 0 to 10.
    pub level: u32,
}

const fn step(kind: StepKind, tenths: u32, level: u32) -> PolicyStep {
    PolicyStep { kind, probability: tenths as f64 / 10.0, level }
}

/// timm's policy `v0`, EfficientNet's. Probabilities are given in tenths.
pub const POLICY_V0: [[PolicyStep; 2]; 25] = {
    use StepKind::*;
    [
        [step(Equalize, 8, 1), step(ShearY, 8, 4)],
        [step(Color, 4, 9), step(Equalize, 6, 3)],
        [step(Color, 4, 1), step(Rotate, 6, 8)],
        [step(Solarize, 8, 3), step(Equalize, 4, 7)],
        [step(Solarize, 4, 2), step(Solarize, 6, 2)],
        [step(Color, 2, 0), step(Equalize, 8, 8)],
        [step(Equalize, 4, 8), step(SolarizeAdd, 8, 3)],
        [step(ShearX, 2, 9), step(Rotate, 6, 8)],
        [step(Color, 6, 1), step(Equalize, 10, 2)],
        [step(Invert, 4, 9), step(Rotate, 6, 0)],
        [step(Equalize, 10, 9), step(ShearY, 6, 3)],
        [step(Color, 4, 7), step(Equalize, 6, 0)],
        [step(Posterize, 4, 6), step(AutoContrast, 4, 7)],
        [step(Solarize, 6, 8), step(Color, 6, 9)],
        [step(Solarize, 2, 4), step(Rotate, 8, 9)],
        [step(Rotate, 10, 7), step(TranslateYRel, 8, 9)],
        [step(ShearX, 0, 0), step(Solarize, 8, 4)],
        [step(ShearY, 8, 0), step(Color, 6, 4)],
        [step(Color, 10, 0), step(Rotate, 6, 2)],
        [step(Equalize, 8, 4), step(Equalize, 0, 8)],
        [step(Equalize, 10, 4), step(AutoContrast, 6, 2)],
        [step(ShearY, 4, 7), step(SolarizeAdd, 6, 7)],
        // Keeps no bits, as in the reference: a black image, which Solarize leaves.
        [step(Posterize, 8, 2), step(Solarize, 6, 10)],
        [step(Solarize, 6, 8), step(Equalize, 6, 1)],
        [step(Color, 8, 6), step(Rotate, 4, 5)],
    ]
};

/// timm's `AutoAugment` with [`POLICY_V0`], bicubic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoAugment {
    fill: [u8; 3],
}

impl AutoAugment {
    /// With `fill` as the colour of what comes from outside the image.
    pub fn new(fill: [u8; 3]) -> Self {
        AutoAugment { fill }
    }

    /// With the rounded mean of three channels outside, as timm has it; black for other numbers.
    pub fn with_mean(normalize: &Normalize) -> Self {
        let level = |mean: &f32| (255.0 * f64::from(*mean)).round_ties_even() as u8;
        let levels: Vec<u8> = normalize.mean().iter().map(level).collect();
        AutoAugment { fill: levels.try_into().unwrap_or_default() }
    }

    /// The colour of what comes from outside the image.
    pub fn fill(&self) -> [u8; 3] {
        self.fill
    }

    /// Any pair, each half with its probability, in either direction, for an image of `height`.
    pub fn draw(height: usize, rng: &mut Rng) -> [Operation; 2] {
        POLICY_V0[rng.below(POLICY_V0.len())].map(|PolicyStep { kind, probability, level }| {
            let (taken, negative) = (rng.uniform() < probability, rng.below(2) == 1);
            if taken { kind.at(level, negative, height) } else { Operation::Identity }
        })
    }

    /// Draws a pair of operations and applies it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the image isn't 8-bit RGB.
    pub fn apply(&self, image: Image, rng: &mut Rng) -> Result<Image> {
        let [first, second] = Self::draw(image.height(), rng);
        second.apply(first.apply(image, self.fill)?, self.fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_probabilities_come_as_often_as_told() {
        let mut rng = Rng::new(6, &[]);
        let draws = 50_000;
        let drawn: Vec<_> = (0..draws).map(|_| AutoAugment::draw(100, &mut rng)).collect();
        let share = |wanted: fn(&Operation) -> bool, half: usize| {
            drawn.iter().filter(|pair| wanted(&pair[half])).count() as f64 / f64::from(draws)
        };
        // Probabilities over 25. Five standard errors of sqrt(p (1 − p) / 50000), p ≤ 0.2: 0.009.
        let inverted = share(|op| matches!(op, Operation::Invert), 0);
        assert!((inverted - 0.4 / 25.0).abs() < 0.003, "{inverted}");
        let equalized = share(|op| matches!(op, Operation::Equalize), 0);
        assert!((equalized - 4.0 / 25.0).abs() < 0.009, "{equalized}");
        let turned = |op: &Operation| matches!(op, Operation::Rotate(angle) if *angle == 21.0);
        assert!((share(turned, 0) - 0.5 / 25.0).abs() < 0.004);
        let down = |op: &Operation| matches!(op, Operation::TranslateY(by) if *by == 40.5);
        assert!((share(down, 1) - 0.4 / 25.0).abs() < 0.003);
    }
}
