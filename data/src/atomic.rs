//! Files that are there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Replaces `path` by what `write` puts into the file it is given, or leaves
/// `path` as it was: a temporary file in the same folder is written, flushed
/// to disk and renamed.
///
/// # Errors
/// Those of `write`, and [`Error::Io`]; the temporary file is gone then.
pub fn write_atomically<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let temporary = Temporary::beside(path);
    write(&temporary.0)?;
    temporary.flush()?;
    Ok(temporary.rename(path)?)
}

/// Writes `bytes` to `path`, whole or not at all.
///
/// # Errors
/// [`Error::Io`].
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |temporary| {
        fs::write(temporary, bytes).map_err(|error| Error::io(path, error))
    })
}

/// A file under a name that [`is_temporary`] knows, removed when dropped.
pub struct Temporary(pub PathBuf);

impl Temporary {
    /// A name in the folder of `path`, where a rename cannot cross file systems.
    pub fn beside(path: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".{}.tmp", std::process::id()));
        Temporary(path.with_file_name(name))
    }

    /// Waits until the content is on disk: a rename can otherwise outlive
    /// a power cut that the content does not.
    pub fn flush(&self) -> Result<()> {
        let file = OpenOptions::new().write(true).open(&self.0);
        file.and_then(|file| file.sync_all()).map_err(|e| Error::io(&self.0, e))
    }

    /// Gives the file its final name, on disk too.
    pub fn rename(self, path: &Path) -> Result<()> {
        fs::rename(&self.0, path).map_err(|e| Error::io(path, e))?;
        flush_folder(path)
    }

    /// Gives the file `path` as another name, replacing what had it; a copy
    /// where the file system has no hard links.
    pub fn also_as(&self, path: &Path) -> Result<()> {
        let other = Temporary::beside(path);
        // One that a killed process of the same id left would be in the way.
        let _ = fs::remove_file(&other.0);
        if fs::hard_link(&self.0, &other.0).is_err() {
            fs::copy(&self.0, &other.0).map_err(|e| Error::io(&other.0, e))?;
            other.flush()?;
        }
        other.rename(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left, and of a failed removal the
        // next start takes care.
        let _ = fs::remove_file(&self.0);
    }
}

/// Whether this is the name of an unfinished file.
pub fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

#[cfg(unix)]
fn flush_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::File::open(folder).and_then(|file| file.sync_all()).map_err(|e| Error::io(folder, e))
}

/// Other systems have no such thing as opening a folder to flush it.
#[cfg(not(unix))]
fn flush_folder(_: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, |p| fs::write(p, "old").map_err(|e| Error::io(p, e))).unwrap();
        let failed = write_atomically(&path, |p| {
            fs::write(p, "half").unwrap();
            Err(Error::invalid("x", 1, "it fails"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn another_name_replaces_the_file_that_had_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("new"), folder.path().join("last"));
        fs::write(&other, "old").unwrap();
        let temporary = Temporary::beside(&path);
        fs::write(&temporary.0, "new").unwrap();
        temporary.also_as(&other).unwrap();
        temporary.rename(&path).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "new");
        assert_eq!(names(folder.path()).len(), 2);
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let path = Path::new("/nonexistent/folder/a.bin");
        let error =
            write_atomically(path, |p| fs::write(p, "x").map_err(|e| Error::io(p, e))).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/folder"), "{error}");
    }
}
