//! The folder a run writes to: made once, never mixed with other files, and
//! locked by the process that writes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::checkpoint::beside;
use crate::remote::{self, is_name};
use crate::run_storage::{LEDGER, Writer};
use crate::{Error, Result};

/// The run's settings, in its folder.
pub const CONFIG_FILE: &str = "config.toml";
/// The newest checkpoint, in the run's folder.
pub const LAST_CHECKPOINT: &str = "checkpoints/last.safetensors";
/// The file that says that a folder belongs to a run.
pub(crate) const MARKER: &str = "run.json";
/// The file that the writing process holds a lock on.
const LOCK: &str = ".lock";
/// What [`MARKER`] contains, so that a stranger's `run.json` is not one.
const FORMAT: &str = "spark-backbone run";

#[derive(Serialize, Deserialize)]
pub(crate) struct Marker {
    format: String,
    /// The job that last wrote here, if a launcher that restarts jobs started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Whether a checkpoint was ever saved here: that there is none then means that it was lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub saved: bool,
    /// Of a run in object storage, the process that writes there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
}

impl Marker {
    fn new() -> Self {
        Marker { format: FORMAT.into(), job: None, saved: false, writer: None }
    }

    /// The marker in the folder of a run.
    pub fn read(folder: &Path) -> Option<Self> {
        Self::parse(&fs::read(folder.join(MARKER)).ok()?)
    }

    /// The marker that a file of this content is; none if it is a stranger's.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice::<Marker>(bytes).ok().filter(|marker| marker.format == FORMAT)
    }

    /// Leaves the marker, before any other file of the run.
    fn write(&self, folder: &Path) -> Result<()> {
        let marker = serde_json::json!(self).to_string();
        Ok(data::write_file(&folder.join(MARKER), marker.as_bytes())?)
    }
}

/// A run folder that this process alone writes to, until it is dropped.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// The system takes the lock back when the file is closed, also when the
    /// process is killed.
    _lock: File,
}

/// What lies at a path before a run.
#[derive(Debug, PartialEq)]
enum Found {
    Nothing,
    Run,
    OtherFiles,
}

impl RunDir {
    /// Makes or takes over the folder `path`. One that has files in it is
    /// refused, unless it is a run to `resume`, or one to `overwrite`: then
    /// all in it is deleted. A folder that no run has made is never touched.
    ///
    /// # Errors
    /// [`Error::Input`] for a folder that the rules above refuse, or that
    /// another process is writing to; [`Error::Input`].
    pub fn create(path: &Path, overwrite: bool, resume: bool) -> Result<Self> {
        if overwrite && resume {
            let rule = "a run is either continued or begun anew";
            return Err(Error::invalid("--overwrite", "given with --resume", rule));
        }
        permit(path, overwrite, resume)?;
        fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock = lock(path)?;
        // Another process may have begun a run before the lock was ours.
        permit(path, overwrite, resume)?;
        if overwrite {
            clear(path)?;
        }
        if overwrite || look(path)? == Found::Nothing {
            Marker::new().write(path)?;
        }
        Ok(RunDir { path: path.to_owned(), _lock: lock })
    }

    /// Notes that `job` writes here, so that it is known again when it is restarted.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn set_owner(&self, job: &str) -> Result<()> {
        let marker = Marker::read(&self.path).unwrap_or_else(Marker::new);
        Marker { job: Some(job.to_owned()), ..marker }.write(&self.path)
    }

    /// Notes the process that writes to the run in object storage of which this folder is a copy.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub(crate) fn set_writer(&self, writer: Writer) -> Result<()> {
        let marker = Marker::read(&self.path).unwrap_or_else(Marker::new);
        Marker { writer: Some(writer), ..marker }.write(&self.path)
    }

    /// Notes that there is a checkpoint, so that its loss is seen.
    ///
    /// # Errors
    /// [`Error::Input`].
    pub fn note_saved(&self) -> Result<()> {
        match Marker::read(&self.path).unwrap_or_else(Marker::new) {
            Marker { saved: true, .. } => Ok(()),
            marker => Marker { saved: true, ..marker }.write(&self.path),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved configuration, `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.path.join(CONFIG_FILE)
    }

    /// The metrics of every step, `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The folder of TensorBoard's event files, `tensorboard`.
    pub fn tensorboard(&self) -> PathBuf {
        self.path.join("tensorboard")
    }

    /// The folder of checkpoints, `checkpoints`.
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }
}

