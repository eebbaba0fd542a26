//! Image files to pixels, by content rather than extension.
//!
//! The conversions follow Pillow's `convert`, which torchvision's `ImageFolder` uses: alpha
//! is dropped, grey replicated, and luma weighs the colours by Rec. 601. Unlike Pillow's,
//! samples of 9 to 16 bits are scaled to 8, and orientation is applied as its `exif_transpose` does.

mod exif;
mod file;
mod jpeg;
mod npy;
mod numbers;
mod png;
mod reduced;
mod size;
mod tiff;

use std::io::Cursor;
use std::path::Path;

use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, RgbImage};

pub use self::file::ImageFile;
use self::numbers::{Layout, Number};
pub use self::size::claimed_size;
use super::image::{Image, Pixels};
use crate::{Error, Result};

/// Largest image accepted, in pixels: a few kilobytes can claim to be terabytes
/// (decompression bombs), and no camera makes images of this size.
pub const MAX_PIXELS: u64 = 512_000_000;

/// What the `image` crate is asked to recognise.
const READ: [ImageFormat; 4] =
    [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Bmp];

/// Why a file can't be used; the caller knows its path.
type Problem = String;

/// Decodes JPEG, PNG, WebP, BMP, TIFF or NumPy `.npy` to `channels` channels.
///
/// Pictures become 8-bit luma (1), RGB (3) or RGBA (4). `.npy` arrays are `[H, W, C]` with any C
/// (or `[H, W]` for one), become floats, and must have exactly `channels`: unsigned integers are
/// divided by the greatest of their bits (255, 65535, …), signed ones by the greatest of theirs and
/// no less than −1, floats stay as they are. So do TIFF files that hold `channels` samples a pixel,
/// or in all their pages together, but those that are grey, RGB or another picture for 1 or 3: four
/// are bands whatever the fourth is called, and stay as stored.
///
/// # Errors
/// [`Error::Image`] with `path` and the reason.
pub fn decode(path: impl AsRef<Path>, bytes: &[u8], channels: usize) -> Result<Image> {
    let read = || match content(bytes, channels)? {
        Content::Bands(image) => Ok(image),
        Content::Picture(image) => in_bytes(image, channels),
    };
    read().map_err(|problem| Error::image(path, problem))
}

/// As [`decode`], but pictures of more than 8 bits a sample become floats in the range of 0..=1
/// that keep them all, with 1 or 3 channels.
///
/// # Errors
/// As [`decode`].
pub fn decode_deep(path: impl AsRef<Path>, bytes: &[u8], channels: usize) -> Result<Image> {
    let read = || match content(bytes, channels)? {
        Content::Bands(image) => Ok(image),
        Content::Picture(image)
            if image.color().bytes_per_pixel() > image.color().channel_count()
                && matches!(channels, 1 | 3) =>
        {
            in_floats(image, channels)
        }
        Content::Picture(image) => in_bytes(image, channels),
    };
    read().map_err(|problem| Error::image(path, problem))
}

/// How the picture of a file had to be turned to be upright.
pub fn orientation(bytes: &[u8]) -> Orientation {
    if let Some(directory) = tiff::Directory::first(bytes) {
        let number = directory.ok().and_then(|directory| directory.orientation());
        return number.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms);
    }
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::Markers::read(bytes).orientation,
        Ok(ImageFormat::Png) => png::orientation(bytes),
        Ok(ImageFormat::WebP) => {
            let Ok(mut decoder) = WebPDecoder::new(Cursor::new(bytes)) else {
                return Orientation::NoTransforms;
            };
            let exif = decoder.exif_metadata().unwrap_or_default();
            let xmp = decoder.xmp_metadata().unwrap_or_default();
            exif::orientation(exif.as_deref(), xmp.as_deref())
        }
        _ => Orientation::NoTransforms,
    }
}

/// What a file holds, turned upright.
enum Content {
    Picture(DynamicImage),
    /// Planes of floats.
    Bands(Image),
}

fn content(bytes: &[u8], channels: usize) -> std::result::Result<Content, Problem> {
    if npy::is_npy(bytes) {
        return npy::decode(bytes, channels).map(Content::Bands);
    }
    if tiff::is_tiff(bytes) {
        return tiff::decode(bytes, channels);
    }
    let image = match readable_format(bytes)? {
        ImageFormat::Jpeg => jpeg::decode(bytes)?,
        // What is wrong is told of the file itself.
        ImageFormat::Png => ordinary(bytes, ImageFormat::Png).or_else(|problem| {
            ordinary(&png::repaired(bytes), ImageFormat::Png).map_err(|_| problem)
        })?,
        format => ordinary(bytes, format)?,
    };
    Ok(Content::Picture(turned(image, orientation(bytes))))
}

/// The format of what the `image` crate is asked to read.
fn readable_format(bytes: &[u8]) -> std::result::Result<ImageFormat, Problem> {
    if bytes.is_empty() {
        return Err("the file is empty".to_owned());
    }
    let format = image::guess_format(bytes).ok().filter(|format| READ.contains(format));
    format.ok_or_else(|| "not a JPEG, PNG, WebP, BMP, TIFF or .npy file".to_owned())
}

/// Grey levels, RGB or RGBA of 8 bits.
fn in_bytes(image: DynamicImage, channels: usize) -> std::result::Result<Image, Problem> {
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

/// Grey levels or RGB as floats.
fn in_floats(image: DynamicImage, channels: usize) -> std::result::Result<Image, Problem> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let is_grey = !image.color().has_color();
    let samples =
        if is_grey { image.into_luma16().into_raw() } else { image.into_rgb16().into_raw() };
    let layout = Layout::interleaved(height, width, if is_grey { 1 } else { 3 });
    let little = cfg!(target_endian = "little");
    let greatest = Number::U16.greatest();
    let planes = Number::U16.planes(bytemuck::cast_slice(&samples), little, greatest, layout);
    let planes = match (is_grey, channels) {
        (true, 1) | (false, 3) => planes,
        (true, _) => planes.repeat(3),
        (false, _) => {
            let [red, green, blue] = [0, 1, 2].map(|c| &planes[c * width * height..]);
            let pixels = red.iter().zip(green).zip(&blue[..width * height]);
            pixels.map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b).collect()
        }
    };
    Image::new(width, height, channels, Pixels::F32(planes)).map_err(|e| e.to_string())
}

fn turned(mut image: DynamicImage, orientation: Orientation) -> DynamicImage {
    image.apply_orientation(orientation);
    image
}

/// What the `image` crate reads.
fn ordinary(bytes: &[u8], format: ImageFormat) -> std::result::Result<DynamicImage, Problem> {
    let describe = |e: image::ImageError| e.to_string();
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MAX_PIXELS * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(describe)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    DynamicImage::from_decoder(decoder).map_err(describe)
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
