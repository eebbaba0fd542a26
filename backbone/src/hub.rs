//! Files on a Hugging Face hub, by `hf:owner/name[@revision][/file]`, wherever a path of weights or
//! of a network is taken. [`hub`] fetches and keeps them.

use std::borrow::Cow;
use std::path::Path;

pub use ::hub::{Error, Name, PREFIX, Settings, Token, Want, fetch};

use crate::Result;

/// Whether `path` names something on a hub. A file whose name begins like that is given as
/// `./hf:name`.
pub fn is_name(path: impl AsRef<Path>) -> bool {
    path.as_ref().to_str().is_some_and(::hub::is_name)
}

/// `path` itself, or where the weights that it names on a hub lie once they are fetched; a folder
/// if a configuration lies beside them. What reads weights calls it; a program that reads a file
/// twice calls it first, so that the hub is asked once.
///
/// # Errors
/// Those of [`fetch`], and of a variable such as `HF_ENDPOINT` that can't be used.
pub fn local(path: &Path) -> Result<Cow<'_, Path>> {
    local_of(path, Want::Weights, true)
}

/// The same of what `want` says; without a bar on the terminal for `progress` off.
///
/// # Errors
/// As [`local`].
pub fn local_of(path: &Path, want: Want, progress: bool) -> Result<Cow<'_, Path>> {
    let Some(name) = path.to_str().filter(|name| ::hub::is_name(name)) else {
        return Ok(Cow::Borrowed(path));
    };
    let settings = Settings::from_env(progress)?;
    Ok(Cow::Owned(fetch(&name.parse()?, want, &settings)?))
}
