//! Samples of every numeric type as floats.

/// A numeric type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    /// One byte, 0 or another.
    Bool,
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F16,
    F32,
    F64,
}

/// Where the samples of an image lie, counted in samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// The first sample of the first row's first pixel.
    pub start: usize,
    /// From one row, column and channel to the next.
    pub row: isize,
    pub column: isize,
    pub channel: isize,
}

impl Layout {
    /// Pixel after pixel, row after row.
    pub fn interleaved(height: usize, width: usize, channels: usize) -> Layout {
        let (row, column) = ((width * channels) as isize, channels as isize);
        Layout { height, width, channels, start: 0, row, column, channel: 1 }
    }

    /// Turned upright, as EXIF numbers orientations; numbers beyond 1 to 8 turn nothing.
    pub fn upright(self, orientation: u8) -> Layout {
        let Layout { height, width, mut start, mut row, mut column, .. } = self;
        let (from_right, from_bottom, swapped) = match orientation {
            2 => (true, false, false),
            3 => (true, true, false),
            4 => (false, true, false),
            5 => (false, false, true),
            6 => (false, true, true),
            7 => (true, true, true),
            8 => (true, false, true),
            _ => (false, false, false),
        };
        if from_right {
            start = start.wrapping_add_signed((width as isize - 1) * column);
            column = -column;
        }
        if from_bottom {
            start = start.wrapping_add_signed((height as isize - 1) * row);
            row = -row;
        }
        if swapped {
            return Layout {
                height: width,
                width: height,
                start,
                row: column,
                column: row,
                ..self
            };
        }
        Layout { start, row, column, ..self }
    }
}

impl Number {
    /// Bytes of one sample.
    pub fn size(self) -> usize {
        match self {
            Number::Bool | Number::U8 | Number::I8 => 1,
            Number::U16 | Number::I16 | Number::F16 => 2,
            Number::U32 | Number::I32 | Number::F32 => 4,
            Number::U64 | Number::I64 | Number::F64 => 8,
        }
    }

    /// The greatest value of an unsigned integer of this type.
    pub fn greatest(self) -> u64 {
        match self {
            Number::U8 => u8::MAX.into(),
            Number::U16 => u16::MAX.into(),
            Number::U32 => u32::MAX.into(),
            _ => u64::MAX,
        }
    }

    /// The samples of `data` at `layout` as planes `[C, H, W]`: unsigned integers divided by
    /// `greatest`, signed ones by the greatest of their type and no less than −1 (as in
    /// scikit-image's `img_as_float`), floats and truth values as they are. `data` must hold all
    /// that `layout` names.
    pub fn planes(self, data: &[u8], little: bool, greatest: u64, layout: Layout) -> Vec<f32> {
        let whole = greatest as f64;
        let part = greatest as f32;
        let at = Samples { data, little, layout };
        let signed = |value: f64, greatest: f64| (value / greatest).max(-1.0) as f32;
        match self {
            Number::Bool => at.planes(|[v]| f32::from(v != 0)),
            Number::U8 => at.planes(|[v]| f32::from(v) / part),
            Number::U16 => at.planes(|v| f32::from(u16::from_le_bytes(v)) / part),
            Number::U32 => at.planes(|v| (f64::from(u32::from_le_bytes(v)) / whole) as f32),
            Number::U64 => at.planes(|v| (u64::from_le_bytes(v) as f64 / whole) as f32),
            Number::I8 => at.planes(|v| signed(i8::from_le_bytes(v).into(), i8::MAX.into())),
            Number::I16 => at.planes(|v| signed(i16::from_le_bytes(v).into(), i16::MAX.into())),
            Number::I32 => at.planes(|v| signed(i32::from_le_bytes(v).into(), i32::MAX.into())),
            Number::I64 => at.planes(|v| signed(i64::from_le_bytes(v) as f64, i64::MAX as f64)),
            Number::F16 => at.planes(|v| half::f16::from_le_bytes(v).to_f32()),
            Number::F32 => at.planes(f32::from_le_bytes),
            Number::F64 => at.planes(|v| f64::from_le_bytes(v) as f32),
        }
    }
}

struct Samples<'a> {
    data: &'a [u8],
    little: bool,
    layout: Layout,
}

impl Samples<'_> {
    /// Planes of what `convert` makes of each sample, lowest byte first.
    fn planes<const SIZE: usize>(&self, convert: impl Fn([u8; SIZE]) -> f32) -> Vec<f32> {
        let Layout { height, width, channels, start, row, column, channel } = self.layout;
        let (samples, _) = self.data.as_chunks::<SIZE>();
        let mut planes = Vec::with_capacity(height * width * channels);
        let step = |place: usize, count: usize, stride: isize| {
            place.wrapping_add_signed(count as isize * stride)
        };
        for c in 0..channels {
            for y in 0..height {
                let first = step(step(start, c, channel), y, row);
                let places = (0..width).map(|x| samples[step(first, x, column)]);
                if self.little {
                    planes.extend(places.map(&convert));
                } else {
                    planes.extend(places.map(|mut sample| {
                        sample.reverse();
                        convert(sample)
                    }));
                }
            }
        }
        planes
    }
}

/// Where the first value lies that is not finite, and the value.
pub(super) fn not_finite(planes: &[f32], height: usize, width: usize) -> Option<String> {
    let at = planes.iter().position(|value| !value.is_finite())?;
    let (channel, place) = (at / (height * width), at % (height * width));
    Some(format!(
        "the value at row {}, column {}, channel {channel} is {}; replace such values",
        place / width,
        place % width,
        planes[at]
    ))
}
