//! The pages of a TIFF file, and how each stores its samples.

use std::collections::HashSet;

use super::super::{MAX_PIXELS, Problem, check_size};
use super::codec::Compression;
use super::directory::Directory;

/// The most bytes that a page's samples may take as they are stored, before bands become floats.
const MAX_BYTES: u64 = 8 * MAX_PIXELS;

/// Directories looked at, whatever a file links.
const MAX_DIRECTORIES: usize = 4096;

/// Tags by their numbers in TIFF 6.0 and its supplements.
pub(super) mod tag {
    pub const NEW_SUBFILE_TYPE: u16 = 254;
    pub const SUBFILE_TYPE: u16 = 255;
    pub const WIDTH: u16 = 256;
    pub const LENGTH: u16 = 257;
    pub const BITS: u16 = 258;
    pub const COMPRESSION: u16 = 259;
    pub const PHOTOMETRIC: u16 = 262;
    pub const FILL_ORDER: u16 = 266;
    pub const STRIP_OFFSETS: u16 = 273;
    pub const SAMPLES: u16 = 277;
    pub const ROWS_PER_STRIP: u16 = 278;
    pub const STRIP_BYTES: u16 = 279;
    pub const PLANAR: u16 = 284;
    pub const T4_OPTIONS: u16 = 292;
    pub const PREDICTOR: u16 = 317;
    pub const COLOUR_MAP: u16 = 320;
    pub const TILE_WIDTH: u16 = 322;
    pub const TILE_LENGTH: u16 = 323;
    pub const TILE_OFFSETS: u16 = 324;
    pub const TILE_BYTES: u16 = 325;
    pub const EXTRA_SAMPLES: u16 = 338;
    pub const SAMPLE_FORMAT: u16 = 339;
    pub const JPEG_TABLES: u16 = 347;
    pub const SUBSAMPLING: u16 = 530;
}

/// What the numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Unsigned,
    Signed,
    Float,
}

/// What the samples of a pixel mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
    CieLab,
    Other(u64),
}

/// What a sample beyond those of the photometric interpretation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    Unspecified,
    /// The colours are already multiplied by it.
    AssociatedAlpha,
    Alpha,
}

/// One image of a file.
#[derive(Debug)]
pub(super) struct Page<'a> {
    pub width: usize,
    pub height: usize,
    /// Samples of a pixel.
    pub samples: usize,
    /// Bits of a sample.
    pub bits: usize,
    pub format: Format,
    pub photometric: Photometric,
    /// As given, for the last of the samples.
    pub extra: Vec<Extra>,
    /// Samples lie in planes, one after another.
    pub planar: bool,
    pub little_endian: bool,
    pub compression: Compression<'a>,
    pub predictor: u64,
    /// The lowest bit of a byte comes first.
    pub reversed_bits: bool,
    /// Pixels of which one of YCbCr's chroma samples is, in a row and in a column.
    pub subsampling: (usize, usize),
    /// Size of a strip or tile.
    pub chunk: (usize, usize),
    pub tiled: bool,
    /// Where strips or tiles begin, and their lengths.
    pub chunks: Vec<(u64, u64)>,
    /// All reds, then all greens, then all blues.
    pub colour_map: Vec<u64>,
    pub orientation: Option<u8>,
}

/// The pages of `file`, without thumbnails and masks; no more than one beyond `enough`.
pub(super) fn pages(file: &[u8], enough: usize) -> Result<Vec<Page<'_>>, Problem> {
    let mut directory = Directory::first(file).ok_or("not a TIFF file")??;
    let mut pages = vec![Page::new(file, &directory)?];
    let mut seen = HashSet::new();
    while pages.len() <= enough && seen.len() < MAX_DIRECTORIES {
        // As in Pillow, directories that lead back are the last, and so are here damaged ones.
        let Some((place, Ok(next))) = directory.following(file) else { break };
        if !seen.insert(place) {
            break;
        }
        directory = next;
        if !is_reduced_or_mask(&directory) {
            pages.extend(Page::new(file, &directory));
        }
    }
    Ok(pages)
}

fn is_reduced_or_mask(directory: &Directory) -> bool {
    const REDUCED: u64 = 1;
    const MASK: u64 = 4;
    const OLD_REDUCED: u64 = 2;
    directory.integer(tag::NEW_SUBFILE_TYPE).is_some_and(|kind| kind & (REDUCED | MASK) != 0)
        || directory.integer(tag::SUBFILE_TYPE) == Some(OLD_REDUCED)
}

