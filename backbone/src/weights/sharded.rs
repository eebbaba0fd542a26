//! Weights in several files: an index says which tensor lies in which.
//! Reference: huggingface_hub `serialization`, `*.index.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::report::some_of;
use super::{Format, StateDict, WeightFile, detect};
use crate::{Error, Result};

/// What the names of indices end in.
pub(super) const INDEX: &str = ".index.json";
/// An index names a tensor in some 100 bytes: more is none.
const LARGEST_INDEX: u64 = 100 << 20;

/// Whether the JSON text at `path` is an index.
pub(super) fn is_index(path: &Path) -> bool {
    parse(path).is_ok_and(|json| json.get("weight_map").is_some())
}

/// The only index in `folder`, if there is one.
///
/// # Errors
/// There are several.
pub(super) fn index_in(folder: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|source| Error::io(folder, source))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let is_index = |name: &std::ffi::OsString| name.as_encoded_bytes().ends_with(INDEX.as_bytes());
    let found: BTreeSet<_> = names.filter(is_index).collect();
    let usual = |name: &str| found.contains(std::ffi::OsStr::new(name)).then(|| name.into());
    // What transformers prefers where a folder has both forms.
    let usual = usual("model.safetensors.index.json").or(usual("pytorch_model.bin.index.json"));
    match (usual, found.len()) {
        (Some(name), _) => Ok(Some(folder.join::<std::ffi::OsString>(name))),
        (None, 0) => Ok(None),
        (None, 1) => Ok(found.first().map(|name| folder.join(name))),
        _ => Err(Error::format(folder, "a folder with several *.index.json: give one of them")),
    }
}

fn parse(path: &Path) -> Result<Value> {
    let size = std::fs::metadata(path).map_err(|source| Error::io(path, source))?.len();
    if size > LARGEST_INDEX {
        return Err(Error::format(path, format!("an index of {size} bytes, which none has")));
    }
    let text = std::fs::read(path).map_err(|source| Error::io(path, source))?;
    let problem = |e| Error::format(path, format!("not the JSON of an index: {e}"));
    serde_json::from_slice(&text).map_err(problem)
}

/// Reads the index at `path` and every file it names, from the folder it lies in.
///
/// # Errors
/// [`Error::Format`] naming index, file and tensor: a file that is missing, lies
/// elsewhere or cannot be read, a tensor that is not where the index says.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    if path.is_dir() {
        let index = index_in(path)?;
        return read(&index.ok_or_else(|| Error::format(path, "a folder without an index"))?);
    }
    let refuse = |problem: String| Error::format(path, problem);
    let json = parse(path)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| refuse("an index whose \"weight_map\" is no object".into()))?;
    let mut shards: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, shard) in map {
        let shard = shard.as_str().ok_or_else(|| {
            refuse(format!("\"weight_map\" has {shard} for {name:?}, but it must name a file"))
        })?;
        shards.entry(shard).or_default().push(name);
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let places = places(folder, &shards).map_err(refuse)?;

    let mut whole = WeightFile::from_tensors(path, StateDict::new());
    whole.format = Format::Sharded;
    for ((shard, names), place) in shards.iter().zip(places) {
        let file = super::read(&place)?;
        let has = |name: &str| file.tensors.contains_key(name) || file.left_out.contains_key(name);
        let absent: Vec<String> =
            names.iter().filter(|name| !has(name)).map(|name| format!("{name:?}")).collect();
        if !absent.is_empty() {
            return Err(refuse(format!(
                "{shard} has no {}, which the index says",
                some_of(&absent)
            )));
        }
        take_in(&mut whole, file, shard, map).map_err(refuse)?;
    }
    if let Some(metadata) = json.get("metadata").and_then(Value::as_object) {
        for (key, value) in metadata {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            whole.metadata.insert(key.clone(), text);
        }
    }
    whole.metadata.insert("files".into(), shards.len().to_string());
    Ok(whole)
}

/// Where the files lie; all of them, before the first is read.
fn places(
    folder: &Path,
    shards: &BTreeMap<&str, Vec<&str>>,
) -> std::result::Result<Vec<PathBuf>, String> {
    let mut missing = Vec::new();
    let mut places = Vec::new();
    for &shard in shards.keys() {
        let parts = Path::new(shard).components();
        if shard.is_empty() || !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
            return Err(format!("the index names {shard:?}, but files lie in the index's folder"));
        }
        let place = folder.join(shard);
        if !place.is_file() {
            missing.push(shard.to_owned());
        } else if !matches!(detect::format_of(&place), Ok(Format::Sharded)) {
            places.push(place);
        } else {
            return Err(format!("the index names {shard:?}, which is an index again"));
        }
    }
    if missing.is_empty() {
        return Ok(places);
    }
    Err(format!(
        "{} of the {} files that the index names are missing: {}. Fetch them into its folder",
        missing.len(),
        shards.len(),
        some_of(&missing)
    ))
}

/// Adds a shard's tensors. Where two have one of the same name, the index decides;
/// the other is told.
fn take_in(
    whole: &mut WeightFile,
    file: WeightFile,
    shard: &str,
    map: &serde_json::Map<String, Value>,
) -> std::result::Result<(), String> {
    whole.left_out.extend(file.left_out);
    for (name, tensor) in file.tensors {
        match map.get(&name).and_then(Value::as_str) {
            Some(owner) if owner != shard => {
                let why = format!("is there too; the index takes it from {owner}");
                whole.left_out.insert(format!("{shard}: {name}"), why);
            }
            None if whole.tensors.contains_key(&name) => {
                return Err(format!(
                    "{name:?} is in {shard} and in a file before, and not in the index"
                ));
            }
            _ => drop(whole.tensors.insert(name, tensor)),
        }
    }
    Ok(())
}
