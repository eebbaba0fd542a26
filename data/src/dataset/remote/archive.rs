//! A tar archive in a store, read from its start in pieces that are asked for ahead.

use std::collections::VecDeque;
use std::io;
use std::sync::{Mutex, PoisonError};

use storage::{Bytes, Object, Pending, Reader};

/// Pieces on their way besides the one in use.
const AHEAD: u64 = 4;

/// An archive that is read front to back, now and then with a leap.
pub(in super::super) struct ObjectArchive {
    reader: Reader,
    object: Object,
    window: Mutex<Window>,
}

#[derive(Default)]
struct Window {
    /// The piece in use and its number.
    current: Option<(u64, Bytes)>,
    /// Those that follow.
    coming: VecDeque<(u64, Pending<Bytes>)>,
}

impl ObjectArchive {
    pub(super) fn new(reader: Reader, object: Object) -> Self {
        ObjectArchive { reader, object, window: Mutex::default() }
    }

    /// Bytes from `offset` on: as many as there are in one piece, none at the end.
    pub(in super::super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if offset >= self.object.size || buffer.is_empty() {
            return Ok(0);
        }
        let number = offset / Reader::PIECE;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.current.as_ref().is_none_or(|(current, _)| *current != number) {
            let bytes = self.piece(&mut window, number)?;
            window.current = Some((number, bytes));
        }
        let Some((_, bytes)) = &window.current else { return Ok(0) };
        let rest = bytes.get((offset - number * Reader::PIECE) as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn piece(&self, window: &mut Window, number: u64) -> io::Result<Bytes> {
        let is_next = window.current.as_ref().is_some_and(|(current, _)| current + 1 == number);
        while window.coming.front().is_some_and(|(coming, _)| *coming != number) {
            window.coming.pop_front();
        }
        let start = |number: u64| {
            let start = number * Reader::PIECE;
            let end = self.object.size.min(start + Reader::PIECE);
            (number, self.reader.start_read(&self.object, start..end))
        };
        if window.coming.is_empty() {
            window.coming.push_back(start(number));
        }
        // After a leap over a large member another is likely.
        let ahead = if is_next || number == 0 { AHEAD } else { 0 };
        let pieces = self.object.size.div_ceil(Reader::PIECE);
        let mut next = window.coming.back().map_or(number, |(last, _)| last + 1);
        while next < pieces && next <= number + ahead {
            window.coming.push_back(start(next));
            next += 1;
        }
        let (_, pending) = window.coming.pop_front().ok_or(io::ErrorKind::UnexpectedEof)?;
        pending.wait().map_err(io::Error::other)
    }
}
