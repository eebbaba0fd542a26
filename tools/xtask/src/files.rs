//! The file system's calls, with errors that name the file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The text of a file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file whole or not at all: renaming replaces the old one in one step, whatever happens
/// meanwhile.
pub fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let new = path.with_added_extension(std::process::id().to_string());
    write(&new, content)?;
    rename(&new, path)
}

/// Gives a file another name.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Copies a file.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Makes a folder and those that it lies in, as far as they are not there.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
