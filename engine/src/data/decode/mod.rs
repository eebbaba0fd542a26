//! Image files to pixels, by content rather than extension.
//!
//! The conversions follow Pillow's `convert`, which torchvision's `ImageFolder` uses: alpha
//! is dropped, grey replicated, and luma weighs the colours by Rec. 601. Unlike Pillow,
//! 16-bit samples are scaled to 8 bits, and EXIF orientation is applied.

mod file;
mod jpeg;
mod npy;
mod reduced;
mod tiff;

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

pub use self::file::ImageFile;
use self::tiff::Special;
use super::image::{Image, Pixels};
use crate::{Error, Result};

/// Largest image accepted, in pixels: a few kilobytes can claim to be terabytes
/// (decompression bombs), and no camera makes images of this size.
pub const MAX_PIXELS: u64 = 512_000_000;

/// Why a file can't be used; the caller knows its path.
type Problem = String;

/// Decodes JPEG, PNG, WebP, BMP, TIFF or NumPy `.npy` to `channels` channels.
///
/// Pictures become 8-bit luma (1), RGB (3) or RGBA (4). `.npy` arrays and TIFF files of more
/// bands are `[H, W, C]` with any C (or `[H, W]` for one), become floats, and must have exactly
/// `channels`: bytes are divided by 255, 16-bit integers by 65535, floats stay as they are.
///
/// # Errors
/// [`Error::Image`] with `path` and the reason.
pub fn decode(path: impl AsRef<Path>, bytes: &[u8], channels: usize) -> Result<Image> {
    let decoded = if bytes.is_empty() {
        Err("the file is empty".to_owned())
    } else if npy::is_npy(bytes) {
        npy::decode(bytes, channels)
    } else {
        picture(bytes, channels)
    };
    decoded.map_err(|problem| Error::image(path, problem))
}

fn picture(bytes: &[u8], channels: usize) -> std::result::Result<Image, Problem> {
    let format = image::guess_format(bytes)
        .map_err(|_| "not a JPEG, PNG, WebP, BMP, TIFF or .npy file".to_owned())?;
    if format == ImageFormat::Jpeg && !jpeg::has_end(bytes) {
        return Err("truncated: the JPEG stream has no end marker".to_owned());
    }
    let special = match format {
        ImageFormat::Tiff => tiff::decode_special(bytes, channels)?,
        _ => None,
    };
    let image = match special {
        Some(Special::Bands(image)) => return Ok(image),
        Some(Special::Picture(image)) => image,
        None => ordinary(bytes, format)?,
    };
    let (width, height) = (image.width() as usize, image.height() as usize);
    let samples = match channels {
        1 => match image {
            DynamicImage::ImageLuma8(_)
            | DynamicImage::ImageLumaA8(_)
            | DynamicImage::ImageLuma16(_)
            | DynamicImage::ImageLumaA16(_) => image.into_luma8().into_raw(),
            colour => luma(&colour.into_rgb8()),
        },
        3 => image.into_rgb8().into_raw(),
        4 => image.into_rgba8().into_raw(),
        _ => {
            return Err(format!(
                "pictures are read with 1, 3 or 4 channels, not {channels}; \
                 store such images as .npy arrays or multi-band TIFF"
            ));
        }
    };
    Image::new(width, height, channels, Pixels::U8(samples)).map_err(|e| e.to_string())
}

/// What the `image` crate reads, turned upright.
fn ordinary(bytes: &[u8], format: ImageFormat) -> std::result::Result<DynamicImage, Problem> {
    let describe = |e: image::ImageError| e.to_string();
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(describe)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let orientation = decoder.orientation().map_err(describe)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(describe)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn check_size(width: u32, height: u32) -> std::result::Result<(), Problem> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("the image is empty ({width}×{height})"));
    }
    if pixels > MAX_PIXELS {
        return Err(format!("{width}×{height} pixels are more than the {MAX_PIXELS} allowed"));
    }
    Ok(())
}

/// The luma of every pixel.
fn luma(image: &RgbImage) -> Vec<u8> {
    image.pixels().map(|pixel| luma_of(pixel.0)).collect()
}

/// Rec. 601 luma in 16-bit fixed point, the weights and rounding of Pillow's `convert("L")`.
pub(super) fn luma_of(rgb: [u8; 3]) -> u8 {
    let [r, g, b] = rgb.map(u32::from);
    ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests;
