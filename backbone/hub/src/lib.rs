//! Reads model files from a Hugging Face hub.
//!
//! `hf:owner/name[@revision][/file]` names a repository or a file in it; [`fetch`] brings it into
//! the cache folder that Python's huggingface_hub uses, in the same layout and under the same
//! locks, so that each finds what the other has fetched. A download that broke off is continued,
//! and nothing is used before its length and hash are those that the hub announced. Nothing is
//! sent but requests for files; the token goes to the hub alone.
//!
//! Reference: huggingface_hub `file_download.py`, and the hub's `resolve` addresses.

mod cache;
mod choose;
mod client;
mod download;
mod error;
mod name;
mod repo;
mod retry;
mod settings;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub use choose::Want;
pub use error::{Error, Result};
pub use name::{Name, PREFIX};
pub use settings::{Settings, Token};

use choose::{CONFIG, INDEX, choose};
use name::is_relative;
use repo::Repo;

/// Whether `text` names something on a hub.
pub fn is_name(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Where what `name` says lies on this machine, once it is fetched. If it names no file, that is
/// what `want` says among the files that lie in no folder: `model.safetensors` or the index of
/// its parts, the only other `.safetensors`, then `pytorch_model.bin` and other pickled files,
/// then `.pt2`. With a `config.json` beside it the folder of both is returned.
///
/// The hub is asked each time whether the revision has changed, unless that is a commit or the
/// hub is not to be asked; if it does not answer, what was fetched before is taken.
///
/// # Errors
/// No such repository, revision or file (with a list of those that there are), or no right to
/// read it; a hub that does not answer; bytes that are not the announced ones; a cache folder
/// that can't be written.
pub fn fetch(name: &Name, want: Want, settings: &Settings) -> Result<PathBuf> {
    let repo = Repo::new(name, settings);
    let revision = name.revision();
    if let Some(file) = &name.file {
        let (commit, path) = repo.file(revision, file)?;
        fetch_shards(&repo, &commit, file, &path)?;
        repo.cache.note(revision, &commit);
        return Ok(path);
    }
    let (commit, files) = repo.listing()?;
    let choice = choose(&files, want)
        .map_err(|problem| Error::Refused { name: name.to_string(), problem })?;
    let (_, path) = repo.file(&commit, &choice.file)?;
    fetch_shards(&repo, &commit, &choice.file, &path)?;
    if choice.with_config {
        repo.file(&commit, CONFIG)?;
    }
    repo.cache.note(revision, &commit);
    Ok(if choice.with_config { repo.cache.snapshot(&commit) } else { path })
}

/// Fetches the files that an index names, which lie in its folder.
fn fetch_shards(repo: &Repo, commit: &str, file: &str, path: &Path) -> Result<()> {
    if !file.ends_with(INDEX) {
        return Ok(());
    }
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    // Whoever reads the weights says what is wrong with an index.
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let map = json["weight_map"].as_object();
    let shards = map.into_iter().flat_map(|map| map.values()).filter_map(Value::as_str);
    let shards: BTreeSet<&str> = shards.filter(|shard| is_relative(shard)).collect();
    let folder = file.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    shards
        .into_iter()
        .try_for_each(|shard| repo.file(commit, &format!("{folder}{shard}")).map(drop))
}
