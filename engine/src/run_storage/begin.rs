//! A run that begins in storage, or in place of another; and who may write to it.

use std::fs;

use super::ledger::{Ledger, Stamp};
use super::mirror::Mirror;
use super::snapshot::Snapshot;
use super::upload::Uploader;
use super::{Listing, StoredRun, Writer};
use crate::run_dir::{LAST_CHECKPOINT, MARKER, RunDir, clear_all, lock};
use crate::{Error, Result};

impl StoredRun {
    /// Whether a new run may begin there: that nothing is, or a run that is to be overwritten.
    /// Asked before a run is prepared, which takes longer.
    ///
    /// # Errors
    /// It may not; [`Error::Storage`]: no such bucket, no right to look into it.
    pub fn check_new(&self, overwrite: bool) -> Result<()> {
        self.permit(&self.listing()?, overwrite)
    }

    /// The same; then deletes what is to be overwritten, and what the working folder has of it.
    ///
    /// # Errors
    /// As [`StoredRun::check_new`]; a working folder with steps that never got there.
    pub fn make_room(&self, overwrite: bool) -> Result<()> {
        let listing = self.listing()?;
        self.permit(&listing, overwrite)?;
        // `run.json` last, so that a kill in between leaves a run that can still be overwritten.
        let (markers, others): (Vec<_>, Vec<_>) =
            listing.files.iter().partition(|(name, _)| name == MARKER);
        for (_, object) in others.into_iter().chain(markers) {
            self.storage.delete(&object.location)?;
        }
        let folder = &self.folder;
        let Some(ledger) = Ledger::read(folder, &self.name()) else { return Ok(()) };
        let _lock = lock(folder)?;
        let last = Stamp::at(&folder.join(LAST_CHECKPOINT));
        let never_uploaded = last.is_some_and(|stamp| !ledger.has(LAST_CHECKPOINT, &stamp));
        if never_uploaded && !overwrite {
            let operand = format!("the working folder {}", folder.display());
            let rule = format!(
                "the last checkpoint of an earlier run {} is in it, which never got there: move it \
                 away, or --overwrite deletes it",
                self.at
            );
            return Err(Error::invalid(operand, "not empty", rule));
        }
        clear_all(folder)
    }

    fn permit(&self, listing: &Listing, overwrite: bool) -> Result<()> {
        match &listing.marker {
            Some(_) if overwrite => Ok(()),
            Some(_) => {
                let rule = "a new one needs another name; --resume continues it, --overwrite \
                            deletes it";
                Err(Error::invalid(format!("the run folder {}", self.at), "a run already", rule))
            }
            None if listing.files.is_empty() => Ok(()),
            None => Err(self.others()),
        }
    }

    /// Something else is there.
    pub(super) fn others(&self) -> Error {
        let rule = format!(
            "no run was begun there (it has no {MARKER}), so what is there is left alone (with \
             --resume and --overwrite too); give a name under which nothing is"
        );
        Error::invalid(format!("the run folder {}", self.at), "not empty", rule)
    }

    /// Makes this process the one that writes to the run, of which `run` is the working folder, and
    /// begins to upload what it saves.
    ///
    /// # Errors
    /// Another process began a run there at the same time; no right to write.
    pub fn claim(self, run: &RunDir, is_new: bool) -> Result<Mirror> {
        let folder = self.folder.clone();
        Snapshot::delete_all(&folder)?;
        let writer = Writer::this_process();
        let mut ledger = Ledger::read(&folder, &self.name()).unwrap_or_default();
        ledger.run = self.name();
        // First here: killed behind the next lines, this machine knows that it was the last.
        ledger.claiming = Some(writer.clone());
        ledger.write(&folder)?;
        run.set_writer(writer.clone())?;
        let path = folder.join(MARKER);
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        match is_new {
            true => self.put_first_marker(bytes, &writer)?,
            false => self.storage.put(&self.at.join(MARKER)?, bytes)?,
        }
        (ledger.writer, ledger.claiming) = (Some(writer.clone()), None);
        ledger.write(&folder)?;
        Mirror::start(Uploader::new(self, writer, ledger))
    }

    /// Writes `run.json` where none is: of two processes that begin a run at once, one does.
    fn put_first_marker(&self, bytes: Vec<u8>, writer: &Writer) -> Result<()> {
        let at = self.at.join(MARKER)?;
        match self.storage.create(&at, bytes.clone()) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            // Some stores have no such condition.
            Err(storage::Error::Refused { .. }) => return Ok(self.storage.put(&at, bytes)?),
            Err(error) => return Err(error.into()),
        }
        // Ours, if an answer was lost.
        if self.marker()?.and_then(|marker| marker.writer).as_ref() == Some(writer) {
            return Ok(());
        }
        let rule = "another process has just begun it: only one may write to it";
        Err(Error::invalid(format!("the run folder {}", self.at), "a run already", rule))
    }
}
