//! The operations that augmentation policies choose from.

use super::super::image::{Image, Pixels};
use super::color::Rgb;
use super::geometry::{Affine, transform};
use crate::{Error, Result};

/// One operation with its argument, on 8-bit RGB images. Pixels come out as Pillow's, which
/// torchvision and timm call; geometry is resampled bicubically.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operation {
    /// Nothing.
    Identity,
    /// Moves each row to the left by this much a row from the top.
    ShearX(f64),
    /// Moves each column up by this much a column from the left.
    ShearY(f64),
    /// Moves to the right, in pixels.
    TranslateX(f64),
    /// Moves down, in pixels.
    TranslateY(f64),
    /// Turns about the centre counter-clockwise, in degrees.
    Rotate(f64),
    /// From black (0) through the image (1) to brighter.
    Brightness(f64),
    /// From grey values (0) through the image (1) to more saturated.
    Color(f64),
    /// From the mean grey (0) through the image (1) to more contrast.
    Contrast(f64),
    /// From smoothed (0) through the image (1) to sharpened.
    Sharpness(f64),
    /// Keeps this many upper bits, 0 to 8.
    Posterize(u32),
    /// Inverts what is at or above this level, 0 to 256.
    Solarize(f64),
    /// Adds this to what is below 128.
    SolarizeAdd(u8),
    /// Stretches each channel to the full range.
    AutoContrast,
    /// Makes each channel's histogram flat.
    Equalize,
    /// The negative.
    Invert,
}

impl Operation {
    /// The image after the operation; `fill` where it came from outside.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the image isn't 8-bit RGB, the argument isn't finite, or more than
    /// 8 bits are to be kept.
    pub fn apply(self, image: Image, fill: [u8; 3]) -> Result<Image> {
        use Operation::*;
        if self == Identity {
            return Ok(image);
        }
        self.check()?;
        let mut rgb = rgb(image)?;
        let affine = |rgb: &Rgb, map| transform(rgb, map, fill);
        let same = Affine::IDENTITY;
        match self {
            Identity => {}
            ShearX(slope) => rgb = affine(&rgb, Affine { x: [1.0, slope, 0.0], ..same }),
            ShearY(slope) => rgb = affine(&rgb, Affine { y: [slope, 1.0, 0.0], ..same }),
            TranslateX(pixels) => rgb = affine(&rgb, Affine { x: [1.0, 0.0, -pixels], ..same }),
            TranslateY(pixels) => rgb = affine(&rgb, Affine { y: [0.0, 1.0, -pixels], ..same }),
            Rotate(degrees) => {
                rgb = affine(&rgb, Affine::rotation(degrees, rgb.width, rgb.height));
            }
            Brightness(factor) => rgb.brightness(factor),
            Color(factor) => rgb.color(factor),
            Contrast(factor) => rgb.contrast(factor),
            Sharpness(factor) => rgb.sharpness(factor),
            Posterize(bits) => rgb.posterize(bits),
            Solarize(threshold) => rgb.solarize(threshold),
            SolarizeAdd(addend) => rgb.solarize_add(addend),
            AutoContrast => rgb.auto_contrast(),
            Equalize => rgb.equalize(),
            Invert => rgb.invert(),
        }
        Image::new(rgb.width, rgb.height, 3, Pixels::U8(rgb.samples))
    }

    fn check(self) -> Result<()> {
        use Operation::*;
        let refused = |rule| Err(Error::invalid("operation", format!("{self:?}"), rule));
        match self {
            ShearX(value) | ShearY(value) | TranslateX(value) | TranslateY(value)
            | Rotate(value) | Brightness(value) | Color(value) | Contrast(value)
            | Sharpness(value) | Solarize(value)
                if !value.is_finite() =>
            {
                refused("its argument must be finite")
            }
            Posterize(bits) if bits > 8 => refused("a sample has 8 bits"),
            _ => Ok(()),
        }
    }
}

fn rgb(image: Image) -> Result<Rgb> {
    let (width, height, channels) = (image.width(), image.height(), image.channels());
    match image.into_pixels() {
        Pixels::U8(samples) if channels == 3 => Ok(Rgb { width, height, samples }),
        pixels => {
            let kind = if matches!(pixels, Pixels::U8(_)) { "8-bit" } else { "float" };
            let value = format!("{channels} channels of {kind} samples");
            let rule = "augmentation policies work on 8-bit RGB";
            Err(Error::invalid("image", value, rule))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_other_images_and_arguments() {
        let apply = |operation: Operation, channels| {
            let image = Image::new(1, 1, channels, Pixels::U8(vec![0; channels])).unwrap();
            operation.apply(image, [0; 3]).map(|_| ()).map_err(|e| e.to_string())
        };
        assert!(apply(Operation::Invert, 3).is_ok());
        let message = apply(Operation::Invert, 1).unwrap_err();
        assert!(message.contains("1 channels of 8-bit samples"), "{message}");
        let message = apply(Operation::Posterize(9), 3).unwrap_err();
        assert!(message.contains("Posterize(9)") && message.contains("8 bits"), "{message}");
        assert!(apply(Operation::Rotate(f64::NAN), 3).unwrap_err().contains("finite"));
        let floats = Image::new(1, 1, 3, Pixels::F32(vec![0.0; 3])).unwrap();
        assert!(Operation::Equalize.apply(floats, [0; 3]).is_err());
    }
}
