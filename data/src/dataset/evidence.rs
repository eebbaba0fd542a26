//! What a listing rests on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::parallel::in_parallel;
use super::stamp::Stamp;
use super::walk::{Contents, Entry, within};
use super::wire::{Reader, Writer};

/// The folders that were read for a listing, and the links that were followed. While all of them
/// are as they were, another walk would find the same.
///
/// Files are not looked at: one that comes, goes or is renamed changes its folder. So a link to a
/// file is taken to lead to a file, or nowhere, for as long as the folder it lies in is the same.
#[derive(Debug, PartialEq)]
pub(super) struct Evidence {
    folders: Vec<Folder>,
    /// Links that lead to no file and no folder that was read.
    links: Vec<(PathBuf, LinkTo)>,
    /// False once something was met that can't be checked later.
    complete: bool,
}

/// A folder that was read.
#[derive(Debug, PartialEq)]
struct Folder {
    path: PathBuf,
    stamp: Stamp,
    /// Where it lies, if it was reached by a link.
    target: Option<PathBuf>,
}

/// What a link leads to.
#[derive(Debug, PartialEq)]
pub(super) enum LinkTo {
    /// Nothing that can be reached.
    Nowhere,
    File,
    /// Neither a file nor a folder.
    Special,
    /// The folder of this path without links.
    Folder(PathBuf),
}

impl LinkTo {
    /// Where the link at `path` leads now.
    fn now(path: &Path) -> Self {
        match fs::metadata(path) {
            Ok(to) if to.is_dir() => fs::canonicalize(path).map_or(LinkTo::Nowhere, LinkTo::Folder),
            Ok(to) if to.is_file() => LinkTo::File,
            Ok(_) => LinkTo::Special,
            Err(_) => LinkTo::Nowhere,
        }
    }

    fn write(&self, to: &mut Writer) {
        let (number, target) = match self {
            LinkTo::Nowhere => (0, None),
            LinkTo::File => (1, None),
            LinkTo::Special => (2, None),
            LinkTo::Folder(target) => (3, Some(target)),
        };
        to.number(number);
        target.into_iter().for_each(|target| to.text(target.as_os_str().as_bytes()));
    }

    fn read(from: &mut Reader) -> Option<Self> {
        Some(match from.number()? {
            0 => LinkTo::Nowhere,
            1 => LinkTo::File,
            2 => LinkTo::Special,
            3 => LinkTo::Folder(path(from.text()?)),
            _ => return None,
        })
    }
}

fn path(text: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(text))
}

impl Evidence {
    /// Of nothing yet.
    pub(super) fn new() -> Self {
        Evidence { folders: Vec::new(), links: Vec::new(), complete: true }
    }

    /// That the folder at `path` in `base` had these contents.
    pub(super) fn add(&mut self, base: &Path, path: &Path, contents: &Contents) {
        let Contents { entries, stamp, target, .. } = contents;
        self.folders.push(Folder { path: path.to_owned(), stamp: *stamp, target: target.clone() });
        for (name, entry) in entries {
            let path = path.join(name);
            let to = match entry {
                Entry::Nowhere | Entry::Loop | Entry::Special { linked: true } => {
                    LinkTo::now(&base.join(&path))
                }
                _ => continue,
            };
            let is_as_seen = matches!(
                (entry, &to),
                (Entry::Nowhere, LinkTo::Nowhere)
                    | (Entry::Loop, LinkTo::Folder(_))
                    | (Entry::Special { .. }, LinkTo::Special)
            );
            self.complete &= is_as_seen;
            self.links.push((path, to));
        }
    }

    /// That something was met that can't be checked later.
    pub(super) fn distrust(&mut self) {
        self.complete = false;
    }

    /// Number of folders.
    pub(super) fn folders(&self) -> usize {
        self.folders.len()
    }

    /// Whether everything can be told from what comes later: see [`Stamp::is_settled`].
    pub(super) fn is_settled(&self, moment: SystemTime, age: Duration) -> bool {
        self.complete && self.folders.iter().all(|folder| folder.stamp.is_settled(moment, age))
    }

    /// Whether all in `base` is as it was.
    pub(super) fn holds(&self, base: &Path) -> bool {
        let folders = in_parallel(&self.folders, |Folder { path, stamp, target }| {
            let path = within(base, path);
            let is_same = fs::metadata(&path).is_ok_and(|now| Stamp::of(&now) == *stamp);
            let lies_there = |target: &PathBuf| fs::canonicalize(&path).is_ok_and(|p| p == *target);
            is_same && target.as_ref().is_none_or(lies_there)
        });
        let links = in_parallel(&self.links, |(path, to)| LinkTo::now(&base.join(path)) == *to);
        folders.into_iter().chain(links).all(|holds| holds)
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.count(self.folders.len());
        for Folder { path, stamp, target } in &self.folders {
            to.text(path.as_os_str().as_bytes());
            stamp.write(to);
            // An empty text is no place.
            to.text(target.as_ref().map_or(&[], |target| target.as_os_str().as_bytes()));
        }
        to.count(self.links.len());
        for (path, lead) in &self.links {
            to.text(path.as_os_str().as_bytes());
            lead.write(to);
        }
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let folders = from.many(|from| {
            let folder = path(from.text()?);
            let stamp = Stamp::read(from)?;
            let target = Some(from.text()?).filter(|text| !text.is_empty()).map(path);
            Some(Folder { path: folder, stamp, target })
        })?;
        let links = from.many(|from| Some((path(from.text()?), LinkTo::read(from)?)))?;
        Some(Evidence { folders, links, complete: true })
    }
}
