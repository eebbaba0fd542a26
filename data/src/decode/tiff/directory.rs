//! Directories of tags: the structure of TIFF, BigTIFF and EXIF.
//!
//! (TIFF 6.0, section 2, and the BigTIFF design of Aware Systems: a header of byte order, 42 or 43
//! and the first directory's place; a directory of a count, entries of tag, type, count and value
//! or its place, and the next directory's place.) Nothing is copied; values are read where they
//! lie, and what lies outside the file is none.

use super::super::Problem;
use super::page::tag;

/// One directory of `file`.
#[derive(Debug, Clone)]
pub(in super::super) struct Directory<'a> {
    order: Order,
    entries: Vec<Entry<'a>>,
    /// Where the next one lies; 0 for none.
    next: u64,
}

#[derive(Debug, Clone)]
struct Entry<'a> {
    tag: u16,
    kind: u16,
    /// None where they lie outside the file.
    values: Option<&'a [u8]>,
}

/// How numbers are stored.
#[derive(Debug, Clone, Copy)]
struct Order {
    little: bool,
    big_tiff: bool,
}

/// Whether `bytes` begin as a TIFF file, also one whose number 42 is in the other byte order, which
/// Pillow takes as well.
pub(in super::super) fn is_tiff(bytes: &[u8]) -> bool {
    Order::of(bytes).is_some()
}

impl Order {
    fn of(bytes: &[u8]) -> Option<Order> {
        let little = match bytes.get(..2)? {
            b"II" => true,
            b"MM" => false,
            _ => return None,
        };
        match bytes.get(2..4)? {
            [42, 0] | [0, 42] => Some(Order { little, big_tiff: false }),
            [43, 0] | [0, 43] => Some(Order { little, big_tiff: true }),
            _ => None,
        }
    }

    /// The unsigned integer that `bytes`, at most 8, hold.
    fn unsigned(self, bytes: &[u8]) -> u64 {
        let add = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        if self.little { bytes.iter().rev().fold(0, add) } else { bytes.iter().fold(0, add) }
    }

    /// Bytes of an offset, which is also the room for values inside an entry.
    fn offset_size(self) -> usize {
        if self.big_tiff { 8 } else { 4 }
    }
}

impl<'a> Directory<'a> {
    /// The first directory of a file; none if it has no TIFF header.
    pub(in super::super) fn first(file: &'a [u8]) -> Option<Result<Self, Problem>> {
        let order = Order::of(file)?;
        let size = order.offset_size();
        let Some(place) = file.get(size..2 * size) else {
            return Some(Err("truncated: the TIFF header is incomplete".to_owned()));
        };
        Some(Self::read(file, order, order.unsigned(place)))
    }

    /// The directory that follows in `file`, and its place; none after the last.
    pub(super) fn following(&self, file: &'a [u8]) -> Option<(u64, Result<Self, Problem>)> {
        (self.next != 0).then(|| (self.next, Self::read(file, self.order, self.next)))
    }

    fn read(file: &'a [u8], order: Order, place: u64) -> Result<Self, Problem> {
        let outside = || format!("truncated: its TIFF directory at byte {place} is incomplete");
        let part = |start: usize, length: usize| {
            file.get(start..start.checked_add(length)?).ok_or(()).ok()
        };
        let start = usize::try_from(place).map_err(|_| outside())?;
        let size = order.offset_size();
        let count_size = if order.big_tiff { 8 } else { 2 };
        let count = order.unsigned(part(start, count_size).ok_or_else(outside)?);
        let entry_size = 4 + 2 * size;
        let start = start + count_size;
        let length = usize::try_from(count).ok().and_then(|count| count.checked_mul(entry_size));
        let table = length.and_then(|length| part(start, length)).ok_or_else(outside)?;
        let entries = table.chunks_exact(entry_size).map(|entry| {
            let (tag, kind) = (order.unsigned(&entry[..2]), order.unsigned(&entry[2..4]));
            let count = order.unsigned(&entry[4..4 + size]);
            let inside = &entry[4 + size..];
            let length = usize::try_from(count)
                .ok()
                .and_then(|count| count.checked_mul(size_of_kind(kind as u16)));
            let values = length.and_then(|length| match inside.get(..length) {
                Some(values) => Some(values),
                None => part(usize::try_from(order.unsigned(inside)).ok()?, length),
            });
            Entry { tag: tag as u16, kind: kind as u16, values }
        });
        let entries = entries.collect();
        // A file cut behind its only directory has lost nothing.
        let next = part(start + table.len(), size).map_or(0, |next| order.unsigned(next));
        Ok(Directory { order, entries, next })
    }

    /// Whether numbers are stored with their lowest byte first.
    pub(super) fn little_endian(&self) -> bool {
        self.order.little
    }

    fn entry(&self, tag: u16) -> Option<&Entry<'a>> {
        self.entries.iter().find(|entry| entry.tag == tag)
    }

    /// Whether there is an entry of this tag.
    pub(super) fn has(&self, tag: u16) -> bool {
        self.entry(tag).is_some()
    }

    /// The bytes of `tag`.
    pub(super) fn bytes(&self, tag: u16) -> Option<&'a [u8]> {
        self.entry(tag)?.values
    }

    /// The non-negative integers of `tag`, of whatever type they are; none if one isn't.
    pub(super) fn integers(&self, tag: u16) -> Option<Vec<u64>> {
        let entry = self.entry(tag)?;
        let size = size_of_kind(entry.kind);
        let values = entry.values?.chunks_exact(size.max(1));
        match entry.kind {
            1 | 3 | 4 | 13 | 16 | 18 => Some(values.map(|v| self.order.unsigned(v)).collect()),
            6 | 8 | 9 | 17 => values
                .map(|v| {
                    let value = self.order.unsigned(v);
                    (value >> (8 * size - 1) == 0).then_some(value)
                })
                .collect(),
            11 => values
                .map(|v| {
                    let value = f32::from_bits(self.order.unsigned(v) as u32);
                    (value >= 0.0 && value.fract() == 0.0).then_some(value as u64)
                })
                .collect(),
            _ => None,
        }
    }

    /// The first of the integers of `tag`.
    pub(super) fn integer(&self, tag: u16) -> Option<u64> {
        self.integers(tag)?.first().copied()
    }

    /// Width and height of its image, as they are stored.
    pub(in super::super) fn size(&self) -> Option<(u64, u64)> {
        Some((self.integer(tag::WIDTH)?, self.integer(tag::LENGTH)?))
    }

    /// The orientation that it gives, as EXIF numbers them. As in Pillow, by any numeric type but
    /// bytes.
    pub(in super::super) fn orientation(&self) -> Option<u8> {
        const ORIENTATION: u16 = 0x112;
        let numeric = self.entry(ORIENTATION).is_some_and(|entry| entry.kind != 1);
        self.integer(ORIENTATION).filter(|_| numeric).and_then(|value| value.try_into().ok())
    }
}

/// Bytes of one value of a type; 0 for types that aren't known.
fn size_of_kind(kind: u16) -> usize {
    match kind {
        1 | 2 | 6 | 7 => 1,
        3 | 8 => 2,
        4 | 9 | 11 | 13 => 4,
        5 | 10 | 12 | 16..=18 => 8,
        _ => 0,
    }
}
