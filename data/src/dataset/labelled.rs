//! Images in one folder a class.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::Arc;

use storage::Storage;

use super::super::peers::{Alone, Peers, share_first};
use super::cache::Cache;
use super::classes::{Classes, listed, problem_with};
use super::index::{self, Indexed};
use super::kind::Kind;
use super::labels::{self, Labelling};
use super::listing::Request;
use super::shard::Wanted;
use super::walk::within;
use super::{Dataset, DatasetOptions, Place, remote};
use crate::names::{quoted, readable, readable_bytes};
use crate::{Error, Result, text};

/// The images of a folder of class folders, torchvision's `ImageFolder`: what lies at any depth
/// in `train/n01440764/` has that class. Or those of tar shards (`train-{000..127}.tar`, a list of
/// such, a folder of shards without folders in it) whose samples have a member `.cls` or `.json`
/// with the label; where a file `classes.txt` lies beside the shards, it names the classes, a line
/// each.
///
/// Classes are numbered in the order of their names (by code point, as Python sorts), and called
/// as [`readable`] writes these. Hidden folders are no classes, and images beside the class folders
/// belong to none.
#[derive(Debug)]
pub struct LabelledDataset {
    images: Arc<Dataset>,
    /// The class of each image.
    labels: Vec<u32>,
    classes: Vec<String>,
    notes: Vec<String>,
}

impl LabelledDataset {
    /// Indexes `folder`, whose folders are the classes. What lies in them is found as by
    /// [`Dataset::open`].
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) for what can't be read; [`Error::Data`](crate::Error::Data) when `folder` is none, when it has
    /// fewer than two class folders, or when one of them has no images; [`Error::Invalid`](crate::Error::Invalid) for
    /// [shards of each process' own](DatasetOptions::own_shards).
    pub fn open(folder: impl AsRef<Path>, options: &DatasetOptions) -> Result<Self> {
        Self::open_among(folder, options, &Alone)
    }

    /// As [`LabelledDataset::open`], for processes that read one data set together, as
    /// [`Dataset::open_among`].
    ///
    /// # Errors
    /// As [`LabelledDataset::open`]; an error of one process is one of all.
    pub fn open_among(
        folder: impl AsRef<Path>,
        options: &DatasetOptions,
        peers: &dyn Peers,
    ) -> Result<Self> {
        Self::open_with(folder.as_ref(), options, None, &Cache::of(options), peers)
    }

    /// Indexes `folder`, whose folders are some of `classes`, with the numbers they have there:
    /// the validation set of a training set, whose [`LabelledDataset::classes`] these are. Names
    /// in another Unicode normal form are the same, unless that leaves a choice.
    ///
    /// # Errors
    /// As [`LabelledDataset::open`], but one class is enough; and [`Error::Data`](crate::Error::Data) for a class
    /// folder that is none of `classes`.
    pub fn open_as(
        folder: impl AsRef<Path>,
        options: &DatasetOptions,
        classes: &[String],
    ) -> Result<Self> {
        Self::open_as_among(folder, options, classes, &Alone)
    }

    /// As [`LabelledDataset::open_as`], for processes that read one data set together, as
    /// [`Dataset::open_among`].
    ///
    /// # Errors
    /// As [`LabelledDataset::open_as`]; an error of one process is one of all.
    pub fn open_as_among(
        folder: impl AsRef<Path>,
        options: &DatasetOptions,
        classes: &[String],
        peers: &dyn Peers,
    ) -> Result<Self> {
        Self::open_with(folder.as_ref(), options, Some(classes), &Cache::of(options), peers)
    }

    /// Indexes `folder`; `known` are the classes, if others than it has.
    pub(super) fn open_with(
        folder: &Path,
        options: &DatasetOptions,
        known: Option<&[String]>,
        cache: &Cache,
        peers: &dyn Peers,
    ) -> Result<Self> {
        let check = |found: &[OsString]| Classes::of(folder, found, known).map(|_| ());
        let request = match is_of_shards(folder) {
            true => Request::Any(folder),
            false => Request::Classes(folder, &check),
        };
        let indexed = index::open(request, options, cache, peers, Wanted::Labels)?;
        match indexed.classes.is_empty() {
            true => {
                let known = match known {
                    Some(known) => Some(known.to_vec()),
                    None => classes_beside(request, options, peers)?,
                };
                Self::of_shards(folder, indexed, known)
            }
            false => Self::of_folders(folder, indexed, known),
        }
    }

    /// Of images in class folders.
    fn of_folders(folder: &Path, indexed: Indexed, known: Option<&[String]>) -> Result<Self> {
        let Indexed { dataset: images, classes: found, .. } = indexed;
        let Classes { names: classes, numbers, notes } = Classes::of(folder, &found, known)?;

        let mut filled = HashSet::new();
        let mut label = |image| {
            let class = class_folder(&images, image);
            let number = numbers.get(class).copied();
            if !filled.contains(class) {
                filled.insert(class.to_owned());
            }
            number.ok_or_else(|| problem_with(folder, "an image outside of the class folders"))
        };
        let labels: Vec<u32> = (0..images.len()).map(&mut label).collect::<Result<_>>()?;
        let empty: Vec<&OsString> = found.iter().filter(|name| !filled.contains(*name)).collect();
        if !empty.is_empty() {
            let (empties, all) = (empty.len(), found.len());
            let names = listed(empty.into_iter().map(|name| quoted(&readable(name))));
            let problem = format!("{empties} of {all} class folders have no images: {names}");
            return Err(problem_with(folder, &problem));
        }
        Ok(LabelledDataset { images: Arc::new(images), labels, classes, notes })
    }

    /// Of shards whose samples have their labels beside them; `known` are the classes, if they are.
    fn of_shards(path: &Path, indexed: Indexed, known: Option<Vec<String>>) -> Result<Self> {
        let Indexed { dataset: images, texts, .. } = indexed;
        let texts: Vec<HashMap<&[u8], &[u8]>> = texts
            .iter()
            .map(|texts| texts.iter().map(|(sample, label)| (&**sample, &**label)).collect())
            .collect();
        let label = |image: usize| match images.places[image] {
            Place::Member { shard, .. } | Place::Unpacked { shard, .. } => {
                let name = images.names.get(image).as_os_str().as_bytes();
                texts[shard as usize].get(labels::sample(name)).copied()
            }
            _ => None,
        };
        // What can't be read needs none: it is counted among the corrupt files.
        let is_missing = |image: usize| matches!(images.places[image], Place::Missing { .. });
        let count = images.len();
        let without = || (0..count).filter(|&image| label(image).is_none() && !is_missing(image));
        if let Some(first) = without().next() {
            let problem = format!(
                "{} of {count} images have no label, such as {}; beside each must be a member of its \
                 name with .cls (the number of its class, or its name) or .json (with \"label\")",
                without().count(),
                images.name(first),
            );
            return Err(problem_with(path, &problem));
        }
        let all: BTreeSet<&[u8]> = (0..count).filter_map(label).collect();
        let shown = path.display().to_string();
        let Labelling { classes, numbers } = Labelling::of(&shown, &all, known)?;
        let number = |image| label(image).and_then(|label| numbers.get(label)).copied();
        let labels = (0..count).map(|image| number(image).unwrap_or_default()).collect();
        Ok(LabelledDataset { images: Arc::new(images), labels, classes, notes: Vec::new() })
    }

    /// The images, without their classes.
    pub fn images(&self) -> &Arc<Dataset> {
        &self.images
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none; [`LabelledDataset::open`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The class of image `index`, below the number of classes.
    ///
    /// # Panics
    /// When `index` is not below [`LabelledDataset::len`].
    pub fn label(&self, index: usize) -> usize {
        self.labels[index] as usize
    }

    /// The classes' names by number.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// What is worth a look in the class folders, in sentences that name the folder: names that
    /// look the same, and known classes without a folder.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Images of each class.
    pub fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes.len()];
        self.labels.iter().for_each(|&label| counts[label as usize] += 1);
        counts
    }
}

