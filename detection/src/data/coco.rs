//! An annotation file in COCO's format and its images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::data::Image;
use hotcoco::{Annotation, COCO};

use super::findings::{self, Finding, Severity};
use super::objects::Objects;
use crate::structures::{Bitmap, InstanceMask};
use crate::{Error, Result};

/// Missing files named in a message.
const LISTED: usize = 5;

/// A class to detect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Its id in the annotation file.
    pub id: u64,
    /// Its name.
    pub name: String,
}

/// A data set in COCO's format: images, and objects with boxes and masks.
///
/// Classes are numbered from 0 in the order of their category ids, whatever those are.
pub struct CocoDataset {
    annotations: PathBuf,
    folder: PathBuf,
    coco: Arc<COCO>,
    categories: Vec<Category>,
    classes: HashMap<u64, i64>,
    /// For each image record, the places in `annotations` of the objects to train on.
    objects: Vec<Vec<u32>>,
    findings: Vec<Finding>,
    missing: Vec<usize>,
}

impl CocoDataset {
    /// Reads `annotations` and looks for its images in the folder `images`, or, if none is given,
    /// where COCO has them: for `annotations/instances_train.json` that is `train` beside
    /// `annotations`, else a folder `images`, else the annotation file's own.
    ///
    /// # Errors
    /// [`Error::Format`] when the file is not in COCO's format, has no images or categories,
    /// ambiguous ids, unknown category ids or images without a size, or when not one image file
    /// is there.
    pub fn open(annotations: impl AsRef<Path>, images: Option<&Path>) -> Result<Self> {
        let annotations = annotations.as_ref();
        let coco = read(annotations)?;
        let found = findings::inspect(&coco.dataset);
        let mut errors = found.findings.iter().filter(|f| f.severity == Severity::Error);
        if let Some(first) = errors.next() {
            let all: Vec<String> =
                std::iter::once(first).chain(errors).map(Finding::to_string).collect();
            return Err(Error::format(annotations, all.join("; ")));
        }

        let folder = image_folder(annotations, images, &coco)?;
        let missing = missing(&folder, &coco);
        if missing.len() == coco.dataset.images.len() {
            let first = &coco.dataset.images[0].file_name;
            let problem = format!(
                "none of its {} images is in {} (the first should be {first}); name their folder",
                missing.len(),
                folder.display()
            );
            return Err(Error::format(annotations, problem));
        }
        let categories = categories(&coco);
        Ok(Self {
            annotations: annotations.to_owned(),
            folder,
            classes: categories.iter().zip(0..).map(|(c, class)| (c.id, class)).collect(),
            categories,
            coco: Arc::new(coco),
            objects: found.objects,
            findings: found.findings,
            missing,
        })
    }

    /// The annotation file.
    pub fn annotations(&self) -> &Path {
        &self.annotations
    }

    /// The folder that file names are relative to.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The annotations as they were read: what predictions are scored against.
    pub fn coco(&self) -> &Arc<COCO> {
        &self.coco
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.coco.dataset.images.len()
    }

    /// Whether there are none; [`CocoDataset::open`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record of image `index`: id, file name, height and width.
    ///
    /// # Panics
    /// When `index` is not below [`CocoDataset::len`], as the other accessors do.
    pub fn record(&self, index: usize) -> &hotcoco::Image {
        &self.coco.dataset.images[index]
    }

    /// The file of image `index`.
    pub fn path(&self, index: usize) -> PathBuf {
        self.folder.join(&self.record(index).file_name)
    }

    /// The classes, by number.
    pub fn categories(&self) -> &[Category] {
        &self.categories
    }

    /// The classes' names, by number.
    pub fn names(&self) -> Vec<String> {
        self.categories.iter().map(|category| category.name.clone()).collect()
    }

    /// The number of the class with this category id.
    pub fn class(&self, category_id: u64) -> Option<i64> {
        self.classes.get(&category_id).copied()
    }

    /// Problems of the annotation file that it can be used in spite of.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Images whose file is not there.
    pub fn missing(&self) -> &[usize] {
        &self.missing
    }

