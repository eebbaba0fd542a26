//! Where a set of shards lies.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result, Temporary, is_temporary, write_file};

/// A folder of files that are written whole or not at all.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
}

/// A file that is being written, gone if it is dropped.
pub(super) struct Draft(Temporary);

impl Folder {
    /// The folder at `path`, whether it is there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Folder { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file `name`, for messages.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the folder and removes what a killed process left half written.
    pub(super) fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.path).map_err(|e| Error::io(&self.path, e))?;
        for name in self.names()?.iter().filter(|name| is_temporary(name)) {
            self.remove(name)?;
        }
        Ok(())
    }

    /// The names in it; none if it is not there.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io(&self.path, error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let entry = entry.map_err(|e| Error::io(&self.path, e))?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        };
        let mut names = entries.map(name).collect::<Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    /// The content of a small file; none if it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match fs::read(self.at(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(self.at(name), error)),
        }
    }

    /// A file from its start, and its length.
    pub(super) fn stream(&self, name: &str) -> Result<(Box<dyn Read + '_>, u64)> {
        let path = self.at(name);
        let file = File::open(&path).map_err(|e| Error::io(&path, e))?;
        let length = file.metadata().map_err(|e| Error::io(&path, e))?.len();
        Ok((Box::new(BufReader::with_capacity(1 << 20, file)), length))
    }

    /// Writes a small file.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_file(&self.at(name), bytes).map_err(with_way)
    }

    /// Removes a file, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match fs::remove_file(self.at(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(self.at(name), error))
            }
            _ => Ok(()),
        }
    }

    /// Begins the large file `name`.
    pub(super) fn draft(&self, name: &str) -> Result<(Draft, File)> {
        let draft = Temporary::beside(&self.at(name));
        let file = File::create(&draft.0).map_err(|e| Error::io(&draft.0, e))?;
        Ok((Draft(draft), file))
    }

    /// Gives a file that was begun its name, once it is on disk.
    pub(super) fn publish(&self, draft: Draft, name: &str) -> Result<()> {
        draft.0.flush().map_err(with_way)?;
        draft.0.rename(&self.at(name))
    }

    /// A system error while shards are written.
    pub(super) fn failed(&self, name: &str, error: io::Error) -> Error {
        with_way(Error::io(self.at(name), error))
    }
}

/// What to do about a full disk.
fn with_way(error: Error) -> Error {
    match error {
        Error::Io { path, source } if source.kind() == io::ErrorKind::StorageFull => {
            Error::Data(format!(
                "{}: {source}; what is finished stays: free some space and give the same command \
                 again, which goes on from there",
                path.display()
            ))
        }
        other => other,
    }
}
