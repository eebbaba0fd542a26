//! The labelled images: class folders or COCO files, and shares of their labels.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use data::names::first_names;
use data::rng::Rng;
use data::{DatasetOptions, LabelledDataset, write_file};
use engine::run_dir::display_path;
use serde::{Deserialize, Serialize};
use words::counted;

use super::coco::{CocoFile, annotation_files};
use super::words::percent;

/// Of draws of images, apart from those of other generators.
const DRAWS: u64 = 0x1abe1;
/// Fewer images of a class cannot be learned from, and less so in shares.
const LEAST_OF_CLASS: usize = 2;

/// Images with labels to train on, and others to validate with.
pub enum Labelled {
    /// One folder a class.
    Classes {
        /// `train`.
        training: LabelledDataset,
        /// The folders `train` and `val`.
        folders: [PathBuf; 2],
        /// Images of `val`.
        held_out: usize,
    },
    /// Objects in COCO's format.
    Coco {
        /// The annotation files to train on and to validate with.
        annotations: [PathBuf; 2],
        /// The folders of their images.
        images: [PathBuf; 2],
        /// The first file's text.
        text: String,
        /// Images to train on, and to validate with.
        counts: [usize; 2],
    },
}

/// Labels that a run trains on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Class folders, or an annotation file.
    pub path: PathBuf,
    /// Images.
    pub images: usize,
}

impl Labelled {
    /// What lies in `folder`: `train` and `val` with a folder a class, or `train.json` and
    /// `val.json`, or COCO's `annotations/instances_train*.json` and `…val*.json`.
    ///
    /// # Errors
    /// Neither, no images to validate with, classes too small to be learned, files that can't be
    /// read.
    pub fn open(folder: &Path) -> Result<Self> {
        let shown = display_path(folder);
        ensure!(folder.is_dir(), "--labelled {shown} is no folder");
        if let Some(annotations) = annotation_files(folder)? {
            return Self::open_coco(folder, annotations);
        }
        let [training, held_out] = ["train", "val"].map(|part| folder.join(part));
        let what = "--labelled takes a folder with train/CLASS/… and val/CLASS/…, with train.json \
                    and val.json in COCO's format, or with annotations/instances_train*.json and \
                    annotations/instances_val*.json";
        ensure!(training.is_dir(), "{shown} has neither a folder train nor COCO files: {what}");
        ensure!(
            held_out.is_dir(),
            "{shown} has no validation data: there is train, but no val. Move some images of each \
             class, a fifth say, into val/CLASS"
        );
        Self::open_classes([training, held_out])
    }

    fn open_classes(folders: [PathBuf; 2]) -> Result<Self> {
        for folder in &folders {
            // Of shards with labels no share is made.
            ensure!(holds_folders(folder)?, "{}: no class folders in it", display_path(folder));
        }
        let options = DatasetOptions::default();
        let training = LabelledDataset::open(&folders[0], &options)?;
        let held_out = LabelledDataset::open_as(&folders[1], &options, training.classes())?;
        let counts = training.counts().into_iter().zip(training.classes());
        let small: Vec<&str> = counts
            .filter(|(count, _)| *count < LEAST_OF_CLASS)
            .map(|(_, class)| class.as_str())
            .collect();
        ensure!(
            small.is_empty(),
            "{} of {} in {} have a single image, but at least {LEAST_OF_CLASS} are needed to \
             learn from: {}; add images, or take these folders out of train and val",
            counted(small.len(), "class"),
            training.classes().len(),
            display_path(&folders[0]),
            first_names(small.iter().copied()),
        );
        for note in training.notes().iter().chain(held_out.notes()) {
            eprintln!("note: {note}");
        }
        Ok(Self::Classes { held_out: held_out.len(), training, folders })
    }

