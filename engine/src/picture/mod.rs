//! What the trainers' pictures are drawn with: a canvas with text, line charts,
//! matrices of counts, and tensors turned to pixels.
//!
//! All is drawn on 8-bit RGB images with bitmap fonts that are part of the
//! binary, so that pictures look the same on every machine.

pub mod canvas;
mod chart;
mod chart_backend;
mod curve;
mod matrix;
mod pixels;
mod shade;
mod smooth;

use std::io::Cursor;

use image::{ImageFormat, RgbImage};

pub use canvas::Canvas;
pub use chart::LineChart;
pub use curve::{CURVE_SIZE, loss_curve};
pub use matrix::CountMatrix;
pub use pixels::{Pixels, to_rgb};
pub use shade::{lightness, pale, text_color};
pub use smooth::moving_average;

/// Why a picture could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was to be drawn breaks a rule.
    #[error(transparent)]
    Invalid(#[from] backbone::Error),
    /// The chart library refused.
    #[error("chart: {0}")]
    Chart(String),
    /// The picture could not be encoded.
    #[error("PNG: {0}")]
    Png(#[from] image::ImageError),
}

/// A result with this module's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The picture as the bytes of a PNG file.
///
/// # Errors
/// The encoder refuses, as for a picture without pixels.
pub fn png(picture: &RgbImage) -> Result<Vec<u8>> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn png_bytes_decode_to_the_same_pixels() {
        let picture = RgbImage::from_fn(5, 3, |x, y| image::Rgb([x as u8 * 50, y as u8 * 80, 200]));
        let bytes = png(&picture).unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().to_rgb8(), picture);
    }

    #[test]
    fn a_picture_without_pixels_is_refused() {
        let error = png(&RgbImage::new(0, 3)).unwrap_err();
        assert!(error.to_string().starts_with("PNG: "), "{error}");
    }
}
