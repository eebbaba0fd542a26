//! The samples of a page out of its strips or tiles.

use super::super::Problem;
use super::super::numbers::{Layout, Number, not_finite};
use super::codec::{Compression, unpack};
use super::page::{Format, Page};

/// The samples of a page, pixel after pixel, lowest byte first.
#[derive(Debug)]
pub(super) struct Raster {
    pub width: usize,
    pub height: usize,
    pub samples: usize,
    /// Of each sample, before it was put into the type `number`.
    pub bits: usize,
    pub number: Number,
    pub data: Vec<u8>,
}

/// The part of a page that one strip or tile holds.
struct Chunk {
    /// None: all samples.
    plane: Option<usize>,
    left: usize,
    top: usize,
    columns: usize,
    rows: usize,
}

impl Raster {
    /// Decodes `page` of `file`.
    pub fn read(page: &Page, file: &[u8]) -> Result<Raster, Problem> {
        let number = match (page.format, page.bits) {
            (Format::Unsigned, ..=8) => Number::U8,
            (Format::Unsigned, ..=16) => Number::U16,
            (Format::Unsigned, ..=32) => Number::U32,
            (Format::Unsigned, _) => Number::U64,
            (Format::Signed, 8) => Number::I8,
            (Format::Signed, 16) => Number::I16,
            (Format::Signed, 32) => Number::I32,
            (Format::Signed, _) => Number::I64,
            (Format::Float, 16) => Number::F16,
            (Format::Float, 32) => Number::F32,
            (Format::Float, _) => Number::F64,
        };
        let Page { width, height, samples, bits, .. } = *page;
        let data = vec![0; width * height * samples * number.size()];
        let mut raster = Raster { width, height, samples, bits, number, data };
        let (across, down) = page.grid();
        for (index, &place) in page.chunks.iter().enumerate() {
            let (plane, index_in_plane) = (index / (across * down), index % (across * down));
            let left = index_in_plane % across * page.chunk.0;
            let top = index_in_plane / across * page.chunk.1;
            let chunk = Chunk {
                plane: page.planar.then_some(plane),
                left,
                top,
                columns: page.chunk.0.min(width - left),
                rows: page.chunk.1.min(height - top),
            };
            let kind = if page.tiled { "tile" } else { "strip" };
            let rows = rows(page, file, place, &chunk)
                .map_err(|problem| format!("{problem} ({kind} {index})"))?;
            raster.put(page, &chunk, rows);
        }
        Ok(raster)
    }

    /// Copies what is inside the image of the rows of `chunk`, uncompressed.
    fn put(&mut self, page: &Page, chunk: &Chunk, mut rows: Vec<u8>) {
        let size = self.number.size();
        let per_pixel = page.samples_in_chunk();
        let row_bytes = row_bytes(page);
        let mut ordered = Vec::new();
        for (y, row) in rows.chunks_exact_mut(row_bytes).take(chunk.rows).enumerate() {
            let is_plain = page.predictor == 1 || page.subsampling != (1, 1);
            let stored: &[u8] = if page.bits == 8 && is_plain {
                row
            } else {
                order(page, row, size, &mut ordered);
                &ordered
            };
            let start = ((chunk.top + y) * self.width + chunk.left) * self.samples * size;
            match chunk.plane {
                None => {
                    let length = chunk.columns * per_pixel * size;
                    self.data[start..start + length].copy_from_slice(&stored[..length]);
                }
                Some(plane) => {
                    let pixels = self.data[start..].chunks_mut(self.samples * size);
                    for (pixel, sample) in pixels.zip(stored.chunks_exact(size)).take(chunk.columns)
                    {
                        pixel[plane * size..(plane + 1) * size].copy_from_slice(sample);
                    }
                }
            }
        }
    }

    /// The bands as planes, turned upright, with their width and height. Integers are divided by
    /// the greatest of their bits.
    pub fn bands(&self, orientation: u8) -> Result<(usize, usize, Vec<f32>), Problem> {
        let layout = Layout::interleaved(self.height, self.width, self.samples);
        let layout = layout.upright(orientation);
        let greatest = u64::MAX >> (64 - self.bits);
        let planes = self.number.planes(&self.data, true, greatest, layout);
        match not_finite(&planes, layout.height, layout.width) {
            Some(problem) => Err(problem),
            None => Ok((layout.width, layout.height, planes)),
        }
    }
}

/// Bytes of a row of a chunk.
fn row_bytes(page: &Page) -> usize {
    (page.chunk.0 * page.samples_in_chunk() * page.bits).div_ceil(8)
}