    fn open_coco(folder: &Path, annotations: [PathBuf; 2]) -> Result<Self> {
        let texts = [0, 1].map(|at| {
            let path = &annotations[at];
            fs::read_to_string(path).with_context(|| format!("cannot read {}", display_path(path)))
        });
        let [text, held_out] = texts;
        let (text, held_out) = (text?, held_out?);
        let mut images = Vec::new();
        let mut counts = Vec::new();
        for (path, (text, split)) in annotations.iter().zip([(&text, "train"), (&held_out, "val")])
        {
            let file = CocoFile::parse(path, text)?;
            ensure!(
                !file.with_objects(path)?.is_empty(),
                "{} has no objects on its images, but both {split} and what it is compared with \
                 need labels",
                display_path(path)
            );
            images.push(file.image_folder(folder, path)?);
            counts.push(file.images.len());
        }
        match (<[PathBuf; 2]>::try_from(images), <[usize; 2]>::try_from(counts)) {
            (Ok(images), Ok(counts)) => Ok(Self::Coco { annotations, images, text, counts }),
            _ => bail!("both annotation files are needed"),
        }
    }

    /// The program that learns such labels.
    pub fn program(&self) -> &'static str {
        match self {
            Self::Classes { .. } => "classify",
            Self::Coco { .. } => "detect",
        }
    }

    /// Images to validate with.
    pub fn held_out(&self) -> usize {
        match self {
            Self::Classes { held_out, .. } => *held_out,
            Self::Coco { counts, .. } => counts[1],
        }
    }

    /// Images to train on.
    pub fn images_of_training(&self) -> usize {
        match self {
            Self::Classes { training, .. } => training.len(),
            Self::Coco { counts, .. } => counts[0],
        }
    }

    /// Where the images lie.
    pub fn image_folders(&self) -> &[PathBuf; 2] {
        match self {
            Self::Classes { folders, .. } => folders,
            Self::Coco { images, .. } => images,
        }
    }

    /// The data that is asked for, as a person is told.
    pub fn describe(&self) -> String {
        match self {
            Self::Classes { training, held_out, .. } => format!(
                "{} of {} to train on, {held_out} to validate with",
                counted(training.len(), "image"),
                counted(training.classes().len(), "class"),
            ),
            Self::Coco { counts: [training, held_out], .. } => format!(
                "{} with objects to train on, {held_out} to validate with",
                counted(training, "image")
            ),
        }
    }

    /// Flags of the program for `part`.
    pub fn flags(&self, part: &Part) -> Vec<std::ffi::OsString> {
        let pairs: Vec<(&str, &Path)> = match self {
            Self::Classes { folders, .. } => {
                vec![("--train-data", &part.path), ("--val-data", &folders[1])]
            }
            Self::Coco { annotations, images, .. } => vec![
                ("--train-annotations", &part.path),
                ("--train-images", &images[0]),
                ("--val-annotations", &annotations[1]),
                ("--val-images", &images[1]),
            ],
        };
        pairs.into_iter().flat_map(|(flag, path)| [flag.into(), path.into()]).collect()
    }

    /// The `share` of the labels that `seed` draws, of each class alike and at least one image of
    /// each; smaller shares of a seed are parts of its larger ones. All labels are taken where they
    /// are, others are written as `at`: links, or an annotation file.
    ///
    /// # Errors
    /// What cannot be written.
    pub fn part(&self, share: f64, seed: u64, at: &Path) -> Result<Part> {
        match self {
            Self::Classes { training, folders, .. } if share >= 1.0 => {
                Ok(Part { path: folders[0].clone(), images: training.len() })
            }
            Self::Coco { annotations, counts, .. } if share >= 1.0 => {
                Ok(Part { path: annotations[0].clone(), images: counts[0] })
            }
            Self::Classes { training, folders, .. } => {
                let labels: Vec<usize> = (0..training.len()).map(|at| training.label(at)).collect();
                let drawn = draw(&labels, share, seed);
                link_images(training, &folders[0], &drawn, at)?;
                Ok(Part { path: at.to_owned(), images: drawn.len() })
            }
            Self::Coco { annotations, text, .. } => {
                let file = CocoFile::parse(&annotations[0], text)?;
                let with_objects = file.with_objects(&annotations[0])?;
                let strata = file.ids(&annotations[0])?;
                let strata: Vec<usize> =
                    strata.iter().map(|id| usize::from(with_objects.contains(id))).collect();
                let drawn = draw(&strata, share, seed);
                // Not the extension: a share's name may have a point.
                let mut name = at.file_name().unwrap_or_default().to_owned();
                name.push(".json");
                let path = at.with_file_name(name);
                write_file(&path, file.only(&annotations[0], &drawn)?.as_bytes())?;
                Ok(Part { path, images: drawn.len() })
            }
        }
    }
}

