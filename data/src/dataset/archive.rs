//! Tar archives as pieces of files, compressed ones unpacked.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::compression::{Compression, Failure};
use super::remote::ObjectArchive;
use super::stamp::Stamp;
use crate::packed::MAX_WINDOW;
use crate::{Error, Result};

/// Most bytes of headers (long names, extended attributes) before one member: they are read into
/// memory, whatever length they claim.
const MOST_HEADERS: u64 = 1 << 24;

/// What a file is by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Format {
    /// A tar archive; one of before 1988 has no mark and is [`Format::Unknown`].
    Tar,
    /// Anything that is compressed so.
    Compressed(Compression),
    /// An archive that isn't read: what it is, and the command that unpacks it.
    Packed(&'static str, &'static str),
    Unknown,
}

/// Archives that aren't read, by their first bytes.
const PACKED: [(&[u8], &str, &str); 5] = [
    (b"BZh", "bzip2", "bunzip2"),
    (b"\x04\x22\x4d\x18", "LZ4", "lz4 -d"),
    (b"PK\x03\x04", "zip", "unzip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip", "7z x"),
    (b"Rar!\x1a\x07", "RAR", "unrar x"),
];

impl Format {
    /// What `start`, a file's first 512 bytes if it has as many, is the start of.
    pub(super) fn of(start: &[u8]) -> Self {
        let begins = |(mark, ..): &&(&[u8], _, _)| start.starts_with(mark);
        if start.get(257..262) == Some(b"ustar") {
            return Format::Tar;
        }
        match (Compression::of(start), PACKED.iter().find(begins)) {
            (Some(compression), _) => Format::Compressed(compression),
            (None, Some(&(_, name, command))) => Format::Packed(name, command),
            (None, None) => Format::Unknown,
        }
    }

    /// What the file at `path` is.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn of_file(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let read = File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
        read.map_err(|e| Error::io(path, e))?;
        Ok(Self::of(&start))
    }

    /// That the file at `path` must be unpacked first, if it is such an archive.
    ///
    /// # Errors
    /// [`Error::Data`].
    pub(super) fn refuse_packed(self, path: &Path) -> Result<()> {
        let Format::Packed(name, command) = self else { return Ok(()) };
        let shown = path.display();
        Err(Error::Data(format!(
            "{shown}: an archive of {name}, which is not read; tar archives are, and those that \
             gzip, xz or Zstandard has compressed: unpack it with `{command} {shown}`"
        )))
    }
}

/// An archive in a file or a store.
pub(super) struct Archive {
    source: Source,
    /// In bytes.
    pub length: u64,
    /// The file's, from before it was read.
    pub stamp: Stamp,
    /// Whether it was unpacked to the scratch file.
    pub unpacked: bool,
}

/// Where an archive's bytes come from.
enum Source {
    /// A file, from `start` on.
    File {
        file: File,
        start: u64,
    },
    Object(ObjectArchive),
}

impl Archive {
    /// An archive of `length` bytes in a store.
    pub(super) fn of_object(object: ObjectArchive, length: u64, stamp: Stamp) -> Self {
        Archive { source: Source::Object(object), length, stamp, unpacked: false }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.source {
            Source::File { file, start } => file.read_at(buffer, start + offset),
            Source::Object(object) => object.read_at(buffer, offset),
        }
    }
}

/// The scratch file that compressed archives are unpacked to, since members are read in any order.
/// It has no name, so that it is gone with the process.
#[derive(Default)]
pub(super) struct Scratch {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<File>,
    end: u64,
    /// First byte and length of each archive.
    places: HashMap<PathBuf, (u64, u64)>,
}

