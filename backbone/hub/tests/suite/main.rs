//! Against a hub on the loopback interface.
#![allow(missing_docs)]

mod downloads;
mod reading;
mod refusals;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hub::{Result, Settings, Want};
use tempfile::TempDir;
use test_hub::{File, Hub, Request, Side};

/// A hub, and an empty cache.
struct Place {
    hub: Hub,
    settings: Settings,
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let (hub, folder) = (Hub::start(), tempfile::tempdir().unwrap());
        let settings = Settings {
            endpoint: hub.endpoint(),
            token: None,
            cache: folder.path().join("hub"),
            offline: false,
            progress: false,
            patience: Duration::from_millis(500),
            pause: Duration::from_millis(5),
        };
        Place { hub, settings, folder }
    }

    /// With `a/b`, whose weights are `bytes`.
    fn with_weights(bytes: &[u8]) -> Self {
        let readme = ("README.md", File::small("read me"));
        Self::with(&[readme, ("model.safetensors", File::large(bytes))])
    }

    /// With `a/b`, which has these files.
    fn with(files: &[(&str, File)]) -> Self {
        let place = Self::new();
        place.hub.change("a/b", |repo| {
            repo.commit("main", files);
        });
        place
    }

    fn fetch(&self, name: &str) -> Result<PathBuf> {
        hub::fetch(&name.parse()?, Want::Weights, &self.settings)
    }

    fn refusal(&self, name: &str) -> String {
        self.fetch(name).unwrap_err().to_string()
    }

    /// What lies in the cache below the folder of `a/b`.
    fn kept(&self) -> PathBuf {
        self.folder.path().join("hub/models--a--b")
    }

    /// Names in a folder of [`Place::kept`], in order.
    fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.kept().join(folder)) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// Bytes that differ from each other.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * i / 7) as u8).collect()
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

/// Method and side of each request.
fn methods(requests: &[Request]) -> Vec<(&str, Side)> {
    requests.iter().map(|request| (request.method.as_str(), request.side)).collect()
}
