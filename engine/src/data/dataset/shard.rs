//! Where the members of a tar archive lie.

use std::fs::File;
use std::path::Path;

use crate::{Error, Result};

/// A regular file in a tar archive.
pub(super) struct Member {
    /// Its path in the archive.
    pub name: Vec<u8>,
    /// First byte of its content in the archive.
    pub offset: u64,
    /// Bytes of content.
    pub size: u64,
}

/// Reads the headers of the archive at `path`, seeking over the contents.
///
/// # Errors
/// [`Error::Io`] when it can't be read, [`Error::Data`] when it isn't a whole tar archive.
pub(super) fn members(path: &Path) -> Result<Vec<Member>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
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
        members.push(Member { name, offset, size });
    }
    Ok(members)
}