impl Scratch {
    /// Opens the archive at `path`, and unpacks it first if that is needed.
    ///
    /// # Errors
    /// [`Error::Io`] for what can't be read, [`Error::Data`] for what is compressed otherwise than
    /// by [`Compression`]s or can't be unpacked.
    pub(super) fn open(&self, path: &Path) -> Result<Archive> {
        let failed = |e| Error::io(path, e);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        let (stamp, length) = (Stamp::of(&metadata), metadata.len());
        let mut start = [0; 512];
        let read = file.read_at(&mut start, 0).map_err(failed)?;
        let format = Format::of(&start[..read]);
        format.refuse_packed(path)?;
        let Format::Compressed(compression) = format else {
            let source = Source::File { file, start: 0 };
            return Ok(Archive { source, length, stamp, unpacked: false });
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, length) = match state.places.get(path) {
            Some(&place) => place,
            None => state.unpack(path, file, compression)?,
        };
        let file = state.file.as_ref().map(File::try_clone).transpose().map_err(failed)?;
        let file = file.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
        Ok(Archive { source: Source::File { file, start }, length, stamp, unpacked: true })
    }

    /// First byte of the archive at `path` in the scratch file, if it was unpacked.
    pub(super) fn start_of(&self, path: &Path) -> Option<u64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.places.get(path).map(|&(start, _)| start)
    }

    /// The file, if anything was unpacked.
    pub(super) fn file(&self) -> Option<File> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.file.as_ref().and_then(|file| file.try_clone().ok())
    }
}

impl State {
    /// Unpacks `packed`, which lies at `path`, to the end of the file: its first byte there and
    /// its length.
    fn unpack(&mut self, path: &Path, packed: File, by: Compression) -> Result<(u64, u64)> {
        let (folder, shown) = (std::env::temp_dir(), path.display());
        let (name, command) = (by.name(), by.command());
        let no_room = |e: io::Error| {
            Error::Data(format!(
                "{shown}: compressed by {name}, and it can't be unpacked in {}: {e}; free some \
                 space, set TMPDIR to a folder that has some, or unpack it once (`{command} < {shown} > \
                 OUT.tar`)",
                folder.display(),
            ))
        };
        let to = match self.file.take() {
            Some(file) => self.file.insert(file),
            None => self.file.insert(tempfile::tempfile_in(&folder).map_err(no_room)?),
        };
        let (start, mut end) = (self.end, self.end);
        let mut keep = |bytes: &[u8]| {
            to.write_all_at(bytes, end)?;
            end += bytes.len() as u64;
            Ok(())
        };
        by.unpack(packed, &mut keep).map_err(|failure| match failure {
            Failure::Kept(e) => no_room(e),
            Failure::Damaged(e) => Error::Data(format!(
                "{shown}: its {name} compression is damaged ({e}); fetch it again"
            )),
            Failure::Window(bytes) => Error::Data(format!(
                "{shown}: its {name} compression asks for {} MB of memory, more than {} MB: unpack \
                 it (`{command} < {shown} > OUT.tar`)",
                bytes.div_ceil(1 << 20),
                MAX_WINDOW >> 20,
            )),
        })?;
        let length = end - start;
        tracing::warn!(
            "{shown}: compressed by {name}; unpacked for this run to {} MB in {}; every run does \
             that unless you unpack it once (`{command} < {shown} > OUT.tar`)",
            length.div_ceil(1_000_000),
            folder.display(),
        );
        self.end = end;
        self.places.insert(path.to_owned(), (start, length));
        Ok((start, length))
    }
}

/// Reads an [`Archive`] as a file of its own.
pub(super) struct Reader<'a> {
    archive: &'a Archive,
    at: u64,
    /// Bytes that may still be read.
    allowed: &'a Cell<u64>,
}

impl<'a> Reader<'a> {
    /// From the start; `allowed` is to be [`Reader::renew`]ed for every member.
    pub(super) fn new(archive: &'a Archive, allowed: &'a Cell<u64>) -> Self {
        Self::renew(allowed);
        Reader { archive, at: 0, allowed }
    }

    /// Allows the headers of one more member.
    pub(super) fn renew(allowed: &Cell<u64>) {
        allowed.set(MOST_HEADERS);
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.archive.length.saturating_sub(self.at);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.archive.read_at(&mut buffer[..wanted], self.at)?;
        let allowed = self.allowed.get().checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!("a member's headers take more than {MOST_HEADERS} bytes"))
        })?;
        self.allowed.set(allowed);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.archive.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::other("a place outside of the archive"))?;
        Ok(self.at)
    }
}
