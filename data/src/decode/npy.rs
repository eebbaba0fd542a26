//! NumPy `.npy` arrays as images with any number of channels.
//!
//! The format is NumPy's NEP 1: magic, version, header length, and a Python dictionary of
//! `descr`, `fortran_order` and `shape`. Nothing is allocated that the file doesn't hold.

use super::super::image::{Image, Pixels};
use super::numbers::{Layout, Number, not_finite};
use super::{MAX_PIXELS, Problem};

const MAGIC: &[u8] = b"\x93NUMPY";
const INCOMPLETE: &str = "truncated: the .npy header is incomplete";

pub(super) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// An array `[H, W, C]`, or `[H, W]` for one channel, as planar floats.
pub(super) fn decode(bytes: &[u8], channels: usize) -> Result<Image, Problem> {
    let (header, data) = split(bytes).ok_or(INCOMPLETE)?;
    let Header { number, little_endian, fortran_order, shape } = Header::parse(header)?;
    let (height, width) = match shape[..] {
        [height, width] if channels == 1 => (height, width),
        [height, width, found] if found == channels => (height, width),
        _ => {
            return Err(format!(
                "the array's shape is {shape:?}, but [height, width, {channels}] is needed"
            ));
        }
    };
    let pixels = height.checked_mul(width).filter(|&pixels| pixels as u64 <= MAX_PIXELS);
    let samples = pixels.and_then(|pixels| pixels.checked_mul(channels)).ok_or_else(|| {
        format!(
            "an array of {height}×{width}×{channels} is more than the {MAX_PIXELS} pixels allowed"
        )
    })?;
    let size = number.size();
    if samples.checked_mul(size) != Some(data.len()) {
        return Err(format!(
            "truncated or damaged: {height}×{width}×{channels} samples of {size} bytes expected, \
             {} bytes found",
            data.len()
        ));
    }
    let mut layout = Layout::interleaved(height, width, channels);
    if fortran_order {
        (layout.row, layout.column) = (1, height as isize);
        layout.channel = (height * width) as isize;
    }
    let planes = number.planes(data, little_endian, number.greatest(), layout);
    if let Some(problem) = not_finite(&planes, height, width) {
        return Err(problem);
    }
    Image::new(width, height, channels, Pixels::F32(planes)).map_err(|e| e.to_string())
}

/// Width and height of an array of pixels.
pub(super) fn size(bytes: &[u8]) -> Result<(u64, u64), Problem> {
    let (header, _) = split(bytes).ok_or(INCOMPLETE)?;
    match Header::parse(header)?.shape[..] {
        [height, width] | [height, width, _] => Ok((width as u64, height as u64)),
        ref shape => {
            Err(format!("the array's shape is {shape:?}, but [height, width, channels] is needed"))
        }
    }
}

/// The header's text and the data behind it.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.get(MAGIC.len()..)?;
    let (start, length) = match rest.first()? {
        1 => (4, u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?).into()),
        _ => (6, u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize),
    };
    let end = length.checked_add(start)?;
    Some((std::str::from_utf8(rest.get(start..end)?).ok()?, &rest[end..]))
}

struct Header {
    number: Number,
    little_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, Problem> {
        let unclear = || format!("the .npy header can't be understood: {}", text.trim());
        let descr = value(text, "descr").ok_or_else(unclear)?;
        let (number, little_endian) = numeric_type(descr)?;
        let order = value(text, "fortran_order").ok_or_else(unclear)?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return Err(unclear());
        }
        let sides = value(text, "shape")
            .and_then(|shape| shape.strip_prefix('(')?.split_once(')'))
            .ok_or_else(unclear)?
            .0;
        let shape = sides
            .split(',')
            // Python 2 wrote long integers as 3L.
            .map(|side| side.trim().trim_end_matches('L'))
            .filter(|side| !side.is_empty())
            .map(|side| side.parse().ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(unclear)?;
        Ok(Header { number, little_endian, fortran_order, shape })
    }
}

/// The text behind `'key':`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let quoted = |quote: char| text.split_once(&format!("{quote}{key}{quote}"));
    let (_, rest) = quoted('\'').or_else(|| quoted('"'))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// The type that `descr`, `'<f4'` and so on, names, and whether its lowest byte comes first.
fn numeric_type(descr: &str) -> Result<(Number, bool), Problem> {
    const READ: &str = "booleans, integers and floats of up to 64 bits are read";
    let quote = descr.chars().next().filter(|first| matches!(first, '\'' | '"'));
    let name = quote.and_then(|quote| descr[1..].split(quote).next());
    let Some(name) = name else {
        return Err(format!("the array's records are structured, but {READ}; save one field"));
    };
    let (order, kind) = match name.as_bytes() {
        [order @ (b'<' | b'>' | b'|' | b'='), ..] => (*order, &name[1..]),
        _ => (b'=', name),
    };
    let number = match kind {
        "b1" | "?" => Number::Bool,
        "u1" => Number::U8,
        "u2" => Number::U16,
        "u4" => Number::U32,
        "u8" => Number::U64,
        "i1" => Number::I8,
        "i2" => Number::I16,
        "i4" => Number::I32,
        "i8" => Number::I64,
        "f2" => Number::F16,
        "f4" => Number::F32,
        "f8" => Number::F64,
        _ => {
            let what = match kind.as_bytes().first() {
                Some(b'c') => "complex numbers",
                Some(b'O') => "Python objects",
                Some(b'f') => "floats of more than 64 bits",
                Some(b'S' | b'U' | b'a') => "text",
                Some(b'M' | b'm') => "times",
                Some(b'V') => "raw bytes or structured records",
                _ => "of an unknown type",
            };
            let cast = "array.astype('float32')";
            return Err(format!("the array holds {what} ({name}), but {READ}; save {cast}"));
        }
    };
    Ok((number, order != b'>'))
}
