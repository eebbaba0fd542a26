//! What tests do with a hub: put folders on it, and let programs find it.

use std::io;
use std::path::Path;
use std::process::Command;

use crate::{File, Hub};

impl Hub {
    /// Puts the files that lie in `folder` on the branch `main` of `owner/name`, as `hf upload`
    /// does: texts on the hub itself, all else on the CDN.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn upload(&self, id: &str, folder: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let bytes = std::fs::read(entry.path())?;
                let is_text = name.ends_with(".md") || name.ends_with(".json");
                files.push((name, if is_text { File::small(bytes) } else { File::large(bytes) }));
            }
        }
        let files: Vec<(&str, File)> = files.iter().map(|(n, f)| (n.as_str(), f.clone())).collect();
        self.change(id, |repo| {
            repo.commit("main", &files);
        });
        Ok(())
    }

    /// Runs `command` as somebody does who has nothing set but where this hub is, and that its
    /// files are kept below `home`.
    pub fn show_to<'a>(&self, command: &'a mut Command, home: &Path) -> &'a mut Command {
        show_to(command, &self.endpoint(), home)
    }
}

/// The same of a hub at `endpoint`.
pub fn show_to<'a>(command: &'a mut Command, endpoint: &str, home: &Path) -> &'a mut Command {
    let variables = std::env::vars_os().map(|(name, _)| name);
    let foreign = variables.filter(|name| {
        let name = name.to_string_lossy().to_uppercase();
        name.starts_with("HF_") || name.ends_with("_PROXY") || name == "TRANSFORMERS_OFFLINE"
    });
    for name in foreign {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", endpoint).env("HF_HOME", home)
}