/// Whether `path` names shards or a list, and no folder of class folders.
fn is_of_shards(path: &Path) -> bool {
    let name = path.as_os_str().as_bytes();
    let is_named_so = Kind::of(name) == Kind::Shard || name.ends_with(b".txt");
    is_named_so && !path.is_dir()
}

/// The file that names the classes of shards, a line each, the first being class 0.
const CLASSES: &str = "classes.txt";

/// The classes that a file beside the shards names, if there is one; the first process reads it.
fn classes_beside(
    request: Request,
    options: &DatasetOptions,
    peers: &dyn Peers,
) -> Result<Option<Vec<String>>> {
    let path = within(request.base(request.form()), Path::new(CLASSES));
    let own = match peers.rank() {
        0 => read_beside(&path, options),
        _ => Ok(None),
    };
    // A byte that says whether there is one, and its content.
    let own = own.map(|found| found.map_or(vec![0], |bytes| [&[1], &bytes[..]].concat()));
    let shared = share_first(peers, own)?;
    let Some((1, bytes)) = shared.split_first() else { return Ok(None) };
    let lines = text::lines(&path, bytes.to_vec())?;
    Ok(Some(lines.into_iter().map(|(_, line)| readable_bytes(&line)).collect()))
}

/// A file, here or in a store, if it is there.
fn read_beside(path: &Path, options: &DatasetOptions) -> Result<Option<Vec<u8>>> {
    let Some(at) = remote::location(path)? else {
        return match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(path, error)),
        };
    };
    match Storage::new(options.storage.settings.clone())?.read_all(&at) {
        Ok((_, bytes)) => Ok(Some(bytes.to_vec())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The class folder that `image` lies in.
fn class_folder(images: &Dataset, image: usize) -> &OsStr {
    let path: &Path = match images.places[image] {
        Place::File | Place::Object { .. } => images.names.get(image),
        Place::Member { shard, .. }
        | Place::Unpacked { shard, .. }
        | Place::Missing { shard, .. } => &images.shards[shard as usize],
    };
    path.components().next().map(Component::as_os_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of empty files and, for names that end in a slash, folders.
    fn folder(entries: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for entry in entries {
            let path = root.path().join(entry);
            let parent = if entry.ends_with('/') { Some(&*path) } else { path.parent() };
            std::fs::create_dir_all(parent.unwrap()).unwrap();
            if !entry.ends_with('/') {
                std::fs::write(path, b"").unwrap();
            }
        }
        root
    }

    fn options() -> DatasetOptions {
        DatasetOptions { listings: None, ..Default::default() }
    }

    fn open(root: &Path) -> Result<LabelledDataset> {
        LabelledDataset::open(root, &options())
    }

    fn refusal(entries: &[&str]) -> String {
        open(folder(entries).path()).unwrap_err().to_string()
    }

    #[test]
    fn classes_are_numbered_by_name_and_images_found_at_any_depth() {
        let root = folder(&[
            "b/1.png",
            "B/2.jpg",
            "a10/deep/er/x.webp",
            "a2/z.png",
            "a2/notes.txt",
            ".cache/1.png",
            "beside.png",
        ]);
        std::os::unix::fs::symlink(root.path().join("b"), root.path().join("c")).unwrap();
        let dataset = open(root.path()).unwrap();
        // Python's sorted(): capitals first, digit by digit.
        assert_eq!(dataset.classes(), ["B", "a10", "a2", "b", "c"]);
        let labelled: Vec<(String, usize)> = (0..dataset.len())
            .map(|index| (dataset.images().name(index), dataset.label(index)))
            .collect();
        let expected = [
            ("B/2.jpg", 0),
            ("a10/deep/er/x.webp", 1),
            ("a2/z.png", 2),
            ("b/1.png", 3),
            ("c/1.png", 4),
        ];
        assert_eq!(labelled, expected.map(|(name, label)| (name.to_owned(), label)));
        assert_eq!(dataset.counts(), [1; 5]);
    }

    #[test]
    fn shards_in_a_class_folder_have_its_class() {
        let root = folder(&["cat/1.png", "dog/"]);
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        builder.append_data(&mut header, "cat/in.png", &b""[..]).unwrap();
        std::fs::write(root.path().join("dog/0.tar"), builder.into_inner().unwrap()).unwrap();
        let dataset = open(root.path()).unwrap();
        assert_eq!(dataset.images().name(1), "dog/0.tar:cat/in.png");
        assert_eq!(dataset.label(1), 1);
    }

    #[test]
    fn a_validation_set_has_the_numbers_of_the_training_set() {
        let classes = ["ant", "bee", "cow"].map(str::to_owned);
        let as_known = |entries: &[&str]| {
            let root = folder(entries);
            LabelledDataset::open_as(root.path(), &options(), &classes)
        };
        let dataset = as_known(&["cow/1.png", "cow/2.png"]).unwrap();
        assert_eq!(dataset.classes(), classes);
        assert_eq!((dataset.label(0), dataset.counts()), (2, vec![0, 0, 2]));
        let message = as_known(&["cow/1.png", "dog/1.png"]).unwrap_err().to_string();
        assert!(
            message
                .contains("1 class folder with the name of none of the 3 known classes: \"dog\""),
            "{message}"
        );
    }

    #[test]
    fn refuses_folders_that_label_nothing() {
        let message = open(Path::new("/no/such/folder")).unwrap_err().to_string();
        assert!(message.contains("/no/such/folder: No such file"), "{message}");
        let root = folder(&["a.png"]);
        let message = open(&root.path().join("a.png")).unwrap_err().to_string();
        assert!(message.contains("a.png: not a folder"), "{message}");
        assert!(refusal(&["a.png", ".hidden/b.png"]).contains("no class folders in it"));
        assert!(refusal(&["only/1.png", "x.png"]).contains("only one class folder, \"only\""));
        let message = refusal(&["a/1.png", "b/", "c/notes.txt"]);
        assert!(message.contains("2 of 3 class folders have no images: \"b\", \"c\""), "{message}");
        assert!(refusal(&["a/", "b/notes.txt"]).contains("no images found"));
    }
}
