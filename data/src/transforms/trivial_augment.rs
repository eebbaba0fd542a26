//! TrivialAugment (Müller, Hutter, arXiv 2103.10158): one operation, of random strength.

use super::super::image::Image;
use super::Operation;
use crate::Result;
use crate::rng::Rng;

/// torchvision's `TrivialAugmentWide` with its 14 operations, 31 strengths and black outside,
/// bicubic. The strengths are exact: torchvision's are single precision, and its translation by
/// 16 pixels comes out as one by 15 on some processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrivialAugmentWide {
    /// The colour of what comes from outside the image.
    pub fill: [u8; 3],
}

impl TrivialAugmentWide {
    /// Number of operations.
    pub const OPERATIONS: usize = 14;
    /// Number of strengths of each.
    pub const BINS: usize = 31;

    /// Any operation, any of its strengths, either direction.
    pub fn draw(rng: &mut Rng) -> Operation {
        let (number, bin) = (rng.below(Self::OPERATIONS), rng.below(Self::BINS));
        Self::operation(number, bin, rng.below(2) == 1)
    }

    /// Operation `number` of torchvision's table at strength `bin`, weakest first, in the other
    /// direction if `negative` and it has one. Numbers from 13 on are `Equalize`, and bins from 30
    /// on the strongest.
    pub fn operation(number: usize, bin: usize, negative: bool) -> Operation {
        let strongest = Self::BINS - 1;
        // Multiplied first: a threshold of 170 or a quarter turn must come out exactly.
        let scaled = |most: f64| most * bin.min(strongest) as f64 / strongest as f64;
        let signed = |most: f64| if negative { -scaled(most) } else { scaled(most) };
        match number {
            0 => Operation::Identity,
            1 => Operation::ShearX(signed(0.99)),
            2 => Operation::ShearY(signed(0.99)),
            3 => Operation::TranslateX(signed(32.0).trunc()),
            4 => Operation::TranslateY(signed(32.0).trunc()),
            5 => Operation::Rotate(signed(135.0)),
            6 => Operation::Brightness(1.0 + signed(0.99)),
            7 => Operation::Color(1.0 + signed(0.99)),
            8 => Operation::Contrast(1.0 + signed(0.99)),
            9 => Operation::Sharpness(1.0 + signed(0.99)),
            10 => Operation::Posterize(8 - scaled(6.0).round() as u32),
            11 => Operation::Solarize(255.0 - scaled(255.0)),
            12 => Operation::AutoContrast,
            _ => Operation::Equalize,
        }
    }

    /// Draws an operation and applies it.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when the image isn't 8-bit RGB.
    pub fn apply(&self, image: Image, rng: &mut Rng) -> Result<Image> {
        Self::draw(rng).apply(image, self.fill)
    }
}
