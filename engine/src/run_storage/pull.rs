//! A run that goes on, perhaps on another machine: what of it is in storage comes here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use data::Temporary;
use storage::Object;

use super::ledger::{Known, Ledger, Stamp};
use super::snapshot::file_names;
use super::{Listing, StoredRun};
use crate::checkpoint::step_of;
use crate::remote::download;
use crate::run_dir::{LAST_CHECKPOINT, MARKER, Marker, lock};
use crate::{Error, Result};

/// Of the folders in a run's what it needs to go on: these checkpoints.
const CHECKPOINTS: [&str; 3] =
    [LAST_CHECKPOINT, "checkpoints/best.safetensors", "checkpoints/best-ema.safetensors"];

/// Times that a run is looked at which another process goes on writing.
const ATTEMPTS: usize = 20;

impl StoredRun {
    /// Makes the working folder a copy of what the run needs to go on. One that this machine wrote
    /// last is that already, or further.
    ///
    /// # Errors
    /// No run there, or one that has lost its last checkpoint; a folder with steps that never got
    /// there, or with a stranger's files; [`Error::Storage`].
    pub fn pull(&self) -> Result<()> {
        for attempt in 1..ATTEMPTS {
            match self.pull_once(attempt == 1) {
                // Whoever writes to it has saved a checkpoint meanwhile: that one is wanted.
                Err(Error::Storage(storage::Error::Changed { .. })) => {}
                result => return result,
            }
        }
        self.pull_once(false)
    }

    fn pull_once(&self, told: bool) -> Result<()> {
        let listing = self.listing()?;
        let Some(marker) = &listing.marker else { return Err(self.absent(&listing)) };
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let _lock = lock(folder)?;
        let ledger = Ledger::read(folder, &self.name());
        let is_current = |ledger: &Ledger| ledger.is_of(marker.writer.as_ref());
        if ledger.as_ref().is_some_and(is_current) && Marker::read(folder).is_some() {
            return Ok(());
        }
        if ledger.is_none() && !file_names(folder)?.is_empty() {
            let operand = format!("the working folder {}", folder.display());
            let rule =
                format!("it is no copy of {}: move it away, or name another --work-dir", self.at);
            return Err(Error::invalid(operand, "not empty", rule));
        }
        if marker.saved && listing.get(LAST_CHECKPOINT).is_none() {
            return Err(self.lost(&listing));
        }
        let mut ledger = ledger.unwrap_or_default();
        if ledger.writer.is_some() {
            self.keep_what_never_got_there(&ledger, &listing)?;
        }
        ledger.run = self.name();
        (ledger.writer, ledger.claiming) = (None, None);
        ledger.write(folder)?;
        if told {
            eprintln!("fetching {} into {}", self.at, folder.display());
        }
        ledger.objects = self.copy_of(&listing, &ledger)?;
        ledger.write(folder)
    }

    /// Fetches what is needed and not here yet, and deletes the rest.
    fn copy_of(&self, listing: &Listing, ledger: &Ledger) -> Result<BTreeMap<String, Known>> {
        // What is hidden is no run's, however it came there.
        let is_needed = |name: &str| {
            CHECKPOINTS.contains(&name) || !name.contains('/') && !name.starts_with('.')
        };
        for name in file_names(&self.folder)? {
            if !is_needed(&name) || listing.get(&name).is_none() {
                let path = self.folder.join(&name);
                fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        let mut objects = BTreeMap::new();
        // It says that this is a run's folder: last.
        let (markers, others): (Vec<_>, Vec<_>) =
            listing.files.iter().partition(|(name, _)| name == MARKER);
        for (name, object) in others.into_iter().chain(markers) {
            let path = self.folder.join(name);
            let version = Some(object.version());
            let known = ledger.objects.get(name).filter(|known| {
                known.version == version && known.file.is_some() && known.file == Stamp::at(&path)
            });
            if known.is_none() && is_needed(name) {
                self.fetch(object, &path)?;
            }
            let file = Stamp::at(&path).filter(|_| is_needed(name));
            objects.insert(name.clone(), Known { version, file });
        }
        Ok(objects)
    }

    fn fetch(&self, object: &Object, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        download(&self.storage, object, path)
    }

    /// Refuses to replace a last checkpoint that was never uploaded by one of fewer steps.
    fn keep_what_never_got_there(&self, ledger: &Ledger, listing: &Listing) -> Result<()> {
        let last = self.folder.join(LAST_CHECKPOINT);
        let Some(stamp) = Stamp::at(&last).filter(|stamp| !ledger.has(LAST_CHECKPOINT, stamp))
        else {
            return Ok(());
        };
        let here = step_of(&last);
        let there = match listing.get(LAST_CHECKPOINT) {
            None => None,
            Some(object) => {
                let temporary = Temporary::beside(&last);
                download(&self.storage, object, &temporary.0)?;
                step_of(&temporary.0)
            }
        };
        if here <= there {
            return Ok(());
        }
        let step = |step: Option<u64>| step.map_or("none".into(), |step| format!("step {step}"));
        Err(Error::data(format!(
            "the last checkpoint in {} is that of {}, and was taken over by another process; that \
             of the copy in {} is that of {} ({} bytes) and never got there. Either go on with the \
             copy, in a new run: `train --resume {} --output NEW`; or move that folder away, and \
             --resume goes on with what is in storage",
            self.at,
            step(there),
            self.folder.display(),
            step(here),
            stamp.bytes,
            last.display(),
        )))
    }

    /// There is no run in storage.
    fn absent(&self, listing: &Listing) -> Error {
        if !listing.files.is_empty() {
            return self.others();
        }
        let last = self.folder.join(LAST_CHECKPOINT);
        let copy = match last.exists() {
            true => format!("; a copy is left here: --resume {} goes on from it", last.display()),
            false => String::new(),
        };
        let rule = format!("--resume continues a run that was begun there{copy}");
        Error::invalid(format!("the run folder {}", self.at), "empty or absent", rule)
    }

    /// Its last checkpoint is gone.
    fn lost(&self, listing: &Listing) -> Error {
        let others: Vec<String> = listing
            .files
            .iter()
            .filter(|(name, _)| name.starts_with("checkpoints/"))
            .map(|(_, object)| object.location.to_string())
            .collect();
        let ways = match others.first() {
            None => {
                "no other checkpoint is beside it: --overwrite in place of --resume deletes the \
                     run and begins anew"
                    .to_owned()
            }
            Some(one) => format!(
                "beside it are {}: go on from one of them in a new run with `train --resume {one} \
                 --output NEW`",
                others.join(", ")
            ),
        };
        Error::data(format!("{}{LAST_CHECKPOINT} is gone; {ways}", self.at))
    }
}