impl<'a> Page<'a> {
    fn new(file: &'a [u8], directory: &Directory<'a>) -> Result<Self, Problem> {
        let number =
            |tag: u16, name: &str, default: Option<u64>| match (directory.integer(tag), default) {
                (Some(value), _) => Ok(value),
                (None, Some(value)) if !directory.has(tag) => Ok(value),
                _ => Err(format!("damaged: its TIFF tag {tag} ({name}) is missing or unreadable")),
            };
        let size = |tag, name, default: Option<u64>| {
            number(tag, name, default)
                .map(|value| u32::try_from(value).unwrap_or(u32::MAX) as usize)
        };
        let width = size(tag::WIDTH, "ImageWidth", None)?;
        let height = size(tag::LENGTH, "ImageLength", None)?;
        check_size(width as u32, height as u32)?;
        let samples = size(tag::SAMPLES, "SamplesPerPixel", Some(1))?;
        let bits = uniform(directory, tag::BITS, "BitsPerSample", samples)? as usize;
        let format = uniform(directory, tag::SAMPLE_FORMAT, "SampleFormat", samples)?;
        let format = match format {
            1 | 4 => Format::Unsigned,
            2 => Format::Signed,
            3 => Format::Float,
            _ => {
                return Err(format!(
                    "TIFF samples of complex numbers (SampleFormat {format}); write their real \
                     and imaginary parts, or magnitude, as bands"
                ));
            }
        };
        check_bits(bits, format)?;
        let number_size = if bits <= 8 { 1 } else { bits.next_power_of_two() as u64 / 8 };
        let bytes = (width * height) as u64 * samples as u64 * number_size;
        if samples == 0 || samples > usize::from(u16::MAX) || bytes > MAX_BYTES {
            return Err(format!(
                "{width}×{height} pixels of {samples} samples of {bits} bits are not between 1 \
                 and {MAX_BYTES} bytes"
            ));
        }
        let code = number(tag::COMPRESSION, "Compression", Some(1))?;
        let photometric = match number(tag::PHOTOMETRIC, "PhotometricInterpretation", Some(0))? {
            0 => Photometric::WhiteIsZero,
            1 => Photometric::BlackIsZero,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            5 => Photometric::Cmyk,
            6 => Photometric::YCbCr,
            8 => Photometric::CieLab,
            other => Photometric::Other(other),
        };
        let extra = directory.integers(tag::EXTRA_SAMPLES).unwrap_or_default();
        let extra = extra.into_iter().take(samples).map(|kind| match kind {
            1 => Extra::AssociatedAlpha,
            // 999 is Corel Draw's.
            2 | 999 => Extra::Alpha,
            _ => Extra::Unspecified,
        });
        let planar = directory.integer(tag::PLANAR) == Some(2) && samples > 1;
        let ycbcr = photometric == Photometric::YCbCr && samples == 3 && !planar;
        let compression = Compression::new(
            code,
            directory.bytes(tag::JPEG_TABLES),
            ycbcr,
            directory.integer(tag::T4_OPTIONS).unwrap_or(0),
        )?;
        let (photometric, subsampling) = match compression {
            Compression::Jpeg { ycbcr: true, .. } => (Photometric::Rgb, (1, 1)),
            Compression::Jpeg { .. } => (photometric, (1, 1)),
            _ if photometric == Photometric::YCbCr => (photometric, subsampling(directory)?),
            _ => (photometric, (1, 1)),
        };
        if subsampling != (1, 1) && !(ycbcr && bits == 8) {
            let planes = if planar { " in planes" } else { "" };
            return Err(format!(
                "YCbCr with subsampled chroma ({subsampling:?}) in {samples} samples of {bits} \
                 bits{planes}: of these, three of 8 bits are read, and none in planes; convert it \
                 to RGB (gdal_translate -co PHOTOMETRIC=RGB IN OUT), or write an .npy array"
            ));
        }
        let tiled = directory.has(tag::TILE_OFFSETS);
        let chunk = if tiled {
            let (width, length) = (tag::TILE_WIDTH, tag::TILE_LENGTH);
            (size(width, "TileWidth", None)?, size(length, "TileLength", None)?)
        } else {
            let rows = size(tag::ROWS_PER_STRIP, "RowsPerStrip", Some(height as u64))?;
            (width, rows.min(height))
        };
        let mut page = Page {
            width,
            height,
            samples,
            bits,
            format,
            photometric,
            extra: extra.collect(),
            planar,
            little_endian: directory.little_endian(),
            compression,
            predictor: predictor(directory, &compression, bits, format)?,
            reversed_bits: directory.integer(tag::FILL_ORDER) == Some(2),
            subsampling,
            chunk,
            tiled,
            chunks: Vec::new(),
            colour_map: directory.integers(tag::COLOUR_MAP).unwrap_or_default(),
            orientation: directory.orientation(),
        };
        page.chunks = page.places(file, directory)?;
        Ok(page)
    }

