//! Where the members of a tar archive lie.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::kind::is_hidden;
use super::parallel::in_parallel;
use super::stamp::Stamp;
use super::wire::{Reader, Writer};
use crate::{Error, Result};

/// A regular file in a tar archive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    /// Its path in the archive.
    pub name: Vec<u8>,
    /// First byte of its content in the archive.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
}

/// What an archive's headers say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scanned {
    /// The archive's, from before its headers were read.
    pub stamp: Stamp,
    /// Hidden ones are left out.
    pub members: Vec<Member>,
}

impl Scanned {
    pub(super) fn write(&self, to: &mut Writer) {
        self.stamp.write(to);
        to.count(self.members.len());
        for Member { name, offset, size } in &self.members {
            to.text(name);
            to.number(*offset);
            to.number(*size);
        }
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let stamp = Stamp::read(from)?;
        let members = from.many(|from| {
            let name = from.text()?.to_owned();
            Some(Member { name, offset: from.number()?, size: from.number()? })
        })?;
        Some(Scanned { stamp, members })
    }
}

/// What every one of `shards` in `base` holds.
///
/// # Errors
/// As [`scan`], of the first that has one.
pub(super) fn scan_all(base: &Path, shards: &[&PathBuf]) -> Result<Vec<Scanned>> {
    in_parallel(shards, |shard| scan(&base.join(shard))).into_iter().collect()
}

/// Reads the headers of the archive at `path`, seeking over the contents.
///
/// # Errors
/// [`Error::Io`] when it can't be read, [`Error::Data`] when it isn't a whole tar archive.
fn scan(path: &Path) -> Result<Scanned> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, e))?;
    let (stamp, length) = (Stamp::of(&metadata), metadata.len());
    let broken = |e: std::io::Error| {
        Error::Data(format!("{}: not a readable tar archive: {e}", path.display()))
    };
    let mut archive = tar::Archive::new(file);
    let mut members = Vec::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_contiguous() {
            continue;
        }
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let name = entry.path_bytes().into_owned();
        if offset.checked_add(size).is_none_or(|end| end > length) {
            return Err(Error::Data(format!(
                "{}: truncated: its member {} of {size} bytes starts at {offset}, but the archive \
                 has {length} bytes; fetch it again",
                path.display(),
                String::from_utf8_lossy(&name),
            )));
        }
        if !is_hidden(&name) {
            members.push(Member { name, offset, size });
        }
    }
    Ok(Scanned { stamp, members })
}
