//! What an export writes, here or in object storage.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use storage::{Location, Scheme, Storage};
use tempfile::TempDir;

use super::fetch::{bar, is_inside};
use super::location;
use super::store::open;
use crate::Error;
use crate::outputs::make_folder;
use crate::run_dir::display_path;

/// A file or folder to be written: in its place, or in a temporary folder from which it is uploaded
/// when it is whole.
pub struct Output {
    given: PathBuf,
    local: PathBuf,
    remote: Option<Remote>,
}

struct Remote {
    at: Location,
    storage: Storage,
    /// Holds what is written until it is uploaded.
    _folder: TempDir,
}

impl Output {
    /// Where `path` says. Folders above a local one are made.
    ///
    /// # Errors
    /// A place that can't be written to: another scheme, a bucket without name.
    pub fn new(path: &Path) -> Result<Self> {
        let given = path.to_owned();
        let Some(at) = location(path)? else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            if let Some(folder) = folder {
                make_folder(folder)?;
            }
            return Ok(Output { given, local: path.to_owned(), remote: None });
        };
        ensure!(
            at.scheme() != Scheme::Http && !at.key().is_empty(),
            "output is {at}, but exports are written to a name in a bucket: s3://bucket/w.pth, \
             gs://… or az://…"
        );
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let local = folder.path().join(at.file_name());
        let remote = Remote { at, storage: open()?, _folder: folder };
        Ok(Output { given, local, remote: Some(remote) })
    }

    /// The file or folder to write.
    pub fn path(&self) -> &Path {
        &self.local
    }

    /// Whether it lies on this machine.
    pub fn is_here(&self) -> bool {
        self.remote.is_none()
    }

    /// Refuses a folder that is to be new, but is there already with something in it.
    ///
    /// # Errors
    /// It is.
    pub fn check_is_new(&self) -> Result<()> {
        let Some(Remote { at, storage, .. }) = &self.remote else { return Ok(()) };
        ensure!(
            storage.list(&at.as_folder(), |_| {})?.is_empty(),
            "{at} is not empty, and nothing in it is written over: name a new folder"
        );
        Ok(())
    }

    /// Uploads what was written, if it is to lie in storage; says where it is. Each file is there
    /// whole or as it was; of a folder that which others look for, `config.json`, comes last.
    ///
    /// # Errors
    /// An upload that failed.
    pub fn finish(self) -> Result<String> {
        let Some(Remote { at, storage, .. }) = &self.remote else {
            return Ok(display_path(&self.given));
        };
        let mut files = Vec::new();
        collect(&self.local, "", &mut files)?;
        files.sort_by_key(|(name, ..)| (name.ends_with("config.json"), name.clone()));
        let bar = bar(&at.to_string(), files.iter().map(|(.., bytes)| bytes).sum());
        for (name, path, _) in &files {
            let to = if name.is_empty() { at.clone() } else { at.join(name)? };
            let bar = bar.clone();
            let uploaded = storage.put_file(&to, path, move |bytes| bar.inc(bytes));
            uploaded.with_context(|| format!("{at} is not written whole"))?;
        }
        bar.finish_and_clear();
        Ok(at.to_string())
    }
}

/// The files in `path` with their names there and lengths; of a file that alone, without a name.
fn collect(path: &Path, name: &str, files: &mut Vec<(String, PathBuf, u64)>) -> crate::Result<()> {
    let io = |e| Error::io(path, e);
    let found = fs::metadata(path).map_err(io)?;
    if !found.is_dir() {
        files.push((name.to_owned(), path.to_owned(), found.len()));
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?;
        let own = entry.file_name().to_string_lossy().into_owned();
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        if is_inside(&name) {
            collect(&entry.path(), &name, files)?;
        }
    }
    Ok(())
}
