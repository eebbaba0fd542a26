//! Where drawn pictures go: each to a name of its own, none over a file that was not drawn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use data::files::NamedImage;
use data::write_file;
use engine::outputs::{Inputs, make_folder};
use serde::{Deserialize, Serialize};

/// The file with what was found.
pub(super) const PREDICTIONS: &str = "predictions.json";
/// The file that says which files of a folder `detect predict` has written.
const MARKER: &str = ".detect-predict.json";
/// What [`MARKER`] contains, so that a stranger's file is none.
const FORMAT: &str = "spark-backbone detect predict";
/// Files named in a message.
const LISTED: usize = 5;

#[derive(Serialize, Deserialize)]
struct Marker {
    format: String,
    /// Relative to the folder.
    files: BTreeSet<String>,
}

/// The files that earlier calls wrote to `folder`.
fn written_to(folder: &Path) -> BTreeSet<String> {
    let marker = std::fs::read(folder.join(MARKER)).ok();
    let marker: Option<Marker> = marker.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    marker.filter(|marker| marker.format == FORMAT).map(|marker| marker.files).unwrap_or_default()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Leaves out the pictures that earlier calls drew, which a folder with results in it holds beside
/// the images. Those named one by one stay. Also returns how many were left out.
pub(super) fn without_drawn(
    files: Vec<NamedImage>,
    arguments: &[PathBuf],
) -> (Vec<NamedImage>, usize) {
    let all = files.len();
    let mut written: HashMap<PathBuf, BTreeSet<String>> = HashMap::new();
    let mut is_drawn = |path: &Path| {
        path.ancestors().skip(1).any(|folder| {
            let known = written.entry(folder.to_owned()).or_insert_with(|| written_to(folder));
            let name = path.strip_prefix(folder).map(text);
            !known.is_empty() && name.is_ok_and(|name| known.contains(&name))
        })
    };
    let files: Vec<NamedImage> = files
        .into_iter()
        .filter(|file| arguments.contains(&file.path) || !is_drawn(&file.path))
        .collect();
    let left_out = all - files.len();
    (files, left_out)
}

/// A name for the picture of each of `images`, no two of which a file system could take for the
/// same. JPEG stays JPEG, all else becomes PNG: `a.tif` is drawn as `a.png`, but as `a.tif.png`
/// where another image would be drawn as `a.png`, too.
pub(super) fn picture_names(images: &[&Path]) -> Vec<PathBuf> {
    let key = |path: &Path| text(path).to_lowercase();
    let mut taken: HashSet<String> = [PREDICTIONS, MARKER].map(str::to_owned).into();
    // A folder of pictures is no picture.
    taken.extend(images.iter().flat_map(|image| image.ancestors().skip(1)).map(key));
    let mut wanted: HashMap<String, usize> = HashMap::new();
    for image in images {
        *wanted.entry(key(&stem_or_same(image))).or_default() += 1;
    }
    // First those that are called like their image.
    let mut order: Vec<usize> = (0..images.len()).collect();
    order.sort_by_key(|&at| stem_or_same(images[at]) != images[at]);
    let mut names = vec![PathBuf::new(); images.len()];
    for at in order {
        let (image, short) = (images[at], stem_or_same(images[at]));
        let mut full = image.as_os_str().to_owned();
        full.push(if is_jpeg(image) { ".jpg" } else { ".png" });
        let shared = wanted[&key(&short)] > 1 && short != image;
        let candidates = (!shared).then(|| short.clone()).into_iter().chain([full.into()]);
        let numbered = (2..).map(|number| {
            let mut stem = image.file_stem().unwrap_or_default().to_owned();
            stem.push(format!("-{number}"));
            short.with_file_name(stem).with_added_extension(short.extension().unwrap_or_default())
        });
        let free = candidates.chain(numbered).find(|name| taken.insert(key(name)));
        names[at] = free.unwrap_or_default();
    }
    names
}

/// Whether a picture of this name is a JPEG; the others are PNG.
pub(super) fn is_jpeg(name: &Path) -> bool {
    ["jpg", "jpeg"].contains(&ending(name).as_str())
}

fn ending(name: &Path) -> String {
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ending.to_ascii_lowercase()
}

/// What an image is drawn as if nothing stands in the way.
fn stem_or_same(image: &Path) -> PathBuf {
    let same = is_jpeg(image) || ending(image) == "png";
    if same { image.to_owned() } else { image.with_extension("png") }
}

/// The folder that a call writes to.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    /// Relative to the folder: the predictions, then the pictures.
    files: Vec<PathBuf>,
    /// Of earlier calls.
    written: BTreeSet<String>,
}

