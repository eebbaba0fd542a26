//! Compressed strips and tiles to bytes.

use std::io::Read;

use hayro_ccitt::{DecodeSettings, Decoder, DecoderContext, EncodingMode};
use weezl::BitOrder;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::super::{Problem, jpeg};
use super::page::Page;
use crate::packed::{MAX_WINDOW, xz_dictionary};

/// How chunks are compressed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Compression<'a> {
    None,
    /// Modified Huffman: Group 3 in one dimension, rows that begin at bytes.
    Huffman,
    /// Group 3, `two_dimensional` or not, end-of-line codes `aligned` to bytes or not.
    Fax3 {
        two_dimensional: bool,
        aligned: bool,
    },
    Fax4,
    Lzw,
    /// With tables that all chunks share.
    Jpeg {
        tables: Option<&'a [u8]>,
        ycbcr: bool,
    },
    Deflate,
    PackBits,
    Lzma,
    Zstd,
    WebP,
}

impl<'a> Compression<'a> {
    /// By the code of the tag; of JPEG, whether it holds luma and chroma.
    pub fn new(
        code: u64,
        tables: Option<&'a [u8]>,
        ycbcr: bool,
        t4_options: u64,
    ) -> Result<Self, Problem> {
        const ALIGNED: u64 = 4;
        Ok(match code {
            1 => Compression::None,
            2 => Compression::Huffman,
            3 => Compression::Fax3 {
                two_dimensional: t4_options & 1 != 0,
                aligned: t4_options & ALIGNED != 0,
            },
            4 => Compression::Fax4,
            5 => Compression::Lzw,
            7 => Compression::Jpeg { tables, ycbcr },
            8 | 32946 => Compression::Deflate,
            32773 => Compression::PackBits,
            34925 => Compression::Lzma,
            50000 => Compression::Zstd,
            50001 => Compression::WebP,
            _ => {
                let name = unread(code);
                return Err(format!(
                    "TIFF compression {code}{name} is not read; convert the file \
                     (tiffcp -c zip IN OUT, or gdal_translate -co COMPRESS=DEFLATE IN OUT)"
                ));
            }
        })
    }

    /// Whether samples may be stored as differences.
    pub fn has_predictor(&self) -> bool {
        use Compression::{Deflate, Lzma, Lzw, Zstd};
        matches!(self, Lzw | Deflate | Lzma | Zstd)
    }
}

/// The names of what isn't read.
fn unread(code: u64) -> &'static str {
    match code {
        6 => " (old-style JPEG)",
        32766 => " (NeXT)",
        32771 => " (CCITT RLE/W)",
        32809 => " (ThunderScan)",
        32908 | 32909 => " (PixarLog)",
        33003 | 33005 | 34712 => " (JPEG 2000)",
        34661 => " (JBIG)",
        34676 | 34677 => " (SGI Log)",
        34887 => " (LERC)",
        34892 => " (lossy DNG)",
        50002 | 52546 => " (JPEG XL)",
        _ => "",
    }
}

/// The first `length` bytes that `data`, a chunk of `rows` rows, holds; fewer if it ends before.
pub(super) fn unpack(
    page: &Page,
    data: &[u8],
    rows: usize,
    length: usize,
) -> Result<Vec<u8>, Problem> {
    match page.compression {
        Compression::None => Ok(data[..length.min(data.len())].to_vec()),
        Compression::Huffman | Compression::Fax3 { .. } | Compression::Fax4 => {
            fax(page, data, rows, length)
        }
        Compression::Lzw => Ok(lzw(data, length)),
        Compression::Jpeg { tables, ycbcr } => decode_jpeg(page, tables, ycbcr, data),
        Compression::Deflate => read(flate2::read::ZlibDecoder::new(data), length),
        Compression::PackBits => Ok(pack_bits(data, length)),
        Compression::Lzma if xz_dictionary(data) > MAX_WINDOW => {
            Err(format!("damaged: an LZMA dictionary of more than {MAX_WINDOW} bytes"))
        }
        Compression::Lzma => read(lzma_rust2::XzReader::new(data, false), length),
        Compression::Zstd => {
            let window = MAX_WINDOW.max(length as u64);
            let reader = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(data, window);
            read(reader.map_err(|e| format!("damaged: {e}"))?, length)
        }
        Compression::WebP => web_p(page, data),
    }
}

/// What can be read, up to `length` bytes: damage behind them is not looked for.
fn read(reader: impl Read, length: usize) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    match reader.take(length as u64).read_to_end(&mut bytes) {
        Err(problem) if bytes.len() < length => Err(format!("damaged: {problem}")),
        _ => Ok(bytes),
    }
}

fn lzw(data: &[u8], length: usize) -> Vec<u8> {
    // Files older than TIFF 6.0 begin otherwise: their codes run from the lowest bit.
    let mut decoder = match data {
        [0, second, ..] if second & 1 == 1 => weezl::decode::Decoder::new(BitOrder::Lsb, 8),
        _ => weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8),
    };
    let mut bytes = vec![0; length];
    let (mut from, mut to) = (0, 0);
    while to < length {
        let done = decoder.decode_bytes(&data[from..], &mut bytes[to..]);
        from += done.consumed_in;
        to += done.consumed_out;
        let stuck = done.consumed_in == 0 && done.consumed_out == 0;
        if stuck || !matches!(done.status, Ok(weezl::LzwStatus::Ok)) {
            break;
        }
    }
    bytes.truncate(to);
    bytes
}