/// The last checkpoint of the run (of any of our programs) in the folder `path`, or
/// `path` itself, fetched if it is on a hub or in object storage.
///
/// # Errors
/// [`Error::Input`] for a run without checkpoint yet, or that has lost its last one; what the hub
/// refuses.
pub fn resolve_checkpoint(path: &Path) -> Result<PathBuf> {
    let path = &*remote::local(path)?;
    let last = path.join(LAST_CHECKPOINT);
    if last.exists() {
        return Ok(last);
    }
    if path.is_dir() && path.join(CONFIG_FILE).exists() {
        let lost = beside(&last)
            .map(|found| format!("the last of {} is gone; {found}", display_path(path)));
        let text = lost
            .unwrap_or_else(|| format!("{} is a run that has no checkpoint yet", path.display()));
        return Err(Error::data(text));
    }
    Ok(path.to_owned())
}

/// The folder of the run that `path` is, or that the checkpoint `path` belongs to; none if it is
/// neither.
pub fn run_of(path: &Path) -> Option<PathBuf> {
    let own = || path.parent()?.parent();
    let folders = [Some(path), own()];
    let run = folders.into_iter().flatten().find(|folder| Marker::read(folder).is_some());
    run.map(Path::to_owned)
}

/// The job that last wrote to the run in the folder `path`, if one did.
pub fn run_owner(path: &Path) -> Option<String> {
    Marker::read(path)?.job
}

/// Whether the run in the folder `path` has saved checkpoints, of which the last is gone.
pub fn has_lost_checkpoint(path: &Path) -> bool {
    let last = path.join(LAST_CHECKPOINT);
    let saved = Marker::read(path).is_some_and(|marker| marker.saved);
    // A link to nothing is there, to be found unreadable.
    last.symlink_metadata().is_err() && (saved || beside(&last).is_some())
}

/// A path as messages name it: whole, so that it can be pasted elsewhere.
pub fn display_path(path: &Path) -> String {
    if is_name(path) {
        return path.display().to_string();
    }
    let full: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    full.display().to_string()
}

/// Whether the rules of [`RunDir::create`] let a run begin here.
fn permit(path: &Path, overwrite: bool, resume: bool) -> Result<()> {
    let refuse = |value: &str, rule: &str| {
        Err(Error::invalid(format!("the run folder {}", path.display()), value, rule))
    };
    match look(path)? {
        Found::Nothing if resume => {
            refuse("empty or absent", "--resume continues a run that was begun there")
        }
        Found::Nothing => Ok(()),
        Found::Run if overwrite || resume => Ok(()),
        Found::Run => refuse(
            "a run already",
            "a new one needs another folder; --resume continues it, --overwrite deletes it",
        ),
        Found::OtherFiles => refuse(
            "not empty",
            "no run was begun there (it has no run.json), so its files are left alone (with \
             --resume and --overwrite too); give a new or an empty folder, and --resume CHECKPOINT \
             to go on from a checkpoint",
        ),
    }
}

fn look(path: &Path) -> Result<Found> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other.map_err(|e| Error::io(path, e))?,
    };
    let mut found = Found::Nothing;
    for entry in entries {
        let name = entry.map_err(|e| Error::io(path, e))?.file_name();
        if name == MARKER && Marker::read(path).is_some() {
            return Ok(Found::Run);
        }
        if name != LOCK && name != LEDGER && !is_unfinished_marker(&name.to_string_lossy()) {
            found = Found::OtherFiles;
        }
    }
    Ok(found)
}

/// Whether a process that was killed while it left the marker wrote this.
fn is_unfinished_marker(name: &str) -> bool {
    name.starts_with(&format!(".{MARKER}.")) && name.ends_with(".tmp")
}

/// Deletes a run: the marker last, so that a kill in between leaves a folder
/// that can still be overwritten.
fn clear(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let entry = entry.map_err(|e| Error::io(folder, e))?;
        let path = entry.path();
        if entry.file_name() == LOCK || entry.file_name() == MARKER {
            continue;
        }
        // A link is removed, not followed.
        let is_folder = entry.file_type().map_err(|e| Error::io(&path, e))?.is_dir();
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| Error::io(&path, e))?;
    }
    Ok(())
}

