//! Gathering the entries of a [`Dataset`].

use std::ffi::OsStr;
use std::num::NonZero;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use walkdir::WalkDir;

use super::shard::{self, Member};
use super::{ARRAY, Dataset, Names, PICTURES, Place};
use crate::{Error, Result};

/// What a file is, by its extension.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Picture,
    /// A picture too, but one that can hold any number of bands.
    Tiff,
    Array,
    Shard,
    Other,
}

impl Kind {
    fn of(name: &[u8]) -> Kind {
        let file = name.rsplit(|&b| b == b'/').next().unwrap_or(name);
        let Some(dot) = file.iter().rposition(|&b| b == b'.') else { return Kind::Other };
        let is = |extension: &str| file[dot + 1..].eq_ignore_ascii_case(extension.as_bytes());
        match () {
            () if is("tif") || is("tiff") => Kind::Tiff,
            () if PICTURES.iter().any(|extension| is(extension)) => Kind::Picture,
            () if is(ARRAY) => Kind::Array,
            () if is("tar") => Kind::Shard,
            () => Kind::Other,
        }
    }
}

/// A data set in the making.
pub(super) struct Index {
    base: PathBuf,
    channels: usize,
    /// Images and shards, relative to `base`.
    names: Names,
    /// What each of `names` is.
    kinds: Vec<Kind>,
    /// Files that are neither.
    others: usize,
}

impl Index {
    pub(super) fn new(base: PathBuf, channels: usize) -> Self {
        Index { base, channels, names: Names::default(), kinds: Vec::new(), others: 0 }
    }

