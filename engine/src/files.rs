//! Image files by what people call them: names, folders, patterns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Endings of the files that are taken out of folders.
const ENDINGS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// An image file, and what is called like it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Relative to the folder that was named; of two files of one name the
    /// second is called `name-2`.
    pub name: PathBuf,
}

/// The images that the arguments name, each once: files, folders at any depth,
/// and patterns such as `photos/*.jpg`.
///
/// # Errors
/// [`Error::Data`] for an argument that names no images, [`Error::Io`].
pub fn image_files(arguments: &[PathBuf]) -> Result<Vec<ImageFile>> {
    let mut found = BTreeSet::new();
    for argument in arguments {
        let before = found.len();
        if argument.is_dir() {
            in_folder(argument, argument, &mut found)?;
            require(found.len() > before, || {
                format!("{} holds no images ({})", argument.display(), ENDINGS.join(", "))
            })?;
        } else if argument.exists() {
            found.insert(image_file(argument));
        } else {
            let pattern = argument.to_string_lossy();
            require(pattern.contains(['*', '?', '[']), || {
                format!(
                    "{} is not there: name an image, a folder, or a pattern such as 'photos/*.jpg'",
                    argument.display()
                )
            })?;
            let matches = glob::glob(&pattern).map_err(|error| {
                Error::Data(format!("{pattern} is no pattern of file names: {error}"))
            })?;
            for path in matches {
                let path = path.map_err(unreadable)?;
                if path.is_file() {
                    found.insert(image_file(&path));
                }
            }
            require(found.len() > before, || format!("no file matches {pattern}"))?;
        }
    }
    // Of two files of one name in different folders each keeps its own picture.
    let mut names = BTreeSet::new();
    let mut files: Vec<ImageFile> = found.into_iter().collect();
    for file in &mut files {
        let wanted = file.name.clone();
        let mut number = 1;
        while !names.insert(file.name.clone()) {
            number += 1;
            let stem = wanted.file_stem().unwrap_or_default().to_string_lossy();
            let ending = wanted.extension().unwrap_or_default().to_string_lossy();
            file.name = wanted.with_file_name(format!("{stem}-{number}.{ending}"));
        }
    }
    Ok(files)
}

fn image_file(path: &Path) -> ImageFile {
    ImageFile { path: path.to_owned(), name: path.file_name().unwrap_or_default().into() }
}

/// All images in `folder`, at any depth.
fn in_folder(folder: &Path, root: &Path, found: &mut BTreeSet<ImageFile>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if path.is_dir() {
            in_folder(&path, root, found)?;
        } else if ENDINGS.contains(&ending.to_ascii_lowercase().as_str()) {
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            found.insert(ImageFile { path, name });
        }
    }
    Ok(())
}

fn require(holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Data(problem())) }
}

fn unreadable(error: glob::GlobError) -> Error {
    let path = error.path().to_owned();
    Error::io(path, error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_folders_and_patterns_name_images_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir(path("deep")).unwrap();
        for name in ["a.jpg", "b.PNG", "notes.txt", "deep/a.jpg"] {
            std::fs::write(path(name), b"").unwrap();
        }
        let names = |arguments: &[PathBuf]| -> Vec<String> {
            let found = image_files(arguments).unwrap();
            found.iter().map(|file| file.name.to_string_lossy().into_owned()).collect()
        };
        assert_eq!(names(&[folder.path().to_owned()]), ["a.jpg", "b.PNG", "deep/a.jpg"]);
        assert_eq!(names(&[path("notes.txt")]), ["notes.txt"], "a file that is named is taken");
        assert_eq!(names(&[path("*.jpg"), path("a.jpg")]), ["a.jpg"]);
        assert_eq!(names(&[path("**/a.jpg")]), ["a.jpg", "a-2.jpg"]);
        for (argument, problem) in
            [("c.jpg", "is not there"), ("*.webp", "no file matches"), ("[", "is no pattern")]
        {
            let error = format!("{:#}", image_files(&[path(argument)]).unwrap_err());
            assert!(error.contains(problem), "{argument}: {error}");
        }
        std::fs::remove_file(path("deep/a.jpg")).unwrap();
        let error = image_files(&[path("deep")]).unwrap_err().to_string();
        assert!(error.contains("holds no images"), "{error}");
    }
}