impl Output {
    /// Checks that `pictures` and the predictions can be written to `folder` without touching
    /// `inputs`, the folders among `arguments`, or, unless all is to be overwritten, any file that
    /// no earlier call wrote. Writes nothing.
    pub(super) fn plan(
        folder: &Path,
        pictures: &[PathBuf],
        inputs: &Inputs,
        arguments: &[PathBuf],
        overwrite: bool,
    ) -> Result<Self> {
        let same = |a: &Path, b: &Path| {
            std::fs::canonicalize(a).is_ok_and(|a| std::fs::canonicalize(b).is_ok_and(|b| a == b))
        };
        if let Some(images) = arguments.iter().find(|argument| same(argument, folder)) {
            bail!(
                "--output is {}, but that is where the images of {} are: name another folder",
                folder.display(),
                images.display()
            );
        }
        let mut files = vec![PathBuf::from(PREDICTIONS)];
        files.extend_from_slice(pictures);
        let written = written_to(folder);
        let mut foreign = Vec::new();
        for file in &files {
            let path = folder.join(file);
            inputs.spare(&path)?;
            for above in path.ancestors().skip(1).take(file.components().count()) {
                let there = std::fs::metadata(above);
                ensure!(
                    there.map_or(true, |there| there.is_dir()),
                    "{} must be a folder for {}, but it is a file",
                    above.display(),
                    path.display()
                );
            }
            let Ok(there) = std::fs::symlink_metadata(&path) else { continue };
            ensure!(!there.is_dir(), "{} must be a file, but it is a folder", path.display());
            if !written.contains(&text(file)) {
                foreign.push(text(file));
            }
        }
        if !foreign.is_empty() && !overwrite {
            let more = if foreign.len() > LISTED { ", …" } else { "" };
            bail!(
                "{} holds files that `detect predict` has not written and would write over: \
                 {}{more}; name another folder, or --overwrite",
                folder.display(),
                foreign[..foreign.len().min(LISTED)].join(", ")
            );
        }
        Ok(Self { folder: folder.to_owned(), files, written })
    }

    /// Where the picture of image number `at` goes, if pictures are drawn.
    pub(super) fn picture(&self, at: usize) -> Option<PathBuf> {
        self.files.get(1 + at).map(|file| self.folder.join(file))
    }

