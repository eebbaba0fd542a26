//! Which objects a name stands for, and how they come here.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use storage::{Location, Object, Scheme, Storage};

use super::Wanted;
use super::kept::Kept;
use super::store::{find, open};
use crate::run_dir::{LAST_CHECKPOINT, MARKER};
use crate::{Error, Result};

/// What takes no longer than a blink needs no bar, in bytes.
const SMALL: u64 = 8 << 20;
/// What the list of a file in parts ends in.
const INDEX: &str = ".index.json";
/// What makes a folder timm's or the hub's.
const CONFIG: &str = "config.json";
/// Its weights, in the order in which they are looked for.
const WEIGHTS: [&str; 5] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
];
/// Of a run's folder what is never read from afar: these folders.
const LEFT_OUT: [&str; 4] = ["checkpoints/", "export/", "pictures/", "tensorboard/"];
const BEST: [&str; 2] = ["checkpoints/best-ema.safetensors", "checkpoints/best.safetensors"];

/// How often a run is looked at anew that goes on meanwhile, and replaces what was listed.
const LOOKS: usize = 3;

/// Brings what `at` names here; where it lies.
///
/// # Errors
/// [`Error::Storage`], [`Error::Input`].
pub fn fetch(at: &Location, wanted: Wanted) -> Result<PathBuf> {
    let (storage, kept) = (open()?, Kept::of_user()?);
    let from = Source { storage: &storage, kept: &kept };
    for _ in 1..LOOKS {
        match from.any(at, wanted) {
            Err(Error::Storage(storage::Error::Changed { .. })) => {}
            other => return other,
        }
    }
    from.any(at, wanted)
}

/// Brings `object` to `path`, which is there whole or not at all; a bar for large ones, on a
/// terminal.
///
/// # Errors
/// [`Error::Storage`], [`Error::Input`].
pub fn download(storage: &Storage, object: &Object, path: &Path) -> Result<()> {
    let bar = bar(&object.location.to_string(), object.size);
    let copied = data::write_atomically(path, |temporary| {
        let bar = bar.clone();
        Ok::<_, Error>(storage.copy_to_file(object, temporary, move |bytes| bar.inc(bytes))?)
    });
    bar.finish_and_clear();
    copied
}

struct Source<'a> {
    storage: &'a Storage,
    kept: &'a Kept,
}

