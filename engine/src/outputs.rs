//! What a program reads is never written over, and what it has written is told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::remote::check_is_here;
use crate::run_dir::display_path;
use crate::{Error, Result};

/// The files that a program reads, known again under any name: by other spellings of the path,
/// through links, in other letters where the file system takes these for the same.
#[derive(Debug, Default)]
pub struct Inputs(HashMap<FileId, PathBuf>);

/// Device and number of a file.
#[cfg(unix)]
type FileId = (u64, u64);
/// A file's path without links.
#[cfg(not(unix))]
type FileId = PathBuf;

impl Inputs {
    /// Those of `paths` that are there.
    pub fn new<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Self {
        let named = paths.into_iter().map(Into::into);
        Self(named.filter_map(|path: PathBuf| Some((file_id(&path)?, path))).collect())
    }

    /// Refuses `output` if writing it would write over an input, or if it is no file of this
    /// machine.
    ///
    /// # Errors
    /// [`Error::Input`] that names both.
    pub fn spare(&self, output: &Path) -> Result<()> {
        check_is_here(output)?;
        let Some(input) = file_id(output).and_then(|id| self.0.get(&id)) else { return Ok(()) };
        let (output, input) = (output.display(), input.display());
        Err(Error::data(format!(
            "{output} would be written over {input}, which is read: name another output"
        )))
    }
}

#[cfg(unix)]
fn file_id(path: &Path) -> Option<FileId> {
    use std::os::unix::fs::MetadataExt;
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

#[cfg(not(unix))]
fn file_id(path: &Path) -> Option<FileId> {
    std::fs::canonicalize(path).ok()
}

/// Makes a folder and those that it lies in, as far as they are not there.
///
/// # Errors
/// One cannot be made.
pub fn make_folder(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Says what was written, and where it lies.
pub fn print_written(written: &[(&str, PathBuf)]) {
    for (what, path) in written {
        println!("{what:<16} {}", display_path(path));
    }
}

/// Whether `path` is `folder` or lies in it, whatever links lead there. What is not there yet
/// lies where its folder does.
pub fn lies_in(path: &Path, folder: &Path) -> bool {
    let Ok(folder) = std::fs::canonicalize(folder) else { return false };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let real = path.ancestors().find_map(|ancestor| {
        let rest = path.strip_prefix(ancestor).ok()?;
        Some(std::fs::canonicalize(ancestor).ok()?.join(rest))
    });
    real.is_some_and(|real| real.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn an_input_is_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("deep")).unwrap();
        for name in ["read.png", "other.png"] {
            std::fs::write(path(name), b"x").unwrap();
        }
        std::os::unix::fs::symlink(path("read.png"), path("symbolic.png")).unwrap();
        std::os::unix::fs::symlink(folder.path(), path("loop")).unwrap();
        std::fs::hard_link(path("read.png"), path("hard.png")).unwrap();
        let inputs = Inputs::new([path("read.png"), path("missing.png")]);
        for same in ["read.png", "deep/../read.png", "symbolic.png", "hard.png", "loop/read.png"] {
            let message = inputs.spare(&path(same)).unwrap_err().to_string();
            assert!(message.contains("read.png, which is read"), "{same}: {message}");
        }
        for free in ["other.png", "missing.png", "deep"] {
            inputs.spare(&path(free)).unwrap();
        }
        for (inside, expected) in
            [("deep", true), ("deep/new/one", true), ("loop/deep", true), ("new", false)]
        {
            assert_eq!(lies_in(&path(inside), &path("deep")), expected, "{inside}");
        }
    }
}
