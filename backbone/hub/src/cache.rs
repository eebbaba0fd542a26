//! The folder that files are kept in, shared with Python's huggingface_hub.
//! Reference: huggingface_hub `file_download.py`.
//!
//! ```text
//! models--owner--name/refs/main                  the commit that main was at
//! models--owner--name/snapshots/COMMIT/file  ->  ../../blobs/ETAG
//! models--owner--name/blobs/ETAG                 a file's bytes
//! models--owner--name/blobs/ETAG.incomplete      those that have come so far
//! .locks/models--owner--name/ETAG.lock           held while they come
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use crate::name::{is_commit, is_relative};
use crate::{Error, Name, Result};

/// How deep folders of a snapshot are looked through.
const DEPTH: usize = 8;
/// What backup programs know folders by that can be made again (bford.info/cachedir).
const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n";

/// What is kept of one repository.
#[derive(Debug)]
pub(crate) struct Cache {
    whole: PathBuf,
    repo: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(crate) fn new(folder: &Path, name: &Name) -> Self {
        let repo = format!("models--{}--{}", name.owner, name.repo);
        let locks = folder.join(".locks").join(&repo);
        Cache { whole: folder.to_owned(), repo: folder.join(repo), locks }
    }

    /// The folder of a repository's files as of `commit`.
    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.repo.join("snapshots").join(commit)
    }

    /// Where a file is found by its name.
    pub(crate) fn pointer(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshot(commit).join(file)
    }

    /// Where a file's bytes lie.
    pub(crate) fn blob(&self, etag: &str) -> PathBuf {
        self.repo.join("blobs").join(etag)
    }

    /// The commit that `revision` is, or was when it was last asked for.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.repo.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// The file, if it is here.
    pub(crate) fn find(&self, revision: &str, file: &str) -> Option<PathBuf> {
        let pointer = self.pointer(&self.commit_of(revision)?, file);
        pointer.is_file().then_some(pointer)
    }

    /// The paths of a snapshot's files.
    pub(crate) fn files(&self, commit: &str) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.snapshot(commit), "", DEPTH, &mut files);
        files.sort();
        files
    }

    /// Makes the folders for a file.
    pub(crate) fn prepare(&self, commit: &str, file: &str) -> Result<()> {
        let pointer = self.pointer(commit, file);
        let folders = [Some(self.repo.join("blobs").as_path()), pointer.parent()]
            .map(|folder| folder.map(Path::to_owned));
        for folder in folders.into_iter().flatten().chain([self.locks.clone()]) {
            fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        let tag = self.whole.join("CACHEDIR.TAG");
        if !tag.exists() {
            // A courtesy, without which everything works.
            let _ = fs::write(&tag, TAG);
        }
        Ok(())
    }

    /// Notes that `revision` is at `commit`; a folder that can't be written has to do without.
    pub(crate) fn note(&self, revision: &str, commit: &str) {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return;
        }
        let path = self.repo.join("refs").join(revision);
        let temporary = path.with_added_extension(format!("{}.tmp", std::process::id()));
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(&temporary, commit));
        if written.and_then(|()| fs::rename(&temporary, &path)).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    /// Lets the file of a snapshot be found: a relative link, so that the folder can be moved; a
    /// copy where there are no links.
    pub(crate) fn link(&self, etag: &str, commit: &str, file: &str) -> Result<PathBuf> {
        let pointer = self.pointer(commit, file);
        if pointer.is_file() {
            return Ok(pointer);
        }
        // A link to a file that somebody has deleted.
        let _ = fs::remove_file(&pointer);
        let up = "../".repeat(file.split('/').count() + 1);
        match symlink(Path::new(&format!("{up}blobs/{etag}")), &pointer) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(_) => {
                fs::copy(self.blob(etag), &pointer).map_err(Error::io(&pointer))?;
            }
            Ok(()) => {}
        }
        Ok(pointer)
    }

    /// Waits until nobody else fetches the file, in whatever language; `waits` is called if
    /// somebody does. None where the file system has no locks.
    pub(crate) fn lock(&self, etag: &str, waits: impl FnOnce()) -> Result<Option<File>> {
        let path = self.locks.join(format!("{etag}.lock"));
        let mut waits = Some(waits);
        loop {
            let options = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = options.map_err(Error::io(&path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    if let Some(waits) = waits.take() {
                        waits();
                    }
                    file.lock().map_err(Error::io(&path))?;
                }
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            // Whoever had it may have deleted it: then a new one is what others lock.
            if is_same(&file, &path) {
                return Ok(Some(file));
            }
        }
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn is_same(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |metadata: io::Result<fs::Metadata>| metadata.map(|m| (m.dev(), m.ino())).ok();
    id(file.metadata()) == id(fs::metadata(path))
}

#[cfg(not(unix))]
fn is_same(_: &File, _: &Path) -> bool {
    true
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}{name}");
        if path.is_dir() && depth > 0 {
            collect(&path, &format!("{name}/"), depth - 1, files);
        } else if path.is_file() && is_relative(&name) {
            files.push(name);
        }
    }
}