/// Deletes all that is in a folder but the lock, which the caller holds.
///
/// # Errors
/// [`Error::Input`].
pub(crate) fn clear_all(folder: &Path) -> Result<()> {
    clear(folder)?;
    let marker = folder.join(MARKER);
    match fs::remove_file(&marker) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::io(&marker, e)),
        _ => Ok(()),
    }
}

/// Locks the folder, and notes in the lock file who did.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let io = |e| Error::io(&path, e);
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut owner = String::new();
            // Only for the message, and not readable on every system.
            let _ = file.read_to_string(&mut owner);
            let operand = format!("the run folder {}", folder.display());
            let value = format!("in use by process {}", owner.trim());
            return Err(Error::invalid(operand, value, "only one process may write to it"));
        }
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => {
            tracing::warn!(
                "{}: the file system has no locks; start one run at a time",
                path.display()
            );
        }
        Err(TryLockError::Error(e)) => return Err(io(e)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(io)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path, overwrite: bool, resume: bool) -> String {
        RunDir::create(path, overwrite, resume).unwrap_err().to_string()
    }

    #[test]
    fn a_run_is_only_resumed_or_overwritten_when_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/run");
        let run = RunDir::create(&path, false, false).unwrap();
        fs::write(run.metrics(), "{}").unwrap();
        fs::create_dir(run.checkpoints()).unwrap();
        fs::write(run.checkpoints().join("last"), "").unwrap();
        drop(run);

        let refused = message(&path, false, false);
        assert!(refused.contains("--resume continues it, --overwrite deletes it"), "{refused}");
        assert!(refused.contains(&path.display().to_string()), "{refused}");
        assert!(message(&path, true, true).contains("either continued or begun anew"));

        let run = RunDir::create(&path, false, true).unwrap();
        assert!(run.metrics().exists());
        drop(run);
        let run = RunDir::create(&path, true, false).unwrap();
        assert!(!run.metrics().exists() && !run.checkpoints().exists());
        assert!(message(&path, false, false).contains("a run already"));
    }

    #[test]
    fn other_peoples_files_are_never_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::write(path.join("photo.jpg"), "x").unwrap();
        // Files of the same names, but of somebody else's making.
        fs::write(path.join("config.toml"), "").unwrap();
        fs::write(path.join("run.json"), "{\"format\":\"marathon\"}").unwrap();
        for (overwrite, resume) in [(false, false), (true, false), (false, true)] {
            let refused = message(path, overwrite, resume);
            assert!(refused.contains("no run was begun there"), "{refused}");
        }
        assert_eq!(fs::read_dir(path).unwrap().count(), 3);
    }

    #[test]
    fn there_must_be_something_to_resume() {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        assert!(message(&absent, false, true).contains("continues a run that was begun there"));
        assert!(!absent.exists());
        // To overwrite nothing is to begin, also where a killed process just had.
        fs::create_dir(&absent).unwrap();
        fs::write(absent.join(".run.json.1.tmp"), "{").unwrap();
        RunDir::create(&absent, true, false).unwrap();
        assert_eq!(look(&absent).unwrap(), Found::Run);
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let refused = message(file.path(), false, false);
        assert!(refused.contains(&file.path().display().to_string()), "{refused}");
    }

    #[test]
    fn one_process_writes_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let first = RunDir::create(folder.path(), false, false).unwrap();
        let refused = message(folder.path(), false, true);
        let owner = format!("in use by process {}", std::process::id());
        assert!(refused.contains(&owner), "{refused}");
        drop(first);
        RunDir::create(folder.path(), false, true).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn overwriting_does_not_follow_links() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("kept"), "").unwrap();
        drop(RunDir::create(folder.path(), false, false).unwrap());
        std::os::unix::fs::symlink(other.path(), folder.path().join("link")).unwrap();
        RunDir::create(folder.path(), true, false).unwrap();
        assert!(other.path().join("kept").exists());
        assert!(!folder.path().join("link").exists());
    }
}