impl Source<'_> {
    /// A file, a run's folder or timm's.
    fn any(&self, at: &Location, wanted: Wanted) -> Result<PathBuf> {
        let folder = at.as_folder();
        let has_folders = at.scheme() != Scheme::Http;
        // A name without ending is more likely a folder's; some stores fail when asked for the
        // object of that name.
        let folder_first = at.is_folder() || !at.file_name().contains('.');
        if has_folders
            && folder_first
            && let Some(found) = self.folder(&folder, wanted)?
        {
            return Ok(found);
        }
        let mut missing = None;
        if !at.is_folder() {
            match self.storage.head(at) {
                Ok(object) => return self.file(at, &object),
                Err(error) if error.is_not_found() && has_folders => missing = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        if has_folders
            && !folder_first
            && let Some(found) = self.folder(&folder, wanted)?
        {
            return Ok(found);
        }
        let no_object = missing.map_or_else(|| at.to_string(), |error| error.to_string());
        Err(Error::data(format!(
            "{no_object}; and no folder of that name is a run's (with {MARKER}) or timm's (with {CONFIG} \
             and {})",
            WEIGHTS[0]
        )))
    }

    /// A run's folder or timm's, if it is one.
    fn folder(&self, folder: &Location, wanted: Wanted) -> Result<Option<PathBuf>> {
        if find(self.storage, &folder.join(MARKER)?)?.is_some() {
            return self.run(folder, wanted).map(Some);
        }
        let config = find(self.storage, &folder.join(CONFIG)?)?;
        config.map(|config| self.timm_folder(folder, &config)).transpose()
    }

    /// A file; with its parts if it is the list of these.
    fn file(&self, at: &Location, object: &Object) -> Result<PathBuf> {
        let name = at.file_name().to_owned();
        let blob = self.bring(object)?;
        let mut files = vec![(name.clone(), blob.clone())];
        if name.ends_with(INDEX) {
            files.extend(self.parts(&at.parent(), &blob)?);
        }
        Ok(self.kept.set(&at.to_string(), &files)?.join(name))
    }

    /// The files that an index names, which lie beside it.
    fn parts(&self, folder: &Location, index: &Path) -> Result<Vec<(String, PathBuf)>> {
        let bytes = std::fs::read(index).map_err(|e| Error::io(index, e))?;
        // Whoever reads the weights says what is wrong with an index.
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let map = json["weight_map"].as_object();
        let names = map.into_iter().flat_map(|map| map.values()).filter_map(Value::as_str);
        let names: BTreeSet<&str> = names.filter(|name| is_inside(name)).collect();
        let part = |name: &str| -> Result<(String, PathBuf)> {
            let at = folder.join(name)?;
            let object = find(self.storage, &at)?.ok_or_else(|| {
                Error::data(format!("{at} is missing, which the index beside it names"))
            })?;
            Ok((name.to_owned(), self.bring(&object)?))
        };
        names.into_iter().map(part).collect()
    }

    fn timm_folder(&self, folder: &Location, config: &Object) -> Result<PathBuf> {
        let mut files = vec![(CONFIG.to_owned(), self.bring(config)?)];
        for name in WEIGHTS {
            let Some(object) = find(self.storage, &folder.join(name)?)? else { continue };
            let blob = self.bring(&object)?;
            if name.ends_with(INDEX) {
                files.extend(self.parts(folder, &blob)?);
            }
            files.push((name.to_owned(), blob));
            break;
        }
        self.kept.set(&folder.to_string(), &files)
    }

    /// A run's folder: the checkpoints wanted, and all that lies in no folder of it.
    fn run(&self, folder: &Location, wanted: Wanted) -> Result<PathBuf> {
        let listing = self.storage.list(folder, |_| {})?;
        let names = listing.iter().map(|object| object.location.name_in(folder));
        let all: Vec<(&str, &Object)> =
            names.map(Option::unwrap_or_default).zip(&listing).collect();
        let has = |name: &str| all.iter().any(|(other, _)| *other == name);
        let mut checkpoints: Vec<&str> = match wanted {
            Wanted::Last => Vec::new(),
            Wanted::Best => BEST.into_iter().filter(|name| has(name)).collect(),
        };
        if checkpoints.is_empty() {
            checkpoints.push(LAST_CHECKPOINT);
        }
        if !has(checkpoints[0]) {
            return Err(Error::data(lost(folder, &all)));
        }
        let is_read = |name: &str| {
            let is_small = is_inside(name) && !LEFT_OUT.iter().any(|start| name.starts_with(start));
            is_small || checkpoints.contains(&name)
        };
        let files = all.iter().filter(|(name, _)| is_read(name));
        let files: Result<Vec<_>> =
            files.map(|(name, object)| Ok(((*name).to_owned(), self.bring(object)?))).collect();
        self.kept.set(&folder.to_string(), &files?)
    }

    /// Where the bytes of an object lie, once they have come.
    fn bring(&self, object: &Object) -> Result<PathBuf> {
        let name = object.location.to_string();
        let versions = self.kept.versions(&name, || {
            eprintln!("{name}: another process fetches it; waiting for that");
        })?;
        let path = versions.path(&object.version());
        if !path.is_file() {
            download(self.storage, object, &path)?;
            versions.delete_replaced_by(&path);
        }
        Ok(path)
    }
}

/// What a message says of a run without the checkpoint it should have.
fn lost(folder: &Location, all: &[(&str, &Object)]) -> String {
    let others = all.iter().filter(|(name, _)| name.starts_with("checkpoints/"));
    let others: Vec<String> = others.map(|(_, object)| object.location.to_string()).collect();
    match others.as_slice() {
        [] => format!("{folder} is a run that has no checkpoint yet"),
        _ => format!("the last checkpoint of {folder} is gone; there are {}", others.join(", ")),
    }
}

/// Whether it is a name that stays below the folder it is joined to.
pub fn is_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains(['\\', '\0'])
}

/// A bar that counts bytes, where standard error is a terminal and it is worth it.
pub fn bar(title: &str, bytes: u64) -> ProgressBar {
    let target = match bytes > SMALL && std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let template = "{msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(template);
    ProgressBar::with_draw_target(Some(bytes), target)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(title.to_owned())
}