/// The rows of a chunk, uncompressed.
fn rows(
    page: &Page,
    file: &[u8],
    (offset, length): (u64, u64),
    chunk: &Chunk,
) -> Result<Vec<u8>, Problem> {
    let limit = |place: u64| place.min(file.len() as u64) as usize;
    let data = &file[limit(offset)..limit(offset.saturating_add(length))];
    let reversed: Vec<u8>;
    let keeps_order = matches!(page.compression, Compression::Jpeg { .. } | Compression::WebP);
    let data = if page.reversed_bits && !keeps_order {
        reversed = data.iter().map(|byte| byte.reverse_bits()).collect();
        &reversed
    } else {
        data
    };
    let (across, down) = page.subsampling;
    let needed = if (across, down) == (1, 1) {
        row_bytes(page) * chunk.rows
    } else {
        page.chunk.0.div_ceil(across) * chunk.rows.div_ceil(down) * (across * down + 2)
    };
    let stored_rows = if page.tiled { page.chunk.1 } else { chunk.rows };
    let mut rows = unpack(page, data, stored_rows, needed)?;
    if rows.len() < needed {
        return Err(format!("truncated: {} of {needed} bytes", rows.len()));
    }
    if (across, down) == (1, 1) {
        return Ok(rows);
    }
    if page.predictor == 2 {
        // libtiff divides a row of units by their height, and takes the differences of every
        // third byte in that, whatever the bytes are.
        let row = page.chunk.0.div_ceil(across) * (across * down + 2) / down;
        rows.chunks_mut(row).for_each(|row| undo_horizontal_predictor(row, 3, 1));
    }
    Ok(upsample(page, &rows, chunk.rows))
}

/// Luma and chroma for every pixel, out of units of `across × down` lumas, a blue and a red
/// chroma. (TIFF 6.0, section 21.)
fn upsample(page: &Page, units: &[u8], rows: usize) -> Vec<u8> {
    let (across, down) = page.subsampling;
    let unit = across * down + 2;
    let units_across = page.chunk.0.div_ceil(across);
    let mut pixels = Vec::with_capacity(page.chunk.0 * rows * 3);
    for y in 0..rows {
        for x in 0..page.chunk.0 {
            let start = (y / down * units_across + x / across) * unit;
            let luma = units[start + y % down * across + x % across];
            pixels.extend([luma, units[start + unit - 2], units[start + unit - 1]]);
        }
    }
    pixels
}

/// The samples of a stored row, each in `size` bytes with the lowest first and the predictor
/// undone.
fn order(page: &Page, row: &mut [u8], size: usize, ordered: &mut Vec<u8>) {
    let per_pixel = page.samples_in_chunk();
    let count = page.chunk.0 * per_pixel;
    ordered.clear();
    if page.predictor == 3 {
        undo_float_predictor(row, per_pixel, size, ordered);
        return;
    }
    if page.bits == 8 * size && (page.little_endian || size == 1) {
        ordered.extend_from_slice(&row[..count * size]);
    } else if page.bits.is_multiple_of(8) {
        for sample in row.chunks_exact(page.bits / 8) {
            let start = ordered.len();
            ordered.extend(sample);
            if !page.little_endian {
                ordered[start..].reverse();
            }
            ordered.resize(start + size, 0);
        }
    } else if 8 % page.bits == 0 {
        let shifts = (0..8 / page.bits).rev().map(|place| place * page.bits);
        let values = row.iter().flat_map(|byte| shifts.clone().map(move |shift| byte >> shift));
        ordered.extend(values.take(count).map(|value| value & (0xff >> (8 - page.bits))));
    } else {
        let mut bits = row.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
        for _ in 0..count {
            let value =
                bits.by_ref().take(page.bits).fold(0u32, |all, bit| all << 1 | u32::from(bit));
            ordered.extend(&value.to_le_bytes()[..size]);
        }
    }
    if page.predictor == 2 {
        undo_horizontal_predictor(ordered, per_pixel, size);
    }
}

/// Each sample is the difference to that of the pixel before. (TIFF 6.0, section 14.)
fn undo_horizontal_predictor(row: &mut [u8], per_pixel: usize, size: usize) {
    let back = per_pixel * size;
    if size == 1 {
        for at in back..row.len() {
            row[at] = row[at].wrapping_add(row[at - back]);
        }
        return;
    }
    let read =
        |bytes: &[u8]| bytes.iter().rev().fold(0u64, |all, &byte| all << 8 | u64::from(byte));
    for at in (back..row.len()).step_by(size) {
        let sum = read(&row[at - back..at - back + size]).wrapping_add(read(&row[at..at + size]));
        row[at..at + size].copy_from_slice(&sum.to_le_bytes()[..size]);
    }
}

/// All first bytes of a row's floats, then all second ones, highest first, each the difference to
/// that of the pixel before. (Adobe Photoshop TIFF technical note 3.)
fn undo_float_predictor(row: &mut [u8], per_pixel: usize, size: usize, ordered: &mut Vec<u8>) {
    for at in per_pixel..row.len() {
        row[at] = row[at].wrapping_add(row[at - per_pixel]);
    }
    let count = row.len() / size;
    for sample in 0..count {
        ordered.extend((0..size).rev().map(|byte| row[byte * count + sample]));
    }
}