    /// Adds a folder, a shard, an image or a list.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if metadata.is_dir() {
            return self.add_folder(path);
        }
        if !self.add_file(path) {
            self.add_list(path)?;
        }
        Ok(())
    }

    /// Adds a file by its extension; false if that is neither an image's nor a shard's.
    fn add_file(&mut self, path: &Path) -> bool {
        let kind = Kind::of(path.as_os_str().as_bytes());
        if kind == Kind::Other {
            return false;
        }
        let relative = path.strip_prefix(&self.base).unwrap_or(path);
        self.names.push(relative.as_os_str().as_bytes());
        self.kinds.push(kind);
        true
    }

    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let hidden = |name: &OsStr| name.as_bytes().starts_with(b".");
        let walk = WalkDir::new(folder)
            .follow_links(true)
            .sort_by_file_name()
            .into_iter()
            .filter_entry(|entry| entry.depth() == 0 || !hidden(entry.file_name()));
        for entry in walk {
            match entry {
                Ok(entry) if entry.file_type().is_dir() => {}
                Ok(entry) if entry.file_type().is_file() && self.add_file(entry.path()) => {}
                Ok(_) => self.others += 1,
                Err(e) => self.add_unreadable(folder, e)?,
            }
        }
        Ok(())
    }

    /// A link to nowhere is left to be found unreadable, if it looks like an image, so that it
    /// is counted among the corrupt files; a link back up the tree adds nothing new.
    fn add_unreadable(&mut self, folder: &Path, e: walkdir::Error) -> Result<()> {
        if e.loop_ancestor().is_some() {
            return Ok(());
        }
        let path = e.path().unwrap_or(folder).to_owned();
        if path.symlink_metadata().is_ok_and(|file| file.is_symlink()) {
            if !self.add_file(&path) {
                self.others += 1;
            }
            return Ok(());
        }
        let problem = e.to_string();
        Err(Error::io(path, e.into_io_error().unwrap_or_else(|| std::io::Error::other(problem))))
    }

    fn add_list(&mut self, list: &Path) -> Result<()> {
        let bytes = std::fs::read(list).map_err(|e| Error::io(list, e))?;
        let problem = |what: String| Error::Data(format!("{}{what}", list.display()));
        if bytes.contains(&0) {
            let expected =
                "neither a folder, an image, a .tar shard nor a text list of image paths";
            let known = PICTURES.join(", ");
            return Err(problem(format!(": {expected} (image extensions: {known}, {ARRAY})")));
        }
        let folder = list.parent().unwrap_or(Path::new(""));
        for (number, line) in bytes.split(|&b| b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            if !self.add_file(&folder.join(OsStr::from_bytes(line))) {
                return Err(problem(format!(
                    ":{}: {:?} is not the path of an image ({}, {ARRAY}) or a .tar shard; a list \
                     holds one path a line and nothing else",
                    number + 1,
                    String::from_utf8_lossy(line),
                    PICTURES.join(", "),
                )));
            }
        }
        Ok(())
    }

    /// The data set of what was added; `path` is what the user asked for.
    pub(super) fn finish(self, path: &Path) -> Result<Dataset> {
        let entries = || self.kinds.iter().enumerate().map(|(i, &kind)| (self.names.get(i), kind));
        let shards: Vec<PathBuf> = entries()
            .filter(|&(_, kind)| kind == Kind::Shard)
            .map(|(name, _)| name.to_owned())
            .collect();
        let mut scanned = scan(&self.base, &shards)?;
        for members in &mut scanned {
            members.retain(|member| !is_hidden(&member.name));
        }
        let taken = self.kinds_taken(&scanned);

        let (mut names, mut places, mut others) = (Names::default(), Vec::new(), self.others);
        let mut scanned = (0u32..).zip(scanned);
        for (name, kind) in entries() {
            if kind == Kind::Shard {
                let (shard, members) = scanned.next().unwrap_or_default();
                for Member { name, offset, size } in members {
                    if taken.contains(&Kind::of(&name)) {
                        names.push(&name);
                        places.push(Place::Member { shard, offset, size });
                    } else {
                        others += 1;
                    }
                }
            } else if taken.contains(&kind) {
                names.push(name.as_os_str().as_bytes());
                places.push(Place::File);
            } else {
                others += 1;
            }
        }
        if places.is_empty() {
            return Err(no_images(path, self.channels, others, shards.len()));
        }
        Ok(Dataset { base: self.base, channels: self.channels, names, places, shards, others })
    }

    /// The kinds of file that hold this many channels; where there are both, previews and masks
    /// of the other kind are left out.
    fn kinds_taken(&self, scanned: &[Vec<Member>]) -> &'static [Kind] {
        let (first, second): (&[Kind], &[Kind]) = match self.channels {
            1 | 3 | 4 => (&[Kind::Picture, Kind::Tiff], &[Kind::Array]),
            _ => (&[Kind::Array], &[Kind::Tiff]),
        };
        let any = self.kinds.iter().any(|kind| first.contains(kind))
            || scanned.iter().flatten().any(|member| first.contains(&Kind::of(&member.name)));
        if any { first } else { second }
    }
}

fn no_images(path: &Path, channels: usize, others: usize, shards: usize) -> Error {
    let extensions = match channels {
        1 | 3 | 4 => format!(".{}, .{ARRAY}", PICTURES.join(", .")),
        _ => format!(".{ARRAY}, .tif, .tiff for {channels} channels"),
    };
    Error::Data(format!(
        "{}: no images found; looked for {extensions} at any depth and inside {shards} .tar \
         shards, where {others} other files are",
        path.display(),
    ))
}

/// Whether the file's own name starts with a dot, as macOS's `._` companions do.
fn is_hidden(name: &[u8]) -> bool {
    name.rsplit(|&b| b == b'/').next().is_some_and(|file| file.starts_with(b"."))
}

/// The members of every shard. Reading headers is mostly waiting, so several are read at a time.
fn scan(base: &Path, shards: &[PathBuf]) -> Result<Vec<Vec<Member>>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).max(4);
    let next = AtomicUsize::new(0);
    let scanned: Vec<Mutex<Option<Result<Vec<Member>>>>> =
        shards.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..threads.min(shards.len()) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(shard) = shards.get(index) else { break };
                    let members = shard::members(&base.join(shard));
                    *scanned[index].lock().unwrap_or_else(|e| e.into_inner()) = Some(members);
                }
            });
        }
    });
    scanned
        .into_iter()
        .filter_map(|members| members.into_inner().unwrap_or_else(|e| e.into_inner()))
        .collect()
}