    /// Makes the folder and notes in it what will be written, so that it is known to be replaced
    /// even if this call is killed.
    pub(super) fn begin(&self) -> Result<()> {
        make_folder(&self.folder)?;
        let mut files = self.written.clone();
        files.extend(self.files.iter().map(|file| text(file)));
        let marker = serde_json::to_string(&Marker { format: FORMAT.into(), files })?;
        Ok(write_file(&self.folder.join(MARKER), marker.as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &[&str]) -> Vec<String> {
        let images: Vec<&Path> = images.iter().map(Path::new).collect();
        picture_names(&images).iter().map(|name| text(name)).collect()
    }

    #[test]
    fn pictures_keep_the_images_names_where_they_can() {
        for (images, expected) in [
            (
                vec!["a.tif", "b.jpg", "c.PNG", "d.JPEG", "e"],
                vec!["a.png", "b.jpg", "c.PNG", "d.JPEG", "e.png"],
            ),
            // One of them is called as it will be.
            (
                vec!["photo.bmp", "photo.png", "photo.tif", "photo.webp", "photo.jpg"],
                vec!["photo.bmp.png", "photo.png", "photo.tif.png", "photo.webp.png", "photo.jpg"],
            ),
            (vec!["photo.bmp", "photo.tif"], vec!["photo.bmp.png", "photo.tif.png"]),
            // What one file system tells apart is one file to another.
            (vec!["a.jpg", "A.JPG", "A.jpg"], vec!["a.jpg", "A.JPG.jpg", "A-2.jpg"]),
            (vec!["a.png", "A.bmp", "a.bmp.png"], vec!["a.png", "A-2.png", "a.bmp.png"]),
            (vec!["x/a.bmp", "X/A.bmp"], vec!["x/a.bmp.png", "X/A-2.png"]),
            (vec!["x/a.bmp", "y/a.tif"], vec!["x/a.png", "y/a.png"]),
            // A folder is in the way, or the predictions are.
            (vec!["a.png/b.jpg", "a.bmp"], vec!["a.png/b.jpg", "a.bmp.png"]),
        ] {
            assert_eq!(names(&images), expected, "{images:?}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn names_that_are_no_text_are_told_apart() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;
        let images = [b"\xe4.jpg".as_slice(), b"\xf6.jpg", b"\xfc.bmp"]
            .map(|name| Path::new(OsStr::from_bytes(name)));
        let names = picture_names(&images);
        assert_eq!(names[0], images[0]);
        assert_eq!(
            names.iter().map(|name| text(name)).collect::<HashSet<_>>().len(),
            3,
            "{names:?}"
        );
    }

    #[test]
    fn only_what_was_drawn_is_replaced() {
        let work = tempfile::tempdir().unwrap();
        let path = |name: &str| work.path().join(name);
        std::fs::create_dir_all(path("photos")).unwrap();
        for name in ["photos/a.jpg", "photos/b.jpg"] {
            std::fs::write(path(name), b"mine").unwrap();
        }
        let inputs = Inputs::new([path("photos/a.jpg")]);
        let plan = |folder: &str, pictures: &[&str], overwrite| {
            let pictures: Vec<PathBuf> = pictures.iter().map(PathBuf::from).collect();
            Output::plan(&path(folder), &pictures, &inputs, &[path("photos/a.jpg")], overwrite)
        };
        let refused = |folder: &str, pictures: &[&str], overwrite, part: &str| {
            let message = plan(folder, pictures, overwrite).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        };
        // The image itself, even where all is to be overwritten.
        for overwrite in [false, true] {
            refused("photos", &["a.jpg"], overwrite, "a.jpg, which is read");
            refused(".", &["photos/a.jpg"], overwrite, "a.jpg, which is read");
            refused("photos/b.jpg", &["a.jpg"], overwrite, "it is a file");
            refused(".", &["photos"], overwrite, "it is a folder");
        }
        refused("photos", &["b.jpg"], false, "b.jpg; name another folder, or --overwrite");
        plan("photos", &["b.jpg"], true).unwrap();
        // What an earlier call was about to write is its own.
        plan("found", &["x/a.jpg"], false).unwrap().begin().unwrap();
        for name in ["x/a.jpg", "x/mine.jpg", PREDICTIONS] {
            std::fs::create_dir_all(path("found/x")).unwrap();
            std::fs::write(path("found").join(name), b"").unwrap();
        }
        plan("found", &["x/a.jpg"], false).unwrap();
        refused("found", &["x/mine.jpg"], false, "x/mine.jpg");
        // It is no image to detect in, unless it is named itself.
        let file = |name: &str| NamedImage { path: path(name), name: name.into() };
        let files = || vec![file("found/x/a.jpg"), file("found/x/mine.jpg"), file("photos/a.jpg")];
        let (left, count) = without_drawn(files(), &[work.path().to_owned()]);
        assert_eq!((left.len(), count), (2, 1));
        assert_eq!(without_drawn(files(), &[path("found/x/a.jpg")]).1, 0);
    }
}
