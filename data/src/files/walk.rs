//! The files of a folder, and those that a pattern matches.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::names::readable;
use crate::{Error, Result};

/// What a name in a folder stands for, links followed.
enum Entry {
    /// A file, or a link to nothing, which is found unreadable later.
    File,
    Folder {
        linked: bool,
    },
    /// A pipe, a socket or a device.
    Special,
}

/// The files in `folder` at any depth. Each folder is read once, however many links lead to it;
/// where it lies itself rather than by a link.
///
/// # Errors
/// [`Error::Io`] for a folder that can't be read.
pub(super) fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut own, mut linked) = (vec![folder.to_owned()], VecDeque::new());
    let (mut seen, mut files) = (HashSet::new(), Vec::new());
    while let Some(folder) = own.pop().or_else(|| linked.pop_front()) {
        let metadata = fs::metadata(&folder).map_err(|e| Error::io(&folder, e))?;
        if !seen.insert((metadata.dev(), metadata.ino())) {
            continue;
        }
        for (path, entry) in entries(&folder)? {
            match entry {
                Entry::File => files.push(path),
                Entry::Folder { linked: false } => own.push(path),
                Entry::Folder { linked: true } => linked.push_back(path),
                Entry::Special => {
                    let shown = path.display();
                    tracing::warn!("passed over {shown}: a pipe, a socket or a device");
                }
            }
        }
    }
    Ok(files)
}

/// The files that `pattern` matches; names that are not Unicode as [`readable`] writes them.
///
/// # Errors
/// [`Error::Data`] for what is no pattern, [`Error::Io`] for a folder that can't be read.
pub(super) fn files_like(pattern: &Path) -> Result<Vec<PathBuf>> {
    let is_plain = |part: &Component| !readable(part).contains(['*', '?', '[']);
    let base: PathBuf = pattern.components().take_while(is_plain).collect();
    let parts = pattern.components().skip_while(is_plain).map(|part| {
        Pattern::new(&readable(part)).map_err(|error| {
            Error::Data(format!("{} is no pattern of file names: {error}", pattern.display()))
        })
    });
    let parts: Vec<Pattern> = parts.collect::<Result<_>>()?;
    let mut files = Vec::new();
    if base.as_os_str().is_empty() || base.is_dir() {
        matching(&base, &parts, &mut files)?;
    }
    Ok(files)
}

/// The files below `folder` whose path there `parts` match.
fn matching(folder: &Path, parts: &[Pattern], files: &mut Vec<PathBuf>) -> Result<()> {
    let Some((first, rest)) = parts.split_first() else { return Ok(()) };
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::new() };
    if first.as_str() == "**" {
        let text: Vec<&str> = parts.iter().map(Pattern::as_str).collect();
        let whole = Pattern::new(&text.join("/"))
            .map_err(|error| Error::Data(format!("no pattern of file names: {error}")))?;
        let is_like = |path: &PathBuf| {
            let below = path.strip_prefix(folder).unwrap_or(path);
            path.is_file() && whole.matches_with(&readable(below), options)
        };
        files.extend(files_in(folder)?.into_iter().filter(is_like));
        return Ok(());
    }
    for (path, entry) in entries(folder)? {
        let name = path.file_name().map(readable).unwrap_or_default();
        match entry {
            _ if !first.matches_with(&name, options) => {}
            Entry::File if rest.is_empty() && path.is_file() => files.push(path),
            Entry::Folder { .. } => matching(&path, rest, files)?,
            Entry::File | Entry::Special => {}
        }
    }
    Ok(())
}

/// What lies in `folder`, which is empty for the working folder.
fn entries(folder: &Path) -> Result<Vec<(PathBuf, Entry)>> {
    let failed = |e: io::Error| Error::io(folder, e);
    let read = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let entry = |entry: io::Result<DirEntry>| {
        let entry = entry.map_err(failed)?;
        let path = folder.join(entry.file_name());
        let mut kind = entry.file_type().map_err(|e| Error::io(&path, e))?;
        let linked = kind.is_symlink();
        if linked {
            match fs::metadata(&path) {
                Ok(target) => kind = target.file_type(),
                Err(_) => return Ok((path, Entry::File)),
            }
        }
        let entry = match () {
            () if kind.is_dir() => Entry::Folder { linked },
            () if kind.is_file() => Entry::File,
            () => Entry::Special,
        };
        Ok((path, entry))
    };
    fs::read_dir(read).map_err(failed)?.map(entry).collect()
}
