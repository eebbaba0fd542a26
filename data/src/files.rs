//! Image files by what people call them: names, folders, patterns.

mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use self::walk::{files_in, files_like};
use crate::{Error, Result};

/// Endings of the files that are taken out of folders.
const ENDINGS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// Longest file that is read into memory, in bytes.
pub const MAX_BYTES: u64 = 1 << 32;

/// An image file, and what is called like it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedImage {
    /// Where it lies.
    pub path: PathBuf,
    /// Relative to the folder that was named; of two files of one name the
    /// second is called `name-2`.
    pub name: PathBuf,
}

/// The images that the arguments name, each once: files, folders at any depth,
/// and patterns such as `photos/*.jpg`. A folder is read once, however many links
/// lead to it.
///
/// # Errors
/// [`Error::Data`] for an argument that names no images, [`Error::Io`].
pub fn image_files(arguments: &[PathBuf]) -> Result<Vec<NamedImage>> {
    // By whole path, since arguments may overlap.
    let mut found: BTreeMap<PathBuf, NamedImage> = BTreeMap::new();
    let mut add = |path: PathBuf, name: Option<PathBuf>| {
        let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = name.unwrap_or_else(|| path.file_name().unwrap_or_default().into());
        found.entry(whole).or_insert(NamedImage { path, name });
    };
    for argument in arguments {
        if argument.is_dir() {
            let mut files = files_in(argument)?;
            files.retain(|path| is_image(path));
            require(!files.is_empty(), || {
                format!("{} holds no images ({})", argument.display(), ENDINGS.join(", "))
            })?;
            for path in files {
                let name = path.strip_prefix(argument).ok().map(Path::to_owned);
                add(path, name);
            }
        } else if argument.exists() {
            add(argument.clone(), None);
        } else {
            let pattern = argument.to_string_lossy();
            require(pattern.contains(['*', '?', '[']), || {
                format!(
                    "{} is not there: name an image, a folder, or a pattern such as 'photos/*.jpg'",
                    argument.display()
                )
            })?;
            let files = files_like(argument)?;
            require(!files.is_empty(), || format!("no file matches {pattern}"))?;
            files.into_iter().for_each(|path| add(path, None));
        }
    }
    // Of two files of one name in different folders each keeps its own picture.
    let mut names = BTreeSet::new();
    let mut files: Vec<NamedImage> = found.into_values().collect();
    for file in &mut files {
        let wanted = file.name.clone();
        let mut number = 1;
        while !names.insert(file.name.clone()) {
            number += 1;
            let mut name: OsString = wanted.file_stem().unwrap_or_default().to_owned();
            name.push(format!("-{number}"));
            if let Some(ending) = wanted.extension() {
                name.push(".");
                name.push(ending);
            }
            file.name = wanted.with_file_name(name);
        }
    }
    Ok(files)
}

/// The files of a data set in COCO's layout that have the objects of `split`, in its folder
/// `annotations`: `instances_{split}.json`, or where that is not there all `instances_{split}*.json`.
///
/// # Errors
/// The folder cannot be read.
pub fn coco_annotations(annotations: &Path, split: &str) -> std::io::Result<Vec<PathBuf>> {
    let exact = annotations.join(format!("instances_{split}.json"));
    if exact.exists() {
        return Ok(vec![exact]);
    }
    let entries = std::fs::read_dir(annotations)?;
    let start = format!("instances_{split}");
    let is_named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&start) && name.ends_with(".json")
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths.filter(is_named).collect();
    found.sort();
    Ok(found)
}

fn is_image(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ENDINGS.contains(&ending.to_ascii_lowercase().as_str())
}

/// The bytes of the file at `path`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Image`] for a folder, a pipe, a socket or a device (which might never
/// end), and for more than [`MAX_BYTES`].
pub fn read_file(path: &Path) -> Result<Vec<u8>> {
    let io = |e| Error::io(path, e);
    // Opening a pipe waits for whoever writes to it, unless told otherwise.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a folder" } else { "a pipe, a socket or a device" };
        return Err(Error::image(path, format!("{what}, not a file")));
    }
    if metadata.len() > MAX_BYTES {
        let problem = format!("{} bytes long; at most {MAX_BYTES} are read", metadata.len());
        return Err(Error::image(path, problem));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

fn require(holds: bool, problem: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Data(problem())) }
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
        assert_eq!(names(&[path("*/a.jpg")]), ["a.jpg"]);
        let overlapping = [path("deep"), folder.path().to_owned(), path("deep/../deep/a.jpg")];
        assert_eq!(names(&overlapping[..2]), ["a.jpg", "b.PNG", "a-2.jpg"]);
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
    #[test]
    fn links_and_pipes_neither_repeat_nor_stop_it() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        let count = |argument: &str| image_files(&[at(argument)]).unwrap().len();
        // Up, across and in a circle of many: each folder leads to all others.
        let folders: Vec<String> = (0..9).map(|number| format!("all/{number}")).collect();
        for folder in &folders {
            std::fs::create_dir_all(at(folder)).unwrap();
            std::fs::write(at(folder).join("a.jpg"), b"").unwrap();
            symlink("..", at(folder).join("up")).unwrap();
            for other in &folders {
                let name = other.replace('/', "-");
                symlink(at(other), at(folder).join(name)).unwrap();
            }
        }
        assert_eq!(count("all"), 9);
        assert_eq!(count("all/**/*.jpg"), 9);
        let deep = image_files(&[at("all")]).unwrap();
        assert_eq!(deep[8].name, Path::new("8/a.jpg"), "where it lies, not where a link leads");

        std::fs::create_dir(at("odd")).unwrap();
        let pipe = at("odd/pipe.png");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        symlink("/dev/zero", at("odd/zero.png")).unwrap();
        symlink("nowhere", at("odd/broken.png")).unwrap();
        std::fs::write(at("odd").join(std::ffi::OsStr::from_bytes(b"caf\xe9.png")), b"").unwrap();
        let names = |argument: &str| -> Vec<String> {
            let files = image_files(&[at(argument)]).unwrap();
            files.iter().map(|file| crate::names::readable(&file.name)).collect()
        };
        assert_eq!(names("odd"), ["broken.png", "caf\\xe9.png"]);
        assert_eq!(names("odd/*.png"), ["caf\\xe9.png"]);
        for special in [pipe, at("odd/zero.png")] {
            let message = read_file(&special).unwrap_err().to_string();
            assert!(message.contains("a pipe, a socket or a device, not a file"), "{message}");
        }
        assert!(read_file(root.path()).unwrap_err().to_string().contains("a folder, not a file"));
    }
}
