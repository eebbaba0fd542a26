//! Uploading a snapshot of a run.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::ledger::{Known, Ledger};
use super::snapshot::{Snapshot, SnapshotFile};
use super::{StoredRun, Writer};
use crate::checkpoint::epoch_of;
use crate::{Error, Result};

/// Largest checkpoint that the store is asked to copy, in bytes: it answers when it has done so, for
/// which a request has half a minute.
const COPIED: u64 = 1 << 30;

/// Writes to a run in storage.
pub struct Uploader {
    run: StoredRun,
    writer: Writer,
    ledger: Ledger,
}

/// Why a snapshot is not uploaded.
pub enum Trouble {
    /// It may go better with the next.
    Failed(Error),
    /// Another process writes to the run.
    TakenOver(Error),
}

/// How far an upload is, in bytes.
#[derive(Debug, Default)]
pub struct Progress {
    pub done: AtomicU64,
    pub total: AtomicU64,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Failed(error)
    }
}

impl Uploader {
    pub fn new(run: StoredRun, writer: Writer, ledger: Ledger) -> Self {
        Self { run, writer, ledger }
    }

    /// The run as a person names it.
    pub fn name(&self) -> String {
        self.run.at.to_string()
    }

    /// The folder it works in.
    pub fn folder(&self) -> &Path {
        &self.run.folder
    }

    /// Uploads what has changed; of the checkpoints of finished epochs there are then the `keep`
    /// newest. How many files that were.
    pub fn upload(
        &mut self,
        snapshot: &Snapshot,
        keep: usize,
        progress: &Arc<Progress>,
    ) -> std::result::Result<usize, Trouble> {
        let is_new = |file: &&SnapshotFile| !self.ledger.has(&file.name, &file.stamp);
        let files: Vec<&SnapshotFile> = snapshot.files.iter().filter(is_new).collect();
        let total: u64 = files.iter().map(|file| file.stamp.bytes).sum();
        progress.done.store(0, Ordering::Relaxed);
        progress.total.store(total, Ordering::Relaxed);
        self.check_writer()?;
        for file in &files {
            self.upload_file(file, progress)?;
            let known = Known { version: None, file: Some(file.stamp.clone()) };
            self.ledger.objects.insert(file.name.clone(), known);
            self.ledger.write(&self.run.folder)?;
        }
        self.prune(keep)?;
        Ok(files.len())
    }

    /// Whether `run.json` still names this process.
    fn check_writer(&self) -> std::result::Result<(), Trouble> {
        let found = self.run.marker()?;
        let why = match found.as_ref().map(|marker| &marker.writer) {
            Some(Some(writer)) if *writer == self.writer => return Ok(()),
            Some(Some(writer)) => {
                format!("process {} on {} writes to it now", writer.process, writer.host)
            }
            Some(None) => "another process writes to it now".into(),
            None => "it was deleted there".into(),
        };
        Err(Trouble::TakenOver(Error::data(format!(
            "{}: {why}, so this one stops; what it has made is in {}",
            self.run.at,
            self.run.folder.display()
        ))))
    }

    fn upload_file(&self, file: &SnapshotFile, progress: &Arc<Progress>) -> Result<()> {
        let (storage, at) = (&self.run.storage, self.run.at.join(&file.name)?);
        // The same checkpoint under another name: the store copies it, if it can.
        let same = |known: &Known| known.file.as_ref() == Some(&file.stamp);
        let same = self.ledger.objects.iter().find(|(_, known)| same(known));
        if let Some((other, _)) = same
            && (1..=COPIED).contains(&file.stamp.bytes)
            && storage.copy(&self.run.at.join(other)?, &at).is_ok()
        {
            progress.done.fetch_add(file.stamp.bytes, Ordering::Relaxed);
            return Ok(());
        }
        let length = std::fs::metadata(&file.path).map_err(|e| Error::io(&file.path, e))?.len();
        if length == file.stamp.bytes {
            let progress = Arc::clone(progress);
            let count = move |bytes| {
                progress.done.fetch_add(bytes, Ordering::Relaxed);
            };
            return Ok(storage.put_file(&at, &file.path, count)?);
        }
        // Meanwhile more was appended.
        let mut bytes = Vec::new();
        let read = File::open(&file.path)
            .and_then(|from| from.take(file.stamp.bytes).read_to_end(&mut bytes));
        read.map_err(|e| Error::io(&file.path, e))?;
        storage.put(&at, bytes)?;
        progress.done.fetch_add(file.stamp.bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes the checkpoints of finished epochs but for the `keep` newest.
    fn prune(&mut self, keep: usize) -> Result<()> {
        let numbered = |name: &String| {
            let file = name.strip_prefix("checkpoints/")?;
            Some((epoch_of(file)?, name.clone()))
        };
        let mut epochs: Vec<(u64, String)> =
            self.ledger.objects.keys().filter_map(numbered).collect();
        epochs.sort();
        for (_, name) in &epochs[..epochs.len().saturating_sub(keep)] {
            self.run.storage.delete(&self.run.at.join(name)?)?;
            self.ledger.objects.remove(name);
            self.ledger.write(&self.run.folder)?;
        }
        Ok(())
    }
}
