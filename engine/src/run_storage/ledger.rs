//! What a working folder knows of the run in storage that it is a copy of.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::Writer;
use crate::Result;

/// The ledger's file in the working folder.
pub const LEDGER: &str = ".storage.json";

/// What is known of each object, and who wrote them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// The run in storage.
    pub run: String,
    /// The process that writes to the run from this folder, or did so last. None of a copy from
    /// which nothing was written yet: then what is in storage counts.
    pub writer: Option<Writer>,
    /// The process that was about to become that, and may not have got so far.
    #[serde(default)]
    pub claiming: Option<Writer>,
    /// The objects, by the names that their files have in the folder.
    pub objects: BTreeMap<String, Known>,
}

/// An object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Its version, if the store tells.
    pub version: Option<String>,
    /// The file that it has the content of; none if that isn't here.
    pub file: Option<Stamp>,
}

/// By what a file's content is known again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Length in bytes.
    pub bytes: u64,
    /// When it was written, in nanoseconds since 1970.
    modified: u64,
    /// Its number in the file system: a file that replaces another has one of its own.
    number: u64,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let modified = modified.map_or(0, |time| time.as_nanos() as u64);
        Stamp { bytes: metadata.len(), modified, number: number(metadata) }
    }

    /// That of the file at `path`, if there is one.
    pub fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().filter(Metadata::is_file).map(|found| Self::of(&found))
    }
}

#[cfg(unix)]
fn number(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &Metadata) -> u64 {
    0
}

impl Ledger {
    /// That of `folder`, if it is of `run`.
    pub fn read(folder: &Path, run: &str) -> Option<Self> {
        let bytes = std::fs::read(folder.join(LEDGER)).ok()?;
        serde_json::from_slice::<Ledger>(&bytes).ok().filter(|ledger| ledger.run == run)
    }

    /// # Errors
    /// [`crate::Error::Input`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = serde_json::json!(self).to_string();
        Ok(data::write_file(&folder.join(LEDGER), text.as_bytes())?)
    }

    /// Whether this folder's was the last process that wrote to the run, if `writer` was.
    pub fn is_of(&self, writer: Option<&Writer>) -> bool {
        let own = [self.writer.as_ref(), self.claiming.as_ref()];
        writer.is_some() && own.contains(&writer)
    }

    /// Whether the object `name` has what the file stamped so holds.
    pub fn has(&self, name: &str, file: &Stamp) -> bool {
        self.objects.get(name).is_some_and(|known| known.file.as_ref() == Some(file))
    }
}
