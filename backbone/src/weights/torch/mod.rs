//! PyTorch checkpoints (`.pth`, `.pt`, `.bin`) of every age. The pickle in them is
//! read as data; objects of unknown classes are passed over.

mod archive;
mod legacy;
mod rebuild;
mod tar;

use std::path::Path;

use super::pickle::Pickle;
use super::walk::Walk;
use super::{Format, WeightFile};
use crate::{Error, Result};

pub(crate) use rebuild::{Described, Rebuild, Storage, View};

/// Reads the checkpoint at `path`, already known to be of `format`.
///
/// # Errors
/// [`Error::Format`] when it is damaged or no checkpoint after all.
pub(crate) fn read(path: &Path, format: Format) -> Result<WeightFile> {
    let unreadable =
        |problem: String| Error::format(path, format!("a {format} that can't be read: {problem}"));
    let whole = || std::fs::read(path).map_err(|source| Error::io(path, source));
    match format {
        Format::TorchLegacy => {
            let bytes = whole()?;
            let legacy = legacy::Legacy::open(&bytes).map_err(unreadable)?;
            let walk = Walk::over(&legacy.pickle, Rebuild::default());
            walk.read(path, format, bytes.len(), &legacy)
        }
        Format::TorchTar => {
            let bytes = whole()?;
            let tar = tar::Tar::open(&bytes).map_err(unreadable)?;
            let (pickle, rebuild) = tar.pickle().map_err(unreadable)?;
            Walk::over(&pickle, rebuild).read(path, format, bytes.len(), &tar)
        }
        _ => {
            let archive = archive::Archive::open(path)?;
            let bytes = archive.pickle().map_err(unreadable)?;
            let pickle = Pickle::parse(&bytes)
                .map_err(|problem| unreadable(format!("its pickle is damaged: {problem}")))?;
            let walk = Walk::over(&pickle, Rebuild::default());
            walk.read(path, format, archive.size(), &archive)
        }
    }
}
