//! TIFF files: pictures of every photometric interpretation that Pillow reads, and the multi-band
//! files of remote sensing and microscopy.
//!
//! The `tiff` crate turns away many of these files by their tags (palettes, fewer than 8 bits,
//! YCbCr, bands that differ from what the interpretation says) before any strip is read. So the
//! structure is read here and the compressed strips are left to their libraries.

mod codec;
mod colour;
mod directory;
mod page;
mod samples;

use image::metadata::Orientation;

pub(super) use self::colour::cmyk_to_rgb;
pub(super) use self::directory::{Directory, is_tiff};
use self::page::{Format, Page, Photometric, pages};
use self::samples::Raster;
use super::super::image::{Image, Pixels};
use super::{Content, Problem, turned};

/// Decodes a TIFF file to `channels` channels: the bands of one page or of all its pages if they
/// are as many, else the picture of the first page.
pub(super) fn decode(file: &[u8], channels: usize) -> Result<Content, Problem> {
    let pages = pages(file, channels)?;
    let first = &pages[0];
    let bands: usize = pages.iter().map(|page| page.samples).sum();
    let alike = pages.iter().all(|page| {
        let kind = |page: &Page| (page.width, page.height, page.bits, page.format);
        kind(page) == kind(first)
    });
    let is_picture = colour::is_picture(first);
    if alike && pages.len() > 1 && bands == channels && first.samples < channels {
        return joined(file, &pages).map(Content::Bands);
    }
    let shown = match channels {
        1 | 3 => is_picture && !is_bands_of(first, channels),
        // Pages of one band each are bands of another number; a single one is grey.
        4 => is_picture && first.samples < 4 && (first.samples > 1 || pages.len() == 1),
        _ => false,
    };
    if shown {
        let image = colour::picture(first, Raster::read(first, file)?)?;
        let orientation = first.orientation.and_then(Orientation::from_exif);
        return Ok(Content::Picture(turned(
            image,
            orientation.unwrap_or(Orientation::NoTransforms),
        )));
    }
    if first.samples == channels && !is_unread_colour(first, channels) {
        return joined(file, &pages[..1]).map(Content::Bands);
    }
    Err(mismatch(&pages, bands, channels, alike))
}

/// Whether the page holds this many bands that happen to be a picture's: three, the first of which
/// is called grey.
fn is_bands_of(page: &Page, channels: usize) -> bool {
    let grey = matches!(page.photometric, Photometric::WhiteIsZero | Photometric::BlackIsZero);
    grey && channels > 1 && page.samples == channels
}

/// Whether three samples mean colours that aren't red, green and blue.
fn is_unread_colour(page: &Page, channels: usize) -> bool {
    const ICC_LAB: u64 = 9;
    const ITU_LAB: u64 = 10;
    const LOG_LUV: u64 = 32845;
    channels == 3
        && matches!(
            page.photometric,
            Photometric::YCbCr
                | Photometric::CieLab
                | Photometric::Other(ICC_LAB | ITU_LAB | LOG_LUV)
        )
}

/// The bands of all `pages`, which are of one size.
fn joined(file: &[u8], pages: &[Page]) -> Result<Image, Problem> {
    let mut planes = Vec::new();
    let (mut width, mut height, mut channels) = (0, 0, 0);
    for page in pages {
        let raster = Raster::read(page, file)?;
        let (page_width, page_height, bands) = raster.bands(page.orientation.unwrap_or(1))?;
        if channels > 0 && (width, height) != (page_width, page_height) {
            return Err("its pages are turned differently".to_owned());
        }
        (width, height) = (page_width, page_height);
        channels += page.samples;
        planes.extend(bands);
    }
    Image::new(width, height, channels, Pixels::F32(planes)).map_err(|e| e.to_string())
}

/// Why `pages` don't give `channels`, and what to do.
fn mismatch(pages: &[Page], bands: usize, channels: usize, alike: bool) -> Problem {
    const FLAG: &str = "`pretrain train --in-chans";
    let first = &pages[0];
    let kind = format!(
        "{}-bit {}",
        first.bits,
        match first.format {
            Format::Unsigned => "unsigned integers",
            Format::Signed => "signed integers",
            Format::Float => "floats",
        }
    );
    if is_unread_colour(first, channels) {
        return format!(
            "its colours are {:?} of {kind}, which is not read; convert it to RGB of 8 bits",
            first.photometric
        );
    }
    if pages.len() > 1 && !alike {
        return format!(
            "its first page has {} bands, but {channels} are needed, and its pages are of \
             different sizes or kinds, so that they are not taken as bands",
            first.samples
        );
    }
    if pages.len() == 1 && first.samples == 1 {
        return format!(
            "the image is one band of {kind}, not a picture of {channels} channels: read it with \
             one channel ({FLAG} 1`), or convert it to 8 bits (`gdal_translate -ot Byte -scale IN \
             OUT`)"
        );
    }
    let (holder, count) = match pages.len() {
        1 => ("the image has".to_owned(), bands.to_string()),
        // No more are looked at than are needed to know.
        pages if pages > channels => ("its pages have".to_owned(), format!("{bands} or more")),
        pages => (format!("its {pages} pages have"), bands.to_string()),
    };
    format!(
        "{holder} {count} bands, but {channels} are needed: read all of them ({FLAG} N`) or choose \
         some (`gdal_translate -b 1 -b 2 … IN OUT`, or an .npy array)"
    )
}
