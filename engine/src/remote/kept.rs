//! What was fetched is kept in `spark-backbone/objects` in the user's cache folder.
//!
//! ```text
//! blobs/NAME/VERSION               an object's bytes
//! blobs/NAME/.lock                 held while they come
//! sets/NAME/w.safetensors      ->  ../../blobs/NAME/VERSION
//! ```
//!
//! A set has the objects that belong together under the names that they have beside each other.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ring::digest::{SHA256, digest as sum};

use crate::{Error, Result};

/// How long a version is kept that has been replaced: another process may be reading it.
const REPLACED: Duration = Duration::from_secs(24 * 3600);

/// `spark-backbone/name` in the user's cache folder.
pub fn user_folder(name: &str) -> Option<PathBuf> {
    Some(data::user_cache()?.join(name))
}

/// The first half of the SHA-256 of `text`, in hexadecimal.
pub fn digest(text: &str) -> String {
    let sum = sum(&SHA256, text.as_bytes());
    sum.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A folder's name by which a person knows `text` again, and which no other has.
pub fn readable(text: &str) -> String {
    const LETTERS: usize = 60;
    let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._".contains(c) { c } else { '-' };
    let shown: Vec<char> = rest.chars().map(plain).collect();
    let shown: String = shown[shown.len().saturating_sub(LETTERS)..].iter().collect();
    format!("{}-{}", shown.trim_start_matches(['.', '-']), &digest(text)[..12])
}

/// The folder that objects are kept in.
#[derive(Debug)]
pub struct Kept(PathBuf);

/// The versions of one object. One process at a time adds to them.
#[derive(Debug)]
pub struct Versions {
    folder: PathBuf,
    /// None where the file system has no locks.
    _lock: Option<File>,
}

impl Kept {
    /// That of this user.
    ///
    /// # Errors
    /// Neither XDG_CACHE_HOME nor HOME says where it is.
    pub fn of_user() -> Result<Self> {
        let rule = "what is fetched from object storage is kept there: set XDG_CACHE_HOME";
        let unknown = || Error::invalid("the user's cache folder", "unknown (no HOME)", rule);
        Ok(Kept(user_folder("objects").ok_or_else(unknown)?))
    }

    /// The versions of the object called `name`, once no other process fetches it; `waits` is
    /// called if one does.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn versions(&self, name: &str, waits: impl FnOnce()) -> Result<Versions> {
        let folder = self.0.join("blobs").join(readable(name));
        fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
        let path = folder.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| Error::io(&path, e))?;
        let lock = match file.try_lock() {
            Ok(()) => Some(file),
            Err(fs::TryLockError::WouldBlock) => {
                waits();
                file.lock().map_err(|e| Error::io(&path, e))?;
                Some(file)
            }
            Err(fs::TryLockError::Error(_)) => None,
        };
        Ok(Versions { folder, _lock: lock })
    }

    /// A folder in which each of `files` is found by its name.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn set(&self, title: &str, files: &[(String, PathBuf)]) -> Result<PathBuf> {
        let all: Vec<String> =
            files.iter().map(|(name, blob)| format!("{name}\n{}\n", blob.display())).collect();
        let folder = self.0.join("sets");
        let folder = folder.join(format!("{}-{}", readable(title), &digest(&all.concat())[..12]));
        for (name, blob) in files {
            let path = folder.join(name);
            if path.is_file() {
                continue;
            }
            let above = path.parent().unwrap_or(&folder);
            fs::create_dir_all(above).map_err(|e| Error::io(above, e))?;
            // A link to a version that somebody has deleted.
            let _ = fs::remove_file(&path);
            if symlink(blob, &path).is_err() && !path.is_file() {
                data::write_atomically(&path, |temporary| {
                    fs::copy(blob, temporary).map(drop).map_err(|e| data::Error::io(blob, e))
                })?;
            }
        }
        Ok(folder)
    }
}

impl Versions {
    /// Where this version lies, once it is there.
    pub fn path(&self, version: &str) -> PathBuf {
        self.folder.join(&digest(version)[..16])
    }

    /// Deletes the versions that were replaced by that at `newest`, long ago; and what killed
    /// processes left.
    pub fn delete_replaced_by(&self, newest: &Path) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path != newest && !path.ends_with(".lock") && is_older(&path, REPLACED) {
                // What stays is deleted the next time.
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn is_older(path: &Path, than: Duration) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|then| SystemTime::now().duration_since(then).ok());
    age.is_some_and(|age| age > than)
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_readable_and_each_has_its_own() {
        let name = readable("s3://bucket/runs/first/");
        assert!(name.starts_with("bucket-runs-first--"), "{name}");
        let long = readable(&format!("s3://b/{}/é/..", "x".repeat(300)));
        assert!(long.len() < 90 && long.is_ascii(), "{long}");
        assert_ne!(readable("s3://b/a-b"), readable("s3://b/a/b"));
        assert!(!readable("s3://../..").starts_with('.'));
    }

    #[test]
    fn versions_that_were_replaced_long_ago_go() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept(folder.path().to_owned());
        let versions = kept.versions("s3://b/w", || panic!("nobody else")).unwrap();
        let [old, recent, new] = ["1", "2", "3"].map(|version| versions.path(version));
        for path in [&old, &recent, &new] {
            fs::write(path, "x").unwrap();
        }
        let long_ago = SystemTime::now() - 2 * REPLACED;
        for path in [&old, &new] {
            File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
        versions.delete_replaced_by(&new);
        assert_eq!([&old, &recent, &new].map(|path| path.exists()), [false, true, true]);
    }

    #[test]
    fn a_set_finds_its_files_though_one_was_deleted_and_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept(folder.path().join("objects"));
        let blob = folder.path().join("blob");
        let files = [("checkpoints/last".to_owned(), blob.clone())];
        let read = |set: &Path| fs::read_to_string(set.join("checkpoints/last")).ok();
        let set = kept.set("s3://b/run", &files).unwrap();
        assert_eq!(read(&set), None);
        fs::write(&blob, "x").unwrap();
        assert_eq!(kept.set("s3://b/run", &files).unwrap(), set);
        assert_eq!(read(&set).as_deref(), Some("x"));
    }
}