/// TIFF 6.0, section 9.
fn pack_bits(mut data: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length.min(64 * data.len()));
    while let [header, rest @ ..] = data
        && bytes.len() < length
    {
        let used = match (*header as i8, rest) {
            (count @ 0.., _) => {
                let run = (count as usize + 1).min(rest.len());
                bytes.extend(&rest[..run]);
                run
            }
            (-128, _) | (_, []) => 0,
            (count, [value, ..]) => {
                bytes.resize(bytes.len() + 1 + usize::from(count.unsigned_abs()), *value);
                1
            }
        };
        data = &rest[used..];
    }
    bytes.truncate(length);
    bytes
}

/// Rows of bits, black ones set.
fn fax(page: &Page, data: &[u8], rows: usize, length: usize) -> Result<Vec<u8>, Problem> {
    let width = page.chunk.0;
    if page.bits != 1 || page.samples_in_chunk() != 1 {
        return Err(format!("damaged: fax compression of {}-bit samples", page.bits));
    }
    let (encoding, end_of_line, aligned) = match page.compression {
        Compression::Fax4 => (EncodingMode::Group4, false, false),
        Compression::Fax3 { two_dimensional: true, aligned } => {
            (EncodingMode::Group3_2D, true, aligned)
        }
        Compression::Fax3 { aligned, .. } => (EncodingMode::Group3_1D, true, aligned),
        _ => (EncodingMode::Group3_1D, false, true),
    };
    let settings = DecodeSettings {
        columns: width as u32,
        rows: rows as u32,
        end_of_block: true,
        end_of_line,
        rows_are_byte_aligned: aligned,
        encoding,
        strict: false,
    };
    let mut sink = Rows { width, bytes: Vec::new() };
    let done = hayro_ccitt::decode(data, &mut sink, &mut DecoderContext::new(settings));
    match done {
        Err(problem) if sink.bytes.len() < length => Err(format!("damaged: {problem:?}")),
        _ => Ok(sink.bytes),
    }
}

struct Rows {
    width: usize,
    bytes: Vec<u8>,
}

impl Decoder for Rows {
    fn push_row(&mut self, changes: &[u32]) {
        let start = self.bytes.len();
        self.bytes.resize(start + self.width.div_ceil(8), 0);
        let row = &mut self.bytes[start..];
        for run in changes.chunks(2) {
            let end = run.get(1).map_or(self.width, |&end| end as usize);
            for column in run[0] as usize..end.min(self.width) {
                row[column / 8] |= 0x80 >> (column % 8);
            }
        }
    }
}

/// The samples as stored, but for luma and chroma, which become RGB. What the components are is
/// told by the TIFF file, not by the JPEG stream.
fn decode_jpeg(
    page: &Page,
    tables: Option<&[u8]>,
    ycbcr: bool,
    data: &[u8],
) -> Result<Vec<u8>, Problem> {
    let damaged = |problem| format!("damaged: its JPEG stream: {problem}");
    if !jpeg::has_end(data) {
        return Err("truncated: a JPEG stream has no end marker".to_owned());
    }
    // Tables are a stream of their own, from start to end marker.
    let whole = match tables.and_then(|tables| tables.get(..tables.len().checked_sub(2)?)) {
        Some(tables) => [tables, data.get(2..).unwrap_or_default()].concat(),
        None => data.to_vec(),
    };
    let mut decoder = JpegDecoder::new_with_options(
        ZCursor::new(whole),
        DecoderOptions::default().set_strict_mode(false),
    );
    decoder.decode_headers().map_err(|e| damaged(format!("{e:?}")))?;
    let stored = decoder.input_colorspace().ok_or_else(|| damaged("no image".to_owned()))?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let samples = page.samples_in_chunk();
    if page.bits != 8 || width != page.chunk.0 || stored.num_components() != samples {
        let found = format!("{width}×{height} pixels of {} samples", stored.num_components());
        return Err(damaged(found));
    }
    let to_rgb = ycbcr && stored == ColorSpace::YCbCr;
    let wanted = if to_rgb { ColorSpace::RGB } else { stored };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(wanted));
    let mut bytes = decoder.decode().map_err(|e| damaged(format!("{e:?}")))?;
    if ycbcr && !to_rgb {
        super::colour::ycbcr_to_rgb(&mut bytes);
    }
    Ok(bytes)
}

fn web_p(page: &Page, data: &[u8]) -> Result<Vec<u8>, Problem> {
    let image = image::load_from_memory_with_format(data, image::ImageFormat::WebP)
        .map_err(|e| format!("damaged: {e}"))?;
    let samples = page.samples_in_chunk();
    if page.bits != 8 || image.width() as usize != page.chunk.0 || !matches!(samples, 3 | 4) {
        return Err(format!("damaged: a WebP stream of {}×{}", image.width(), image.height()));
    }
    Ok(if samples == 3 { image.into_rgb8().into_raw() } else { image.into_rgba8().into_raw() })
}
