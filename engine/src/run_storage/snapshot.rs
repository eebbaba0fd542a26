//! A run's folder as it is at one moment, to be read while the run goes on.

use std::fs;
use std::path::{Path, PathBuf};

use super::ledger::Stamp;
use crate::{Error, Result};

/// The folder, in that of the run, that snapshots lie in.
pub const SNAPSHOTS: &str = ".upload";

/// The files of a run's folder under other names (hard links), so that what replaces or deletes
/// them leaves these as they were. Deleted when dropped.
pub struct Snapshot {
    folder: PathBuf,
    /// In the order in which they are uploaded.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
pub struct SnapshotFile {
    /// Its name in the run's folder: `checkpoints/last.safetensors`.
    pub name: String,
    /// Where it can be read.
    pub path: PathBuf,
    /// What it was; one that is appended to may be longer by now.
    pub stamp: Stamp,
}

impl Snapshot {
    /// Takes the `number`th of the run in `folder`.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn take(folder: &Path, number: u64) -> Result<Self> {
        let own = folder.join(SNAPSHOTS).join(number.to_string());
        fs::create_dir_all(&own).map_err(|e| Error::io(&own, e))?;
        let mut snapshot = Snapshot { folder: own, files: Vec::new() };
        let mut names = file_names(folder)?;
        names.sort_by_key(|name| (rank(name), name.clone()));
        for (number, name) in names.into_iter().enumerate() {
            let path = folder.join(&name);
            let kept = snapshot.folder.join(number.to_string());
            let stamp = fs::metadata(&path).map(|found| Stamp::of(&found));
            let stamp = stamp.map_err(|e| Error::io(&path, e))?;
            // A file system without links.
            if fs::hard_link(&path, &kept).is_err() {
                fs::copy(&path, &kept).map_err(|e| Error::io(&kept, e))?;
            }
            snapshot.files.push(SnapshotFile { name, path: kept, stamp });
        }
        Ok(snapshot)
    }

    /// Deletes what a killed process left.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn delete_all(folder: &Path) -> Result<()> {
        let all = folder.join(SNAPSHOTS);
        match fs::remove_dir_all(&all) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&all, e)),
            _ => Ok(()),
        }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // What stays is deleted when the run goes on.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What others rest on comes first: a checkpoint without the numbers before it could not be
/// continued, and `run.json` says that there is a checkpoint.
fn rank(name: &str) -> u8 {
    match name {
        crate::run_dir::MARKER => 3,
        crate::run_dir::LAST_CHECKPOINT => 2,
        _ if name.starts_with("checkpoints/") => 1,
        _ => 0,
    }
}

/// The names of all files but hidden ones: locks, unfinished files, what is kept of storage.
///
/// # Errors
/// [`Error::Input`].
pub fn file_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    collect(folder, "", &mut names)?;
    Ok(names)
}

fn collect(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if name.starts_with('.') {
            continue;
        }
        let kind = entry.file_type().map_err(|e| Error::io(entry.path(), e))?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), names)?;
        } else if kind.is_file() {
            names.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_stays_as_the_run_was() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("checkpoints")).unwrap();
        for name in [
            "run.json",
            "metrics.jsonl",
            ".lock",
            "checkpoints/last.safetensors",
            "checkpoints/best.safetensors",
            "checkpoints/.last.safetensors.7.tmp",
        ] {
            fs::write(at(name), "old").unwrap();
        }
        let snapshot = Snapshot::take(folder.path(), 1).unwrap();
        let names: Vec<&str> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
        let last = "checkpoints/last.safetensors";
        assert_eq!(names, ["metrics.jsonl", "checkpoints/best.safetensors", last, "run.json"]);

        data::write_file(&at(last), b"new one").unwrap();
        let mut metrics = fs::OpenOptions::new().append(true).open(at("metrics.jsonl")).unwrap();
        std::io::Write::write_all(&mut metrics, b" and more").unwrap();
        fs::remove_file(at("checkpoints/best.safetensors")).unwrap();
        let read = |name: &str| {
            let file = snapshot.files.iter().find(|file| file.name == name).unwrap();
            (fs::read_to_string(&file.path).unwrap(), file.stamp.bytes)
        };
        assert_eq!(read(last), ("old".into(), 3));
        assert_eq!(read("checkpoints/best.safetensors"), ("old".into(), 3));
        assert_eq!(read("metrics.jsonl"), ("old and more".into(), 3));
        assert_ne!(Stamp::at(&at(last)).unwrap(), snapshot.files[2].stamp);

        drop(snapshot);
        assert_eq!(fs::read_dir(at(SNAPSHOTS)).unwrap().count(), 0);
        Snapshot::delete_all(folder.path()).unwrap();
        assert!(!at(SNAPSHOTS).exists());
    }
}
