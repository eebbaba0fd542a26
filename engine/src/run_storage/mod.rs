//! Runs in object storage: a run works in a folder of this machine, of which a copy is kept there.
//!
//! Files are copied when they are whole, and a checkpoint's object is replaced at once, so that what
//! a name stands for there is always whole: numbers and settings first, `last` behind all other
//! checkpoints. `run.json` says who writes. A process that finds another's name there stops.

mod begin;
mod ledger;
mod mirror;
mod pull;
mod snapshot;
mod upload;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use storage::{Location, Object, Scheme, Storage};

use crate::distributed::host_name;
use crate::remote::{self, find, is_inside, location};
use crate::run_dir::{MARKER, Marker};
use crate::{Error, Result};

pub(crate) use ledger::LEDGER;
pub use mirror::Mirror;

/// Who writes to a run in storage. No two are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    host: String,
    process: u32,
    /// Nanoseconds since 1970.
    since: u64,
}

impl Writer {
    fn this_process() -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let since = now.map_or(0, |time| time.as_nanos() as u64);
        Writer { host: host_name(), process: std::process::id(), since }
    }
}

/// A run in storage, and the folder it works in.
pub struct StoredRun {
    storage: Storage,
    at: Location,
    folder: PathBuf,
}

/// What is there of a run, by the names that files have in its folder.
struct Listing {
    marker: Option<Marker>,
    files: Vec<(String, Object)>,
}

impl StoredRun {
    /// The run that `output` names, which works in `folder`; none if that is the run.
    ///
    /// # Errors
    /// No place for a run; settings of the store that can't be used.
    pub fn new(output: &Path, folder: &Path) -> Result<Option<Self>> {
        let Some(at) = location(output)? else { return Ok(None) };
        let at = at.as_folder();
        let refused = |rule: &str| Err(Error::invalid("output", at.to_string(), rule));
        if at.scheme() == Scheme::Http {
            return refused("a web server is read only: runs are written to s3://, gs:// or az://");
        }
        if at.key().is_empty() {
            return refused("a run needs a folder in the bucket: s3://bucket/runs/first");
        }
        Ok(Some(StoredRun { storage: remote::open()?, at, folder: folder.to_owned() }))
    }

    /// The run's name, the same however it is written.
    fn name(&self) -> String {
        self.at.to_string()
    }

    /// The job that last wrote to the run, if one did.
    ///
    /// # Errors
    /// [`Error::Storage`].
    pub fn owner(&self) -> Result<Option<String>> {
        Ok(self.marker()?.and_then(|marker| marker.job))
    }

    /// `run.json` there, if it is one of ours.
    fn marker(&self) -> Result<Option<Marker>> {
        let Some(object) = find(&self.storage, &self.at.join(MARKER)?)? else { return Ok(None) };
        // A stranger's may be of any size.
        if object.size > 1 << 20 {
            return Ok(None);
        }
        Ok(Marker::parse(&self.storage.read(&object, 0..object.size)?))
    }

    fn listing(&self) -> Result<Listing> {
        let marker = self.marker()?;
        let found = self.storage.list(&self.at, |_| {})?;
        let named = found.into_iter().filter_map(|object| {
            let name = object.location.name_in(&self.at)?.to_owned();
            is_inside(&name).then_some((name, object))
        });
        Ok(Listing { marker, files: named.collect() })
    }
}

impl Listing {
    fn get(&self, name: &str) -> Option<&Object> {
        self.files.iter().find(|(other, _)| other == name).map(|(_, object)| object)
    }
}
