//! Where a set of shards lies: on a disk or in a store.

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use storage::{Bytes, Location, Object, Pending, Settings, Storage};
use tempfile::NamedTempFile;

use crate::{Error, Result, Temporary, is_temporary, write_file};

/// A folder, or what lies below a name in a store, of files that are written whole or not at all.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    /// In which it lies, unless on a disk.
    store: Option<(Storage, Location)>,
}

/// A large file that is being written, gone if it is dropped.
pub(super) enum Draft {
    /// Beside what it will be.
    Here(Temporary),
    /// To be sent to a store.
    Away(NamedTempFile),
}

impl Folder {
    /// What is called `path`, whether it is there or not: a folder, or `s3://bucket/set` (`gs://`,
    /// `az://`).
    ///
    /// # Errors
    /// [`Error::Storage`] for the name of nothing in a store.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let store = match path.to_str().filter(|text| Location::is_one(text)) {
            Some(text) => {
                Some((Storage::new(Settings::default())?, Location::parse(text)?.as_folder()))
            }
            None => None,
        };
        Ok(Folder { path, store })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it lies on a disk.
    pub(super) fn is_local(&self) -> bool {
        self.store.is_none()
    }

    /// The folder `name` in it.
    pub(super) fn folder(&self, name: &str) -> Result<Self> {
        let store = match &self.store {
            Some((storage, at)) => Some((storage.clone(), at.join(name)?.as_folder())),
            None => None,
        };
        Ok(Folder { path: self.at(name), store })
    }

    /// Its file `name`, for messages.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder and removes what a killed process left half written. A store has neither.
    pub(super) fn prepare(&self) -> Result<()> {
        if !self.is_local() {
            return Ok(());
        }
        fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, e))?;
        for name in self.names()?.iter().filter(|name| is_temporary(name)) {
            self.remove(name)?;
        }
        Ok(())
    }

    /// The names in it, sorted; none if it is not there.
    pub(super) fn names(&self) -> Result<BTreeSet<String>> {
        if let Some((storage, at)) = &self.store {
            let objects = storage.list(at, |_| {})?;
            let names = objects.iter().filter_map(|object| object.location.name_in(at));
            return Ok(names
                .filter_map(|name| name.split('/').next())
                .map(str::to_owned)
                .collect());
        }
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(Error::io(&self.path, error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.map_err(|e| Error::io(&self.path, e))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        };
        entries.map(name).collect()
    }

    /// The content of a small file; none if it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        if let Some((storage, at)) = &self.store {
            return match storage.read_all(&at.join(name)?) {
                Ok((_, bytes)) => Ok(Some(bytes.into())),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        match fs::read(self.at(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(self.at(name), error)),
        }
    }

    /// A large file from its start, and its length.
    pub(super) fn stream(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64)> {
        if let Some((storage, at)) = &self.store {
            let object = storage.head(&at.join(name)?)?;
            let length = object.size;
            return Ok((Box::new(Stream::new(storage, object)), length));
        }
        let path = self.at(name);
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        Ok((Box::new(BufReader::with_capacity(1 << 20, file)), length))
    }

    /// Writes a small file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match &self.store {
            Some((storage, at)) => Ok(storage.put(&at.join(name)?, bytes.to_vec())?),
            None => write_file(&self.at(name), bytes).map_err(with_way),
        }
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        if let Some((storage, at)) = &self.store {
            return Ok(storage.delete(&at.join(name)?)?);
        }
        match fs::remove_file(self.at(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(self.at(name), error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder with its files.
    pub(super) fn remove_all(&self) -> Result<()> {
        if !self.is_local() {
            return self.names()?.iter().try_for_each(|name| self.remove(name));
        }
        fs::remove_dir_all(&self.path).map_err(|e| Error::io(&self.path, e))
    }

    /// Begins the large file `name`: where it is, until it is published.
    pub(super) fn draft(&self, name: &str) -> Result<(Draft, File)> {
        if !self.is_local() {
            let folder = std::env::temp_dir();
            let file = NamedTempFile::new().map_err(|e| Error::io(&folder, e))?;
            let opened = file.reopen().map_err(|e| Error::io(file.path(), e))?;
            return Ok((Draft::Away(file), opened));
        }
        let draft = Temporary::beside(&self.at(name));
        let file = File::create(&draft.0).map_err(|e| Error::io(&draft.0, e))?;
        Ok((Draft::Here(draft), file))
    }

    /// Gives a file that was begun its name, once it is on disk, or in the store.
    pub(super) fn publish(&self, draft: Draft, name: &str) -> Result<()> {
        match (draft, &self.store) {
            (Draft::Away(file), Some((storage, at))) => {
                Ok(storage.put_file(&at.join(name)?, file.path(), |_| {})?)
            }
            (Draft::Here(temporary), None) => {
                temporary.flush().map_err(with_way)?;
                temporary.rename(&self.at(name))
            }
            _ => Err(Error::Data(format!("{}: another folder's file", self.path.display()))),
        }
    }

    /// A system error while `draft` is written.
    pub(super) fn failed(draft: &Draft, error: io::Error) -> Error {
        let path = match draft {
            Draft::Here(temporary) => &*temporary.0,
            Draft::Away(file) => file.path(),
        };
        with_way(Error::io(path, error))
    }
}

/// What to do about a full disk.
fn with_way(error: Error) -> Error {
    match error {
        Error::Io { path, source } if source.kind() == io::ErrorKind::StorageFull => {
            Error::Data(format!(
                "{}: {source}; what is finished stays: free some space (or set TMPDIR, if it lies \
                 there) and give the same command again, which goes on from there",
                path.display()
            ))
        }
        other => other,
    }
}

/// An object from its start to its end, in pieces that are asked for ahead.
struct Stream<'a> {
    storage: &'a Storage,
    object: Object,
    /// The first byte that was not asked for yet.
    asked: u64,
    coming: VecDeque<Pending<Bytes>>,
    current: Bytes,
}

impl<'a> Stream<'a> {
    /// Bytes of a piece: few requests, and little memory.
    const PIECE: u64 = 8 << 20;
    /// Pieces on their way.
    const AHEAD: usize = 3;

    fn new(storage: &'a Storage, object: Object) -> Self {
        Stream { storage, object, asked: 0, coming: VecDeque::new(), current: Bytes::new() }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            while self.coming.len() < Self::AHEAD && self.asked < self.object.size {
                let end = self.object.size.min(self.asked + Self::PIECE);
                self.coming.push_back(self.storage.start_read(&self.object, self.asked..end));
                self.asked = end;
            }
            let Some(next) = self.coming.pop_front() else { return Ok(0) };
            self.current = next.wait().map_err(io::Error::other)?;
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