    /// Samples of a pixel inside a chunk.
    pub fn samples_in_chunk(&self) -> usize {
        if self.planar { 1 } else { self.samples }
    }

    /// Strips or tiles of a row and of a column of them.
    pub fn grid(&self) -> (usize, usize) {
        (self.width.div_ceil(self.chunk.0), self.height.div_ceil(self.chunk.1))
    }

    /// Where the chunks lie.
    fn places(&self, file: &[u8], directory: &Directory) -> Result<Vec<(u64, u64)>, Problem> {
        let (offsets, lengths, kind) = match self.tiled {
            true => (tag::TILE_OFFSETS, tag::TILE_BYTES, "tiles"),
            false => (tag::STRIP_OFFSETS, tag::STRIP_BYTES, "strips"),
        };
        let (width, height) = self.chunk;
        let bits = self.samples_in_chunk() as u64 * self.bits as u64;
        if width == 0
            || height == 0
            || (width as u64).saturating_mul(height as u64) > MAX_PIXELS
            || (width * height) as u64 * bits / 8 > MAX_BYTES
        {
            return Err(format!("damaged: {kind} of {width}×{height} pixels"));
        }
        let (across, down) = self.grid();
        let needed = across * down * if self.planar { self.samples } else { 1 };
        let offsets = directory.integers(offsets).unwrap_or_default();
        if offsets.len() < needed {
            return Err(format!("damaged: {} {kind} of {needed}", offsets.len()));
        }
        // Some writers leave the lengths out or zero, which ends a chunk with the file.
        let lengths = directory.integers(lengths).unwrap_or_default();
        let length = |number: usize| match lengths.get(number) {
            Some(0) | None => file.len() as u64,
            Some(&length) => length,
        };
        let places = offsets.iter().take(needed).enumerate();
        Ok(places.map(|(number, &offset)| (offset, length(number))).collect())
    }
}

/// The predictor, 1 for none; only the compressions named by libtiff have one.
fn predictor(
    directory: &Directory,
    compression: &Compression,
    bits: usize,
    format: Format,
) -> Result<u64, Problem> {
    let predictor = directory.integer(tag::PREDICTOR).unwrap_or(1);
    match predictor {
        _ if !compression.has_predictor() => Ok(1),
        1 => Ok(1),
        2 if matches!(bits, 8 | 16 | 32 | 64) => Ok(2),
        3 if format == Format::Float => Ok(3),
        _ => Err(format!("damaged: predictor {predictor} of {bits}-bit samples")),
    }
}

/// How many pixels, in a row and in a column, share their chroma.
fn subsampling(directory: &Directory) -> Result<(usize, usize), Problem> {
    match directory.integers(tag::SUBSAMPLING).as_deref() {
        Some(&[across @ (1 | 2 | 4), down @ (1 | 2 | 4), ..]) => {
            Ok((across as usize, down as usize))
        }
        Some(other) => Err(format!("damaged: YCbCrSubSampling {other:?}")),
        None => Ok((2, 2)),
    }
}

/// The one value of a tag that has one for each of the samples; 1 where it isn't given.
fn uniform(directory: &Directory, tag: u16, name: &str, samples: usize) -> Result<u64, Problem> {
    if !directory.has(tag) {
        return Ok(1);
    }
    let mut values = directory.integers(tag).unwrap_or_default();
    values.truncate(samples.max(1));
    match values.split_first() {
        Some((first, others)) if others.iter().all(|value| value == first) => Ok(*first),
        Some(_) => Err(format!(
            "its bands differ in TIFF tag {tag} ({name} {values:?}), which is not read; give all \
             the same type (gdal_translate -ot Float32 IN OUT), or write an .npy array"
        )),
        None => Err(format!("damaged: its TIFF tag {tag} ({name}) is unreadable")),
    }
}

fn check_bits(bits: usize, format: Format) -> Result<(), Problem> {
    let known = match format {
        Format::Unsigned => (1..=32).contains(&bits) || bits == 64,
        Format::Signed => matches!(bits, 8 | 16 | 32 | 64),
        Format::Float => matches!(bits, 16 | 32 | 64),
    };
    let kind = match format {
        Format::Unsigned => "unsigned integers",
        Format::Signed => "signed integers",
        Format::Float => "floats",
    };
    if known {
        return Ok(());
    }
    Err(format!(
        "TIFF samples of {bits}-bit {kind}, which are not read; convert them \
         (gdal_translate -ot Float32 IN OUT) or write an .npy array"
    ))
}
