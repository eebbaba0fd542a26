//! An annotation file in COCO's format and its images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use data::Image;
use hotcoco::{Annotation, COCO};
use words::counted;

use super::annotations::{AnnotationFile, GroundTruth, Id};
use super::findings::{self, Finding};
use super::objects::Objects;
use crate::structures::InstanceMask;
use crate::{Error, Result};

/// Missing files named in a message.
const LISTED: usize = 5;

/// A class to detect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Category {
    /// Its id in the annotation file.
    pub id: Id,
    /// Its name.
    pub name: String,
}

/// A data set in COCO's format: images, and objects with boxes and masks.
///
/// Classes are numbered from 0 in the order of their category ids, whatever those are.
pub struct CocoDataset {
    annotations: PathBuf,
    folder: PathBuf,
    truth: GroundTruth,
    masks: bool,
    categories: Vec<Category>,
    /// Classes by the numbers of their categories.
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
    /// ambiguous ids or unknown category ids, or when not one image file is there.
    pub fn open(annotations: impl AsRef<Path>, images: Option<&Path>) -> Result<Self> {
        Self::open_with(annotations.as_ref(), images, true)
    }

    /// [`CocoDataset::open`], or without `masks` that of a detector of boxes: objects need none.
    ///
    /// # Errors
    /// Those of [`CocoDataset::open`].
    pub fn open_with(annotations: &Path, images: Option<&Path>, masks: bool) -> Result<Self> {
        let mut file = AnnotationFile::read(annotations)?;
        findings::leave_out_images(&mut file);
        let AnnotationFile { truth, notes, .. } = file;
        let found = findings::inspect(&truth, masks, notes);
        if let Some(problem) = found.problem() {
            return Err(Error::format(annotations, problem));
        }

        let folder = image_folder(annotations, images, &truth)?;
        let missing = missing(&folder, &truth);
        if missing.len() == truth.dataset.images.len() {
            let first = &truth.dataset.images[0].file_name;
            let problem = format!(
                "none of its {} images is in {} (the first should be {first}); name their folder",
                missing.len(),
                folder.display()
            );
            return Err(Error::format(annotations, problem));
        }
        let numbers = crate::evaluation::category_ids(&truth);
        let category = |&number: &u64| {
            let name = truth.get_cat(number).map(|category| category.name.clone());
            Category { id: truth.category_id(number), name: name.unwrap_or_default() }
        };
        Ok(Self {
            annotations: annotations.to_owned(),
            folder,
            masks,
            categories: numbers.iter().map(category).collect(),
            classes: numbers.into_iter().zip(0..).collect(),
            truth,
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
    pub fn coco(&self) -> &GroundTruth {
        &self.truth
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.truth.dataset.images.len()
    }

    /// Whether there are none; [`CocoDataset::open`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record of image `index`: number, file name, height and width.
    ///
    /// # Panics
    /// When `index` is not below [`CocoDataset::len`], as the other accessors do.
    pub fn record(&self, index: usize) -> &hotcoco::Image {
        &self.truth.dataset.images[index]
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
    pub fn class(&self, category_id: impl Into<Id>) -> Option<i64> {
        let (number, _) = self.truth.find_category(&category_id.into())?;
        self.classes.get(&number).copied()
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
        self.told(self.findings.iter().map(Finding::to_string).collect())
    }

    /// As [`CocoDataset::warnings`], of images that predictions are scored on: what the evaluator
    /// makes of the problems, but for those that its own notes tell of.
    pub fn scoring_warnings(&self) -> Vec<String> {
        let scored = self.findings.iter().filter_map(|found| found.clone().scored());
        self.told(scored.map(|found| found.to_string()).collect())
    }

    fn told(&self, mut warnings: Vec<String>) -> Vec<String> {
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

    /// For each object to train on in image `index` the side of a square as large as its box, in
    /// pixels; of one without a box the area of its mask is taken.
    pub fn object_sides(&self, index: usize) -> impl Iterator<Item = f64> {
        let annotations = &self.truth.dataset.annotations;
        self.objects[index].iter().filter_map(|&place| {
            let annotation = &annotations[place as usize];
            let of_box = annotation.bbox.map(|[_, _, width, height]| width * height);
            of_box.or(annotation.area).map(f64::sqrt)
        })
    }

    /// Whether objects have masks here, and not their boxes for masks.
    pub fn has_masks(&self) -> bool {
        self.masks
    }

    /// The objects of image `index` to train on: those that are no crowd and have a usable box
    /// and mask. Of a data set opened for boxes, the masks are the boxes.
    ///
    /// # Errors
    /// [`Error::Format`] for a mask that can't be decoded.
    pub fn objects(&self, index: usize) -> Result<Objects> {
        let image = self.record(index);
        let mut objects = Objects::default();
        for &place in &self.objects[index] {
            let annotation = &self.truth.dataset.annotations[place as usize];
            let corners = annotation.bbox.map(|[x, y, w, h]| [x, y, x + w, y + h]);
            let (bounds, mask) = match corners {
                Some(bounds) if !self.masks => (bounds, rectangle(bounds)),
                given => {
                    let mask = self.mask(annotation, image)?;
                    (given.or_else(|| mask.bounding_box()).unwrap_or_default(), mask)
                }
            };
            objects.boxes.push(bounds);
            objects.classes.push(self.classes[&annotation.category_id]);
            objects.masks.push(mask);
        }
        Ok(objects)
    }

    fn mask(&self, annotation: &Annotation, image: &hotcoco::Image) -> Result<InstanceMask> {
        let broken = |why: String| {
            let problem = format!("the mask of {}: {why}", self.truth.annotation(annotation.id));
            Error::format(&self.annotations, problem)
        };
        let mask =
            annotation.segmentation.as_ref().ok_or_else(|| broken("there is none".into()))?;
        if let Some(polygons) = mask.polygons() {
            let polygons = polygons.iter().filter(|polygon| findings::is_polygon(polygon));
            return Ok(InstanceMask::Polygons(polygons.cloned().collect()));
        }
        let rle = mask.to_rle(image.height, image.width);
        let rle = rle.map_err(|_| broken("its run lengths do not fit the image".into()))?;
        Ok(InstanceMask::Rle(rle))
    }

    /// Image `index`, decoded to RGB.
    ///
    /// # Errors
    /// [`Error::Engine`] when it can't be read or has another size than its record.
    pub fn image(&self, index: usize) -> Result<Image> {
        decode(&self.folder, self.record(index))
    }

    /// For each class here the class of `other` of the same name: what was trained on one can be
    /// scored on the other, whatever their ids.
    ///
    /// # Errors
    /// [`Error::Format`] for `other`'s file with the names that differ.
    pub fn require_same_classes(&self, other: &CocoDataset) -> Result<Vec<usize>> {
        same_classes(&self.names(), &other.names()).map_err(|problem| {
            let problem =
                format!("its classes are not those of {}: {problem}", self.annotations.display());
            Error::format(&other.annotations, problem)
        })
    }
}

/// A box as a mask: what a detector of boxes needs of one when images are cropped.
fn rectangle([x1, y1, x2, y2]: [f64; 4]) -> InstanceMask {
    InstanceMask::Polygons(vec![vec![x1, y1, x2, y1, x2, y2, x1, y2]])
}

/// For each of the class names `ours` the place of the same name in `theirs`. Where a name is
/// used twice, the lists must be the same.
///
/// # Errors
/// Which names only one of them has.
pub(crate) fn same_classes(
    ours: &[String],
    theirs: &[String],
) -> std::result::Result<Vec<usize>, String> {
    if ours == theirs {
        return Ok((0..ours.len()).collect());
    }
    let missing = |of: &[String], among: &[String]| -> Vec<String> {
        of.iter().filter(|name| !among.contains(name)).map(|name| format!("{name:?}")).collect()
    };
    let named = |names: Vec<String>| {
        let more = if names.len() > LISTED { ", …" } else { "" };
        format!("{}{more}", names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", "))
    };
    let (lacking, further) = (missing(ours, theirs), missing(theirs, ours));
    let mut problems = Vec::new();
    if !lacking.is_empty() {
        problems.push(format!("it lacks {}", named(lacking)));
    }
    if !further.is_empty() {
        problems.push(format!("it has {} besides", named(further)));
    }
    if problems.is_empty() && ours.len() != theirs.len() {
        let categories = counted(theirs.len(), "category");
        problems.push(format!("it has {categories}, not {}", ours.len()));
    }
    let place = |name: &String| theirs.iter().position(|other| other == name);
    let places: Vec<usize> = ours.iter().filter_map(place).collect();
    let distinct: std::collections::HashSet<&usize> = places.iter().collect();
    if problems.is_empty() && distinct.len() != ours.len() {
        problems.push("a name is used twice, and the order is another".into());
    }
    if problems.is_empty() { Ok(places) } else { Err(problems.join("; ")) }
}

/// The image of `record`, if it has the size that the record says.
pub(super) fn decode(folder: &Path, record: &hotcoco::Image) -> Result<Image> {
    let path = folder.join(&record.file_name);
    let bytes = std::fs::read(&path).map_err(|e| data::Error::io(&path, e))?;
    let image = data::decode(&path, &bytes, 3)?;
    let (width, height) = (record.width as usize, record.height as usize);
    if (image.width(), image.height()) != (width, height) {
        let (w, h) = (image.width(), image.height());
        let mut problem = format!("it has {w}×{h} pixels, but its record says {width}×{height}");
        let tag = data::orientation(&bytes).to_exif();
        if tag > 4 && (w, h) == (height, width) {
            problem.push_str(&format!(
                ": its EXIF orientation tag ({tag}) turns it by a quarter, as it is shown, while \
                 the record is of the picture as stored; label the picture as it is shown, or \
                 remove the tag (exiftool -Orientation= FILE) if the objects are where the record's \
                 size says"
            ));
        }
        return Err(data::Error::image(path, problem).into());
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
