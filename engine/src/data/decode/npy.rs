//! NumPy `.npy` arrays as images with any number of channels.
//!
//! The format is NumPy's NEP 1: magic, version, header length, and a Python dictionary of
//! `descr`, `fortran_order` and `shape`. Nothing is allocated that the file doesn't hold.

use super::super::image::{Image, Pixels};
use super::{MAX_PIXELS, Problem};

const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) fn is_npy(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// An array `[H, W, C]`, or `[H, W]` for one channel, as planar floats.
pub(super) fn decode(bytes: &[u8], channels: usize) -> Result<Image, Problem> {
    let (header, data) = split(bytes).ok_or("truncated: the .npy header is incomplete")?;
    let header = Header::parse(header)
        .ok_or_else(|| format!("the .npy header can't be understood: {}", header.trim()))?;
    let (height, width) = match header.shape[..] {
        [height, width] if channels == 1 => (height, width),
        [height, width, found] if found == channels => (height, width),
        _ => {
            return Err(format!(
                "the array's shape is {:?}, but [height, width, {channels}] is needed",
                header.shape
            ));
        }
    };
    let pixels = height.checked_mul(width).filter(|&pixels| pixels as u64 <= MAX_PIXELS);
    let samples = pixels.and_then(|pixels| pixels.checked_mul(channels)).ok_or_else(|| {
        format!(
            "an array of {height}×{width}×{channels} is more than the {MAX_PIXELS} pixels allowed"
        )
    })?;
    let size = header.kind.size();
    if samples.checked_mul(size) != Some(data.len()) {
        return Err(format!(
            "truncated or damaged: {height}×{width}×{channels} samples of {size} bytes expected, \
             {} bytes found",
            data.len()
        ));
    }

    // Strides in samples of (row, column, channel).
    let (row, column, channel) = if header.fortran_order {
        (1, height, height * width)
    } else {
        (width * channels, channels, 1)
    };
    let mut planes = Vec::with_capacity(samples);
    for c in 0..channels {
        for y in 0..height {
            let start = y * row + c * channel;
            planes.extend((0..width).map(|x| header.kind.read(data, start + x * column)));
        }
    }
    if let Some(at) = planes.iter().position(|value| !value.is_finite()) {
        return Err(format!(
            "the value at row {}, column {}, channel {} is {}; replace such values",
            at % (height * width) / width,
            at % width,
            at / (height * width),
            planes[at]
        ));
    }
    Image::new(width, height, channels, Pixels::F32(planes)).map_err(|e| e.to_string())
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
    kind: Kind,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Option<Self> {
        let kind = match value(text, "descr")?.get(1..4)? {
            "|u1" => Kind::U8,
            "<u2" => Kind::U16,
            "<f4" => Kind::F32,
            _ => return None,
        };
        let order = value(text, "fortran_order")?;
        let fortran_order = order.starts_with("True");
        if !fortran_order && !order.starts_with("False") {
            return None;
        }
        let shape = value(text, "shape")?.strip_prefix('(')?;
        let shape = shape[..shape.find(')')?]
            .split(',')
            .map(str::trim)
            .filter(|side| !side.is_empty())
            .map(|side| side.parse().ok())
            .collect::<Option<Vec<usize>>>()?;
        Some(Header { kind, fortran_order, shape })
    }
}

/// The text behind `'key':`.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("'{key}'"))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

/// Sample types, little-endian.
enum Kind {
    U8,
    U16,
    F32,
}

impl Kind {
    fn size(&self) -> usize {
        match self {
            Kind::U8 => 1,
            Kind::U16 => 2,
            Kind::F32 => 4,
        }
    }

    /// Sample `index` of `data`, integers scaled to 0..=1.
    fn read(&self, data: &[u8], index: usize) -> f32 {
        let at = index * self.size();
        match self {
            Kind::U8 => f32::from(data[at]) / 255.0,
            Kind::U16 => f32::from(u16::from_le_bytes([data[at], data[at + 1]])) / 65535.0,
            Kind::F32 => f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]),
        }
    }
}
