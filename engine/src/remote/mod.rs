//! Files that lie elsewhere: `hf:owner/name` on a Hugging Face hub, `s3://bucket/key` and its like in
//! object storage. Whatever reads weights, networks or settings calls [`local`] first.

mod fetch;
mod kept;
mod output;
mod store;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use backbone::hub;
use backbone::models::{self, Model};
use storage::Location;

use crate::{Error, Result};

pub(crate) use fetch::{bar, download, is_inside};
pub use output::Output;
pub(crate) use store::{find, open};

/// Whether `path` names something in object storage or on a web server: everything that begins as
/// `word://`.
pub fn is_url(path: impl AsRef<Path>) -> bool {
    path.as_ref().to_str().is_some_and(Location::is_one)
}

/// Whether `path` names something on another machine: on a hub, in object storage, or on a web
/// server.
pub fn is_name(path: impl AsRef<Path>) -> bool {
    hub::is_name(&path) || is_url(&path)
}

/// What `path` names in a store; none if it is of this machine, or on a hub.
///
/// # Errors
/// [`Error::Storage`] for an unknown scheme, or a name that no object has.
pub(crate) fn location(path: &Path) -> Result<Option<Location>> {
    let text = path.to_str().filter(|text| Location::is_one(text));
    Ok(text.map(Location::parse).transpose()?)
}

/// Which checkpoints of a run's folder are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The last.
    Last,
    /// The best, of weights and of their averages; the last where there is none.
    Best,
}

/// `path` itself, or where on this machine lies what it names elsewhere, once that is fetched: a
/// file (of an index, with its parts), a timm folder, or a run's folder with its last checkpoint.
///
/// What was fetched from object storage is kept in the user's cache folder, by name and ETag, and
/// fetched again when it has changed; processes of one machine fetch it once.
///
/// # Errors
/// Those of [`hub::local`]; [`Error::Storage`]: there is no such object, no right to read it, or a
/// store that does not answer; a cache folder that can't be written.
pub fn local(path: &Path) -> Result<Cow<'_, Path>> {
    local_with(path, Wanted::Last)
}

/// The same, of a run's folder with the checkpoints that are `wanted`.
///
/// # Errors
/// As [`local`].
pub fn local_with(path: &Path, wanted: Wanted) -> Result<Cow<'_, Path>> {
    match location(path)? {
        Some(at) => Ok(Cow::Owned(fetch::fetch(&at, wanted)?)),
        None => Ok(hub::local(path)?),
    }
}

/// The model called `name`, as [`models::find`], whose `.pt2` file may lie in object storage.
///
/// # Errors
/// Those of [`local`] and [`models::find`].
pub fn find_model(name: &str) -> Result<Model> {
    let Some((path, stages)) = models::file_parts(name).filter(|(path, _)| is_url(path)) else {
        return Ok(models::find(name)?);
    };
    let path = local(Path::new(path))?;
    let path = path.to_str().ok_or_else(|| {
        let rule = "a model's name must be text";
        Error::invalid("the user's cache folder", path.display().to_string(), rule)
    })?;
    let name = stages.map_or(path.to_owned(), |stages| format!("{path}:{stages}"));
    Ok(models::find(&name)?)
}

/// Refuses to write `path` if it is a name on another machine.
///
/// # Errors
/// It is one.
pub fn check_is_here(path: &Path) -> Result<()> {
    if !is_name(path) {
        return Ok(());
    }
    let rule = "only runs (`train`) and exports (`export`) are written to object storage: name a \
                file or folder of this machine";
    Err(Error::invalid("output", path.display().to_string(), rule))
}

/// The folder on this machine that a run called `output` works in: `output` itself or, if that is
/// in object storage, one of its own in `work`, by default `spark-backbone/runs` in the user's
/// cache folder.
///
/// # Errors
/// An unknown scheme; neither `work` nor a cache folder of the user's.
pub fn working_folder(output: &Path, work: &Path) -> Result<PathBuf> {
    let Some(at) = location(output)? else { return Ok(output.to_owned()) };
    let folder = match work.as_os_str().is_empty() {
        true => kept::user_folder("runs").ok_or_else(|| {
            let rule = "a run in object storage works in a folder of this machine: name one with \
                        --work-dir";
            Error::invalid("the user's cache folder", "unknown (no XDG_CACHE_HOME, no HOME)", rule)
        })?,
        false => std::path::absolute(work).map_err(|e| Error::io(work, e))?,
    };
    // Without the slash that may end it: the same run.
    let name = format!("{}/{}", at.store(), at.key());
    Ok(folder.join(kept::readable(&name)))
}
