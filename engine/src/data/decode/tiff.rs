//! The kinds of TIFF that the `image` crate turns away: palettes, grey with alpha, and
//! multi-band files as remote sensing and microscopy use.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, GrayAlphaImage, ImageBuffer, LumaA, RgbImage};
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use super::super::image::{Image, Pixels};
use super::{MAX_PIXELS, Problem, check_size};

/// What one of these files holds.
pub(super) enum Special {
    /// A picture, turned upright.
    Picture(DynamicImage),
    /// Bands in the range of 0..=1 (integers) or as they are (floats).
    Bands(Image),
}

/// Decodes `bytes` if it is one of these kinds; the first page of several.
pub(super) fn decode_special(bytes: &[u8], channels: usize) -> Result<Option<Special>, Problem> {
    let describe = |e: tiff::TiffError| e.to_string();
    let mut limits = Limits::default();
    limits.decoding_buffer_size = (MAX_PIXELS * 8) as usize;
    limits.intermediate_buffer_size = limits.decoding_buffer_size;
    let indices = palette_as_grey(bytes);
    let bytes = indices.as_deref().unwrap_or(bytes);
    let mut decoder = Decoder::new(Cursor::new(bytes)).map_err(describe)?.with_limits(limits);
    let kind = decoder.colortype().map_err(describe)?;
    let is_special = matches!(kind, ColorType::Multiband { .. } | ColorType::Gray(32));
    if !is_special && indices.is_none() {
        return Ok(None);
    }
    let (width, height) = decoder.dimensions().map_err(describe)?;
    check_size(width, height)?;

    let turned = decoder.find_tag_unsigned(Tag::Orientation).map_err(describe)?;
    let upright = |mut image: DynamicImage| {
        image.apply_orientation(
            turned.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
        );
        Special::Picture(image)
    };
    let mut samples = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut samples).map_err(describe)?;
    match (kind, samples) {
        (ColorType::Gray(8), DecodingResult::U8(indices)) => {
            let colours = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(describe)?;
            let rgb = apply_palette(&indices, &colours)?;
            let image = RgbImage::from_raw(width, height, rgb).ok_or("incomplete image")?;
            Ok(Some(upright(DynamicImage::ImageRgb8(image))))
        }
        (ColorType::Gray(bits @ ..8), _) => Err(format!("a TIFF palette of {bits} bits, not 8")),
        (ColorType::Multiband { num_samples: 2, .. }, samples)
            if layout.planes == 1 && matches!(channels, 1 | 3 | 4) =>
        {
            grey_with_alpha(width, height, samples).map(|image| Some(upright(image)))
        }
        (kind, samples) => {
            let found = usize::from(kind.num_samples());
            if found != channels {
                return Err(format!("the image has {found} bands, but {channels} are needed"));
            }
            let values = unit_range(samples)?;
            let area = width as usize * height as usize;
            let planes = if layout.planes > 1 { values } else { separate(&values, found, area)? };
            if planes.iter().any(|value| !value.is_finite()) {
                return Err("it holds values that are not finite; replace them".to_owned());
            }
            Image::new(width as usize, height as usize, channels, Pixels::F32(planes))
                .map(|image| Some(Special::Bands(image)))
                .map_err(|e| e.to_string())
        }
    }
}

/// A copy of a palette file that calls its indices grey levels, since the decoder knows no
/// palettes: none when `bytes` is another kind of file. (TIFF 6.0, section 2: a header of byte
/// order, 42 and the directory's place; a directory of a count and 12-byte entries.)
fn palette_as_grey(bytes: &[u8]) -> Option<Vec<u8>> {
    const INTERPRETATION: u16 = 262;
    const GREY: u16 = 1;
    const PALETTE: u16 = 3;
    let little = bytes.starts_with(b"II*\0");
    if !little && !bytes.starts_with(b"MM\0*") {
        return None;
    }
    let short = |at: usize| {
        let pair = bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little { u16::from_le_bytes(pair) } else { u16::from_be_bytes(pair) })
    };
    let long = bytes.get(4..8)?.try_into().ok()?;
    let directory =
        if little { u32::from_le_bytes(long) } else { u32::from_be_bytes(long) } as usize;
    let entries = usize::from(short(directory)?);
    let entry = (0..entries)
        .map(|entry| directory + 2 + 12 * entry)
        .find(|&entry| short(entry) == Some(INTERPRETATION))?;
    let value = entry + 8;
    if short(value)? != PALETTE {
        return None;
    }
    let mut copy = bytes.to_vec();
    let grey = if little { GREY.to_le_bytes() } else { GREY.to_be_bytes() };
    copy[value..value + 2].copy_from_slice(&grey);
    Some(copy)
}

/// `colours` holds all reds, then all greens, then all blues, 16 bits each.
fn apply_palette(indices: &[u8], colours: &[u16]) -> Result<Vec<u8>, Problem> {
    let size = colours.len() / 3;
    let colour =
        |index: usize| [index, index + size, index + 2 * size].map(|at| (colours[at] >> 8) as u8);
    if let Some(&beyond) = indices.iter().find(|&&index| usize::from(index) >= size) {
        return Err(format!("colour {beyond} is outside its palette of {size}"));
    }
    Ok(indices.iter().flat_map(|&index| colour(index.into())).collect())
}

fn grey_with_alpha(
    width: u32,
    height: u32,
    samples: DecodingResult,
) -> Result<DynamicImage, Problem> {
    let image = match samples {
        DecodingResult::U8(samples) => {
            GrayAlphaImage::from_raw(width, height, samples).map(DynamicImage::ImageLumaA8)
        }
        DecodingResult::U16(samples) => {
            ImageBuffer::<LumaA<u16>, _>::from_raw(width, height, samples)
                .map(DynamicImage::ImageLumaA16)
        }
        _ => return Err("grey with alpha in other than 8 or 16 bits".to_owned()),
    };
    image.ok_or_else(|| "incomplete image".to_owned())
}

fn unit_range(samples: DecodingResult) -> Result<Vec<f32>, Problem> {
    match samples {
        DecodingResult::U8(samples) => Ok(samples.iter().map(|&v| f32::from(v) / 255.0).collect()),
        DecodingResult::U16(samples) => {
            Ok(samples.iter().map(|&v| f32::from(v) / 65535.0).collect())
        }
        DecodingResult::F32(samples) => Ok(samples),
        _ => Err("TIFF bands must be 8- or 16-bit unsigned integers or 32-bit floats".to_owned()),
    }
}

/// `[H, W, C]` to `[C, H, W]`.
fn separate(values: &[f32], channels: usize, area: usize) -> Result<Vec<f32>, Problem> {
    if values.len() != channels * area {
        return Err(format!("{} samples for {channels} bands of {area}", values.len()));
    }
    Ok((0..channels).flat_map(|c| values[c..].iter().step_by(channels).copied()).collect())
}
