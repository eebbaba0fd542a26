//! Walking folders, with what tells later whether another walk would find the same.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{FileType, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::evidence::Evidence;
use super::parallel::in_parallel;
use super::stamp::Stamp;
use crate::{Error, Result};

/// A folder to be read.
pub(super) struct Start {
    /// Relative to the walk's base; empty for the base itself.
    path: PathBuf,
    /// Whether it was reached by a symbolic link.
    linked: bool,
    /// The folders it was reached through.
    above: Option<Arc<Ancestor>>,
}

/// Device and inode.
type Id = (u64, u64);

/// A folder, and those above it.
struct Ancestor {
    id: Id,
    /// Whether it was reached by a link, or one above it was.
    linked: bool,
    above: Option<Arc<Ancestor>>,
}

impl Start {
    /// The folder at `path`, relative to the base.
    pub(super) fn at(path: impl Into<PathBuf>, linked: bool) -> Self {
        Start { path: path.into(), linked, above: None }
    }

    /// A folder that `contents` are of, by its name.
    pub(super) fn within(contents: &Contents, name: impl Into<PathBuf>, linked: bool) -> Self {
        Start { path: name.into(), linked, above: Some(Arc::clone(&contents.ancestor)) }
    }
}

/// What a folder holds, hidden entries left out, sorted by name.
pub(super) struct Contents {
    pub entries: Vec<(OsString, Entry)>,
    /// Taken before the entries were read, so that it is older than whatever they miss.
    pub stamp: Stamp,
    /// Where the folder lies, if it was reached by a link.
    pub target: Option<PathBuf>,
    ancestor: Arc<Ancestor>,
}

/// What something in a folder is, links followed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Entry {
    File,
    Folder {
        linked: bool,
    },
    /// A link that adds nothing: to a folder above it, or from within a linked folder to one that
    /// was read before.
    Loop,
    /// A link to nothing that can be reached.
    Nowhere,
    /// A pipe, a socket or a device.
    Special {
        linked: bool,
    },
}

/// What a walk finds, in the order of the paths.
pub(super) enum Found<'a> {
    /// A file, or a link to nowhere: relative to the base.
    File(&'a Path),
    /// Something that is no file.
    Other,
}

/// Goes through the folders `starts` of `base` at any depth, symbolic links followed. Links back
/// up the tree add nothing, and what a linked folder links to adds nothing again: folders that link
/// to each other would be read in every order.
///
/// A link to nowhere is told of as a file, to be found unreadable if it looks like an image, so
/// that it is counted among the corrupt files.
///
/// # Errors
/// [`Error::Io`] for the first folder that can't be read, unless it was reached by a link.
pub(super) fn walk(
    base: &Path,
    starts: Vec<Start>,
    evidence: &mut Evidence,
    mut found: impl FnMut(Found),
) -> Result<()> {
    let count = starts.len();
    let mut nodes: Vec<Node> = Vec::new();
    let mut level = starts;
    let mut seen = HashSet::new();
    // A level of the tree at a time, since folders of one level can be read side by side.
    while !level.is_empty() {
        let read = in_parallel(&level, |start| read_folder(base, start, &seen));
        seen.extend(read.iter().flatten().map(|contents| contents.ancestor.id));
        let first_below = nodes.len() + level.len();
        let mut below = Vec::new();
        for (Start { path, linked, .. }, contents) in level.into_iter().zip(read) {
            let first = first_below + below.len();
            if let Ok(contents) = &contents {
                let folders = contents.entries.iter().filter_map(|(name, entry)| match entry {
                    Entry::Folder { linked } => Some((path.join(name), *linked)),
                    _ => None,
                });
                below.extend(folders.map(|(path, linked)| Start {
                    path,
                    linked,
                    above: Some(Arc::clone(&contents.ancestor)),
                }));
            }
            nodes.push(Node { path, linked, contents, first });
        }
        level = below;
    }
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    (0..count).try_for_each(|number| report(base, &mut nodes, number, evidence, &mut found))
}

/// A folder that was read or could not be.
struct Node {
    path: PathBuf,
    linked: bool,
    contents: Result<Contents>,
    /// Number of the first folder in it; the others follow.
    first: usize,
}

/// Tells of what folder `number` holds, folders in it included.
fn report(
    base: &Path,
    nodes: &mut [Option<Node>],
    number: usize,
    evidence: &mut Evidence,
    found: &mut impl FnMut(Found),
) -> Result<()> {
    let Some(Node { path, linked, contents, first }) = nodes[number].take() else { return Ok(()) };
    let contents = match contents {
        Ok(contents) => contents,
        Err(_) if linked => {
            evidence.distrust();
            found(Found::File(&path));
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    evidence.add(base, &path, &contents);
    let mut below = first;
    for (name, entry) in &contents.entries {
        match entry {
            Entry::File | Entry::Nowhere => found(Found::File(&path.join(name))),
            Entry::Special { .. } => found(Found::Other),
            Entry::Loop => {}
            Entry::Folder { .. } => {
                report(base, nodes, below, evidence, found)?;
                below += 1;
            }
        }
    }
    Ok(())
}

/// `path` in `base`, without a slash at the end where `path` is empty.
pub(super) fn within(base: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() { base.to_owned() } else { base.join(path) }
}

/// Reads one folder; `seen` are those that were read before.
pub(super) fn read_folder(base: &Path, start: &Start, seen: &HashSet<Id>) -> Result<Contents> {
    let path = within(base, &start.path);
    let failed = |e: io::Error| Error::io(&path, e);
    let metadata = fs::metadata(&path).map_err(failed)?;
    let target = start.linked.then(|| fs::canonicalize(&path)).transpose().map_err(failed)?;
    let above = start.above.clone();
    let linked = start.linked || above.as_ref().is_some_and(|above| above.linked);
    let ancestor = Arc::new(Ancestor { id: id(&metadata), linked, above });
    let mut entries = Vec::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(b".") {
            continue;
        }
        let kind = entry.file_type().map_err(|e| Error::io(entry.path(), e))?;
        let entry = if kind.is_symlink() {
            linked_entry(fs::metadata(entry.path()), &ancestor, seen)
        } else {
            plain(kind, false)
        };
        entries.push((name, entry));
    }
    entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(Contents { entries, stamp: Stamp::of(&metadata), target, ancestor })
}

fn id(metadata: &Metadata) -> Id {
    (metadata.dev(), metadata.ino())
}

fn plain(kind: FileType, linked: bool) -> Entry {
    match () {
        () if kind.is_dir() => Entry::Folder { linked },
        () if kind.is_file() => Entry::File,
        () => Entry::Special { linked },
    }
}

/// What a link in the folder `ancestor` leads to.
fn linked_entry(to: io::Result<Metadata>, ancestor: &Arc<Ancestor>, seen: &HashSet<Id>) -> Entry {
    let Ok(metadata) = to else { return Entry::Nowhere };
    let id = id(&metadata);
    let mut above = std::iter::successors(Some(ancestor), |folder| folder.above.as_ref());
    let adds_nothing = above.any(|folder| folder.id == id) || ancestor.linked && seen.contains(&id);
    if metadata.is_dir() && adds_nothing {
        return Entry::Loop;
    }
    plain(metadata.file_type(), true)
}
