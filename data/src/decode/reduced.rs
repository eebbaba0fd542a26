//! Parts of large JPEG files, decoded at a fraction of their size.
//!
//! libjpeg computes 1/2, 1/4 or 1/8 of the pixels straight from each block's low frequencies. It
//! is used for this alone: what is decoded in full stays with the decoder of all other files.
//! Whatever it can't do is no error here but a reason to decode in full, where errors are told.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use mozjpeg::{ColorSpace, Decompress};
use zune_jpeg::zune_core::colorspace::ColorSpace as Stored;

use super::super::image::{CropBox, Image, Interpolation, Part, Pixels};
use super::check_size;
use super::jpeg::{self, Markers};

/// A reduced part has at least so many times the target's rows and columns.
const MARGIN: usize = 2;

/// Sizes that are read, in eighths, smallest first.
const EIGHTHS: [usize; 3] = [1, 2, 4];

/// What has to be known of a JPEG file to decode a part of it.
#[derive(Debug)]
pub(super) struct Header {
    /// As stored, in pixels.
    width: usize,
    height: usize,
    orientation: Orientation,
    channels: usize,
}

impl Header {
    /// The header of a JPEG file that may be decoded reduced to `channels`: a whole one, grey or
    /// in luma and chroma.
    pub(super) fn read(bytes: &[u8], channels: usize) -> Option<Header> {
        if !bytes.starts_with(&[0xff, 0xd8, 0xff]) || !matches!(channels, 1 | 3) {
            return None;
        }
        let Markers { colours, orientation, has_end, .. } = Markers::read(bytes);
        // As decoding in full calls the same decoder, so that both find the same.
        let decoder = jpeg::decoder(bytes).ok()?;
        let (width, height) = decoder.dimensions()?;
        check_size(width.try_into().ok()?, height.try_into().ok()?).ok()?;
        let known = matches!(colours, Some(Stored::YCbCr | Stored::Luma));
        if !has_end || !known || decoder.input_colorspace() != colours {
            return None;
        }
        Some(Header { width, height, orientation, channels })
    }

    /// (height, width) once turned upright.
    pub(super) fn upright(&self) -> (usize, usize) {
        match self.turned().0 {
            false => (self.height, self.width),
            true => (self.width, self.height),
        }
    }

    /// The part of the upright image inside `area`, resized to `size`; none if it isn't large
    /// enough to be reduced, or can't be read so.
    pub(super) fn part(
        &self,
        bytes: &[u8],
        area: CropBox,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Option<Image> {
        let (height, width) = self.upright();
        let ends = (area.top.checked_add(area.height)?, area.left.checked_add(area.width)?);
        if ends.0 > height || ends.1 > width || size.0 == 0 || size.1 == 0 {
            return None;
        }
        // Read and resized as stored; the small result is what is turned.
        let area = self.stored(area);
        let size = if self.turned().0 { (size.1, size.0) } else { size };
        let eighths = eighths((area.height, area.width), size)?;
        let reduced = |start: usize, length: usize| {
            start * eighths / 8..((start + length) * eighths).div_ceil(8)
        };
        let (rows, columns) = (reduced(area.top, area.height), reduced(area.left, area.width));
        // libjpeg's errors come as panics that don't reach the hook.
        let read = || self.read_part(bytes, eighths, rows.clone(), columns.clone());
        let samples = catch_unwind(AssertUnwindSafe(read)).ok().flatten()?;
        let image =
            Image::new(columns.len(), rows.len(), self.channels, Pixels::U8(samples)).ok()?;
        // Eighths are exact in binary.
        let place = |start: usize| (start * eighths) as f64 / 8.0;
        let part = Part {
            top: place(area.top) - rows.start as f64,
            left: place(area.left) - columns.start as f64,
            height: place(area.height),
            width: place(area.width),
        };
        let image = image.resize_part(part, size, interpolation).ok()?;
        turn(image, self.orientation)
    }

    /// Whether the axes change places on turning upright, and whether the columns and the rows as
    /// stored then run the other way.
    fn turned(&self) -> (bool, bool, bool) {
        match self.orientation {
            Orientation::NoTransforms => (false, false, false),
            Orientation::FlipHorizontal => (false, true, false),
            Orientation::FlipVertical => (false, false, true),
            Orientation::Rotate180 => (false, true, true),
            Orientation::Rotate90FlipH => (true, false, false),
            Orientation::Rotate270 => (true, true, false),
            Orientation::Rotate90 => (true, false, true),
            Orientation::Rotate270FlipH => (true, true, true),
        }
    }

    /// Where `area` of the upright image is stored.
    fn stored(&self, area: CropBox) -> CropBox {
        let CropBox { mut top, mut left, mut height, mut width } = area;
        let (swapped, from_right, from_bottom) = self.turned();
        if swapped {
            (top, left, height, width) = (left, top, width, height);
        }
        if from_right {
            left = self.width - left - width;
        }
        if from_bottom {
            top = self.height - top - height;
        }
        CropBox { top, left, height, width }
    }

    /// The samples in `rows` and `columns` of the file at this many eighths of its size.
    fn read_part(
        &self,
        bytes: &[u8],
        eighths: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Option<Vec<u8>> {
        let mut file = Decompress::new_mem(bytes).ok()?;
        let known = matches!(file.color_space(), ColorSpace::JCS_YCbCr | ColorSpace::JCS_GRAYSCALE);
        if !known || file.size() != (self.width, self.height) {
            return None;
        }
        file.scale(eighths as u8);
        let colours =
            if self.channels == 1 { ColorSpace::JCS_GRAYSCALE } else { ColorSpace::JCS_RGB };
        let mut file = file.to_colorspace(colours).ok()?;
        let mut row = vec![0u8; file.width() * self.channels];
        let part = columns.start * self.channels..columns.end * self.channels;
        let mut samples = Vec::with_capacity(rows.len() * part.len());
        // What lies below the part isn't decoded at all.
        for number in 0..rows.end {
            file.read_scanlines_into(&mut row).ok()?;
            if number >= rows.start {
                samples.extend_from_slice(row.get(part.clone())?);
            }
        }
        Some(samples)
    }
}

/// The smallest size, in eighths, at which a part of `area` is still [`MARGIN`] times the
/// target's `size` = (height, width) both ways.
fn eighths(area: (usize, usize), size: (usize, usize)) -> Option<usize> {
    let enough = |side: usize, target: usize, eighths| {
        target.checked_mul(8 * MARGIN).is_some_and(|needed| side * eighths >= needed)
    };
    EIGHTHS.into_iter().find(|&e| enough(area.0, size.0, e) && enough(area.1, size.1, e))
}

fn turn(image: Image, orientation: Orientation) -> Option<Image> {
    if orientation == Orientation::NoTransforms {
        return Some(image);
    }
    let (width, height) = (image.width() as u32, image.height() as u32);
    let channels = image.channels();
    let Pixels::U8(samples) = image.into_pixels() else { return None };
    let mut image = match channels {
        1 => DynamicImage::ImageLuma8(GrayImage::from_raw(width, height, samples)?),
        _ => DynamicImage::ImageRgb8(RgbImage::from_raw(width, height, samples)?),
    };
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    Image::new(width, height, channels, Pixels::U8(image.into_bytes())).ok()
}

#[cfg(test)]
mod tests;