/// Whether there is a folder in `folder`, not counting hidden ones.
fn holds_folders(folder: &Path) -> Result<bool> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", display_path(folder)))?;
    let is_folder = |entry: fs::DirEntry| {
        entry.path().is_dir() && !entry.file_name().as_encoded_bytes().starts_with(b".")
    };
    Ok(entries.flatten().any(is_folder))
}

/// The places, ascending, of a share of the labels, of each stratum alike.
fn draw(strata: &[usize], share: f64, seed: u64) -> Vec<usize> {
    let mut places: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, &stratum) in strata.iter().enumerate() {
        places.entry(stratum).or_default().push(place);
    }
    let mut drawn = Vec::new();
    for (stratum, mut places) in places {
        Rng::new(seed, &[DRAWS, stratum as u64]).shuffle(&mut places);
        let count = (share * places.len() as f64).round() as usize;
        drawn.extend(places.into_iter().take(count.max(1)));
    }
    drawn.sort_unstable();
    drawn
}

/// Class folders `at` with links to these images; copies of those within archives.
fn link_images(dataset: &LabelledDataset, folder: &Path, drawn: &[usize], at: &Path) -> Result<()> {
    if at.exists() {
        fs::remove_dir_all(at).with_context(|| format!("cannot renew {}", display_path(at)))?;
    }
    for &place in drawn {
        let name = dataset.images().name(place);
        let class = Path::new(&name).components().next().context("an image without a class")?;
        // An archive's members are called archive:member.
        let class = class.as_os_str().to_owned();
        let into = at.join(&class);
        fs::create_dir_all(&into).with_context(|| format!("cannot make {}", into.display()))?;
        let extension = Path::new(&name).extension().unwrap_or_default();
        let to = into.join(format!("{place:08}")).with_extension(extension);
        let from = std::path::absolute(folder.join(&name))?;
        match from.is_file() {
            true => link(&from, &to).with_context(|| format!("cannot make {}", to.display()))?,
            false => write_file(&to, &dataset.images().read(place)?)?,
        }
    }
    Ok(())
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::copy(from, to).map(|_| ())
}

/// A share as part of a name: `10`, or `0.5` for half a percent.
pub fn share_name(share: f64) -> String {
    percent(share).trim_end_matches(" %").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_of_each_class_alike_and_lie_within_each_other() {
        let labels: Vec<usize> = (0..130).map(|at| if at < 100 { 0 } else { 1 + at % 3 }).collect();
        let part = |share| draw(&labels, share, 3);
        let of_class =
            |drawn: &[usize], class| drawn.iter().filter(|&&place| labels[place] == class).count();
        let (tenth, third) = (part(0.1), part(0.3));
        assert_eq!([0, 1, 2, 3].map(|class| of_class(&tenth, class)), [10, 1, 1, 1]);
        assert_eq!([0, 1, 2, 3].map(|class| of_class(&third, class)), [30, 3, 3, 3]);
        assert!(tenth.iter().all(|place| third.contains(place)));
        assert_ne!(draw(&labels, 0.1, 4), tenth, "another seed draws others");
        // One image is left of a class of which a share would leave none.
        assert_eq!(of_class(&part(0.001), 2), 1);
        assert_eq!(part(1.0), (0..130).collect::<Vec<_>>());
    }
}