    /// The problems to tell the user of, a line each: [`CocoDataset::findings`] and the missing
    /// files, with their number and the first names.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings: Vec<String> = self.findings.iter().map(Finding::to_string).collect();
        if !self.missing.is_empty() {
            let names: Vec<&str> =
                self.missing.iter().take(LISTED).map(|&i| self.name(i)).collect();
            let more = if self.missing.len() > LISTED { ", …" } else { "" };
            let (missing, all) = (self.missing.len(), self.len());
            let folder = self.folder.display();
            let names = names.join(", ");
            warnings.push(format!(
                "{missing} of {all} image files are missing in {folder}: {names}{more}"
            ));
        }
        warnings
    }

    /// The file name of image `index`.
    pub fn name(&self, index: usize) -> &str {
        &self.record(index).file_name
    }

    /// Number of objects to train on in image `index`.
    pub fn object_count(&self, index: usize) -> usize {
        self.objects[index].len()
    }

    /// The objects of image `index` to train on: those that are no crowd and have a usable box
    /// and mask.
    ///
    /// # Errors
    /// [`Error::Format`] for a mask that can't be decoded.
    pub fn objects(&self, index: usize) -> Result<Objects> {
        let image = self.record(index);
        let mut objects = Objects::default();
        for &place in &self.objects[index] {
            let annotation = &self.coco.dataset.annotations[place as usize];
            let mask = self.mask(annotation, image)?;
            let bounds = match annotation.bbox {
                Some([x, y, width, height]) => Some([x, y, x + width, y + height]),
                None => mask.bounding_box(),
            };
            objects.boxes.push(bounds.unwrap_or_default());
            objects.classes.push(self.classes[&annotation.category_id]);
            objects.masks.push(mask);
        }
        Ok(objects)
    }

    fn mask(&self, annotation: &Annotation, image: &hotcoco::Image) -> Result<InstanceMask> {
        let broken = |why: String| {
            let problem = format!("the mask of annotation {}: {why}", annotation.id);
            Error::format(&self.annotations, problem)
        };
        let mask =
            annotation.segmentation.as_ref().ok_or_else(|| broken("there is none".into()))?;
        if let Some(polygons) = mask.polygons() {
            let polygons = polygons.iter().filter(|polygon| findings::is_polygon(polygon));
            return Ok(InstanceMask::Polygons(polygons.cloned().collect()));
        }
        let rle = mask.to_rle(image.height, image.width).map_err(|e| broken(e.to_string()))?;
        Ok(InstanceMask::Bitmap(Bitmap::from_rle(&rle)))
    }

    /// Image `index`, decoded to RGB.
    ///
    /// # Errors
    /// [`Error::Engine`] when it can't be read or has another size than its record.
    pub fn image(&self, index: usize) -> Result<Image> {
        decode(&self.folder, self.record(index))
    }

    /// Checks that `other` has the same classes in the same order: what was trained on one can
    /// be scored on the other.
    ///
    /// # Errors
    /// [`Error::Format`] for `other`'s file with the first difference.
    pub fn require_same_classes(&self, other: &CocoDataset) -> Result<()> {
        let (ours, theirs) = (&self.categories, &other.categories);
        let problem = if ours.len() != theirs.len() {
            format!("it has {} categories", theirs.len())
        } else if let Some((a, b)) = ours.iter().zip(theirs).find(|(a, b)| a != b) {
            format!("it has category {} {:?} in place of {} {:?}", b.id, b.name, a.id, a.name)
        } else {
            return Ok(());
        };
        let whose = self.annotations.display();
        let problem = format!("{problem}, but {whose} has {}", ours.len());
        Err(Error::format(&other.annotations, problem))
    }
}

/// Parses an annotation file.
pub(super) fn read(path: &Path) -> Result<COCO> {
    COCO::new(path).map_err(|error| {
        let problem = match error {
            hotcoco::Error::Io(error) => return engine::Error::io(path, error).into(),
            hotcoco::Error::Json(error) => {
                format!("not an annotation file in COCO's format: {error}")
            }
            other => other.to_string(),
        };
        Error::format(path, problem)
    })
}

/// The image of `record`, if it has the size that the record says.
pub(super) fn decode(folder: &Path, record: &hotcoco::Image) -> Result<Image> {
    let path = folder.join(&record.file_name);
    let bytes = std::fs::read(&path).map_err(|e| engine::Error::io(&path, e))?;
    let image = engine::data::decode(&path, &bytes, 3)?;
    let (width, height) = (record.width as usize, record.height as usize);
    if (image.width(), image.height()) != (width, height) {
        let (w, h) = (image.width(), image.height());
        let mut problem = format!("it has {w}×{h} pixels, but its record says {width}×{height}");
        let tag = engine::data::orientation(&bytes).to_exif();
        if tag > 4 && (w, h) == (height, width) {
            problem.push_str(&format!(
                ": its EXIF orientation tag ({tag}) turns it by a quarter, as it is shown, while \
                 the record is of the picture as stored; label the picture as it is shown, or \
                 remove the tag (exiftool -Orientation= FILE) if the objects are where the record's \
                 size says"
            ));
        }
        return Err(engine::Error::image(path, problem).into());
    }
    Ok(image)
}

/// The folder of the images: the one given, or the first likely one that has the first image.
pub(super) fn image_folder(
    annotations: &Path,
    given: Option<&Path>,
    coco: &COCO,
) -> Result<PathBuf> {
    if let Some(folder) = given {
        if !folder.is_dir() {
            let rule = "it must be the folder that the file names in the annotations start from";
            return Err(Error::invalid("image folder", folder.display(), rule));
        }
        return Ok(folder.to_owned());
    }
    let own = annotations.parent().unwrap_or(Path::new(""));
    let above = own.parent().unwrap_or(Path::new(""));
    let stem = annotations.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let split = stem.rsplit_once('_').map_or(stem, |(_, split)| split);
    let likely = [above.join(split), own.join(split), own.join("images"), own.to_owned()];
    let has_some = |folder: &PathBuf| {
        coco.dataset.images.iter().take(LISTED).any(|i| folder.join(&i.file_name).is_file())
    };
    Ok(likely.iter().find(|folder| has_some(folder)).unwrap_or(&likely[0]).clone())
}

/// The places of the images whose file is not in `folder`.
pub(super) fn missing(folder: &Path, coco: &COCO) -> Vec<usize> {
    let images = coco.dataset.images.iter().enumerate();
    images
        .filter(|(_, image)| !folder.join(&image.file_name).is_file())
        .map(|(place, _)| place)
        .collect()
}

/// The classes in the order of their ids.
fn categories(coco: &COCO) -> Vec<Category> {
    let mut all: Vec<Category> = coco
        .dataset
        .categories
        .iter()
        .map(|category| Category { id: category.id, name: category.name.clone() })
        .collect();
    all.sort_by_key(|category| category.id);
    all
}
