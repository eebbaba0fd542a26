//! What is wrong with an annotation file, and which of its objects can be trained on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use hotcoco::{Annotation, Dataset, Image, Segmentation};
use serde::Serialize;

use super::annotations::{AnnotationFile, GroundTruth};

/// Examples listed of each kind of finding.
const EXAMPLES: usize = 5;
/// Pixels that coordinates may lie outside their image without mention: annotation tools round.
const SLACK: f64 = 1.0;

/// Whether a data set with a finding can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It can't.
    Error,
    /// It can; the text says what becomes of the thing found.
    Warning,
}

/// One kind of problem in an annotation file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether the file can be used all the same.
    pub severity: Severity,
    /// A name to tell it by: `unknown_category`, ….
    pub code: String,
    /// What is wrong, as a clause after the number of cases.
    pub problem: String,
    /// How often it was found.
    pub count: usize,
    /// The first cases.
    pub examples: Vec<String>,
}

impl Finding {
    /// Of a kind of the list.
    pub(super) fn of(code: &str, count: usize, examples: Vec<String>) -> Option<Self> {
        let (severity, _, problem) = kinds().find(|(_, known, _)| *known == code)?;
        Some(Self { severity, code: code.into(), problem: problem.into(), count, examples })
    }

    /// The same of objects that predictions are scored against; none where the evaluator's own
    /// notes say it.
    pub(super) fn scored(mut self) -> Option<Self> {
        if self.code == "no_mask" {
            return None;
        }
        if let Some((_, problem)) = SCORED.iter().find(|(code, _)| *code == self.code) {
            self.problem = (*problem).into();
        }
        Some(self)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.count, self.problem)?;
        if !self.examples.is_empty() {
            let more = if self.count > self.examples.len() { ", …" } else { "" };
            write!(f, ": {}{more}", self.examples.join(", "))?;
        }
        Ok(())
    }
}

/// The kinds of problem that forbid to use the file: code, and what is wrong.
const ERRORS: [(&str, &str); 5] = [
    ("no_images", "file without a record in `images` that can be used"),
    ("no_categories", "file without a record in `categories` that can be used"),
    ("duplicate_image_id", "image ids are used twice"),
    ("duplicate_category_id", "category ids are used twice"),
    ("unknown_category", "annotations have a category_id that is not in `categories`"),
];

/// The other kinds.
const WARNINGS: [(&str, &str); 34] = [
    ("bad_image", "images can't be read and are left out"),
    ("bad_category", "categories can't be read and are left out"),
    ("category_without_name", "categories have no name and are called after their id"),
    ("bad_annotation", "annotations can't be read and are left out"),
    ("bad_size", "sides of images can't be read"),
    ("image_without_size", "images lack a width or height and are left out"),
    ("image_without_name", "images lack a file_name and are left out"),
    ("repeated_record", "records are there twice and taken once"),
    ("annotation_without_id", "annotations have no id that can be used"),
    (
        "id_of_other_type",
        "annotations name image or category by a text for a number or a number for a text; these \
         are taken for each other",
    ),
    ("number_as_text", "numbers are written as texts and read as numbers"),
    ("null_iscrowd", "annotations have an iscrowd of null, which is taken for 0"),
    ("bad_area", "annotations have an area that can't be read; their mask's or box's is taken"),
    ("unreadable_mask", "annotations have a segmentation that can't be read; it counts as none"),
    ("duplicate_category_name", "category names are used twice"),
    ("duplicate_file_name", "images have a file_name that another has too"),
    ("unknown_image", "annotations have an image_id that is not in `images` and are ignored"),
    ("duplicate_annotation_id", "annotation ids are used twice; all are kept"),
    ("no_mask", "objects have no segmentation and are not trained on"),
    (
        "broken_mask",
        "objects have a segmentation that covers nothing or can't be read and are not trained on",
    ),
    ("degenerate_box", "objects have a box without area and are not trained on"),
    ("outside", "objects lie outside their image altogether and are not trained on"),
    ("box_out_of_bounds", "boxes reach outside their image and are cut"),
    ("mask_out_of_bounds", "masks reach outside their image and are cut"),
    ("no_box", "objects have no box; their mask's is taken"),
    (
        "lvis",
        "images are LVIS's, of which not all objects are labelled: its own figures are others",
    ),
    ("zero_area", "annotations have an area of 0"),
    ("extreme_aspect_ratio", "boxes are over 20 times as long as wide"),
    (
        "near_duplicate",
        "annotations are nearly the same as another (same class and image, IoU above 0.95)",
    ),
    (
        "near_duplicate_check_skipped",
        "images have over 100 objects of a class, among which no duplicates were looked for",
    ),
    ("zero_instance_category", "categories have no object"),
    ("low_instance_category", "categories have fewer than 10 objects"),
    ("missing_file", "image files are missing"),
    ("unreadable_file", "image files can't be used"),
];

/// What becomes of the thing found where it is scored, of the kinds that say what becomes of it in
/// training: the scores are pycocotools', which leaves out nothing and cuts nothing.
const SCORED: [(&str, &str); 5] = [
    (
        "broken_mask",
        "objects have a segmentation that covers nothing or can't be read; they count as objects, \
         which no mask can find",
    ),
    ("degenerate_box", "objects have a box without area; they count as objects"),
    ("outside", "objects lie outside their image altogether; they count as objects"),
    ("box_out_of_bounds", "boxes reach outside their image and are scored as they are"),
    ("mask_out_of_bounds", "masks reach outside their image and are cut"),
];

/// All kinds, errors first.
fn kinds() -> impl Iterator<Item = (Severity, &'static str, &'static str)> {
    let of = |severity| move |&(code, problem): &(_, _)| (severity, code, problem);
    ERRORS.iter().map(of(Severity::Error)).chain(WARNINGS.iter().map(of(Severity::Warning)))
}

/// The kinds that leave out images.
const OF_IMAGES: [&str; 5] =
    ["bad_image", "bad_size", "image_without_size", "image_without_name", "lvis"];

/// What was found in an annotation file.
pub(super) struct Inspection {
    /// The kinds of problem met, errors first.
    pub findings: Vec<Finding>,
    /// For each image record, the places in `annotations` of the objects to train on.
    pub objects: Vec<Vec<u32>>,
}

impl Inspection {
    /// Why the file can't be used, if it can't.
    pub fn problem(&self) -> Option<String> {
        let errors = self.findings.iter().filter(|found| found.severity == Severity::Error);
        let mut all: Vec<&Finding> = errors.collect();
        if all.iter().any(|found| found.code == "no_images") {
            all.extend(self.findings.iter().filter(|f| OF_IMAGES.contains(&f.code.as_str())));
        }
        let all: Vec<String> = all.into_iter().map(Finding::to_string).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Counts cases by kind.
#[derive(Default, Clone)]
pub(crate) struct Notes(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Notes {
    pub(crate) fn add(&mut self, code: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(code).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    /// In the order of the kinds: errors first.
    pub(crate) fn finish(mut self) -> Vec<Finding> {
        let found = kinds().filter_map(|(_, code, _)| {
            let (count, examples) = self.0.remove(code)?;
            Finding::of(code, count, examples)
        });
        found.collect()
    }
}

/// Leaves out the images of `file` that training and detection can't use: those without a size or
/// a name.
pub(super) fn leave_out_images(file: &mut AnnotationFile) {
    let AnnotationFile { truth, notes, .. } = file;
    let all = truth.dataset.images.len();
    let mut kept = HashSet::new();
    for image in &truth.dataset.images {
        let id = || format!("image {}", truth.image_id(image.id));
        if image.width == 0 || image.height == 0 {
            notes.add("image_without_size", id);
        } else if image.file_name.is_empty() {
            notes.add("image_without_name", id);
        } else {
            kept.insert(image.id);
        }
    }
    if kept.len() < all {
        file.truth.retain_images(|image| kept.contains(&image.id));
    }
}

/// Looks through all of a file; `masks` says whether objects need them.
pub(super) fn inspect(truth: &GroundTruth, masks: bool, mut notes: Notes) -> Inspection {
    let dataset = &truth.dataset;
    inspect_records(dataset, &mut notes);
    let places: HashMap<u64, usize> =
        dataset.images.iter().enumerate().map(|(place, image)| (image.id, place)).collect();
    let mut objects = vec![Vec::new(); dataset.images.len()];
    for (number, annotation) in dataset.annotations.iter().enumerate() {
        let place = places.get(&annotation.image_id).filter(|_| !annotation.iscrowd);
        let Some(&place) = place else { continue };
        let name = || truth.annotation(annotation.id);
        match inspect_object(annotation, &dataset.images[place], masks, &mut notes, name) {
            Ok(()) => objects[place].push(number as u32),
            Err((code, why)) => notes.add(code, || format!("{}{why}", name())),
        }
    }
    Inspection { findings: notes.finish(), objects }
}

/// Images and categories.
fn inspect_records(dataset: &Dataset, notes: &mut Notes) {
    if dataset.images.is_empty() {
        notes.add("no_images", || "nothing to read".into());
    }
    if dataset.categories.is_empty() {
        notes.add("no_categories", || "no class to detect".into());
    }
    for name in repeated(dataset.categories.iter().map(|category| &category.name)) {
        notes.add("duplicate_category_name", || format!("{name:?}"));
    }
    for name in repeated(dataset.images.iter().map(|image| &image.file_name)) {
        notes.add("duplicate_file_name", || name.clone());
    }
}

/// Those that were there before, in order.
fn repeated<T: std::hash::Hash + Eq + Copy>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = HashSet::new();
    all.filter(|&one| !seen.insert(one)).collect()
}

/// Whether an object can be trained on, or the kind of problem that forbids it, with what there
/// is to say about it.
fn inspect_object(
    annotation: &Annotation,
    image: &Image,
    masks: bool,
    notes: &mut Notes,
    name: impl Fn() -> String,
) -> Result<(), (&'static str, String)> {
    let plain = |code| (code, String::new());
    let mask = annotation.segmentation.as_ref();
    if masks || annotation.bbox.is_none() {
        let mask = mask.ok_or_else(|| plain("no_mask"))?;
        let extent = mask_extent(mask, image)
            .ok_or_else(|| ("broken_mask", other_size(mask, image).unwrap_or_default()))?;
        if outside(extent, image).ok_or_else(|| plain("outside"))? {
            notes.add("mask_out_of_bounds", &name);
        }
    }
    let Some([x, y, width, height]) = annotation.bbox else {
        notes.add("no_box", &name);
        return Ok(());
    };
    if !(width > 0.0 && height > 0.0) {
        return Err(plain("degenerate_box"));
    }
    if self::outside([x, y, x + width, y + height], image).ok_or_else(|| plain("outside"))? {
        notes.add("box_out_of_bounds", &name);
    }
    Ok(())
}

/// What is to be said of run lengths of another size than the image's.
fn other_size(mask: &Segmentation, image: &Image) -> Option<String> {
    let (hotcoco::mask::RleRef::Compressed { h, w, .. } | hotcoco::mask::RleRef::Runs { h, w, .. }) =
        mask.rle_ref()?;
    let (height, width) = (image.height, image.width);
    ((h, w) != (height, width)).then(|| {
        format!(" (its size is [{h}, {w}], but the image has height {height} and width {width})")
    })
}

/// (x1, y1, x2, y2) around a mask; none if it covers nothing or is not one of `image`.
pub(super) fn mask_extent(mask: &Segmentation, image: &Image) -> Option<[f64; 4]> {
    if let Some(rle) = mask.rle_ref() {
        let (hotcoco::mask::RleRef::Compressed { h, w, .. }
        | hotcoco::mask::RleRef::Runs { h, w, .. }) = rle;
        if (h, w) != (image.height, image.width) {
            return None;
        }
        let (area, [x, y, width, height]) = rle.area_and_bbox().ok()?;
        return (area > 0).then_some([x, y, x + width, y + height]);
    }
    let polygons = mask.polygons()?;
    let points =
        polygons.iter().filter(|polygon| is_polygon(polygon)).flat_map(|p| p.chunks_exact(2));
    points.fold(None, |extent, point| {
        let (x, y) = (point[0], point[1]);
        let [x1, y1, x2, y2] = extent.unwrap_or([x, y, x, y]);
        Some([x1.min(x), y1.min(y), x2.max(x), y2.max(y)])
    })
}

/// Whether `polygon` has corners enough to enclose something (detectron2's rule for annotations
/// to keep) and only finite ones.
pub(super) fn is_polygon(polygon: &[f64]) -> bool {
    polygon.len() >= 6 && polygon.len().is_multiple_of(2) && polygon.iter().all(|v| v.is_finite())
}

/// Whether a box reaches outside its image; none if it does not touch it.
fn outside([x1, y1, x2, y2]: [f64; 4], image: &Image) -> Option<bool> {
    let (width, height) = (f64::from(image.width), f64::from(image.height));
    if x1 >= width || y1 >= height || x2 <= 0.0 || y2 <= 0.0 {
        return None;
    }
    Some(x1 < -SLACK || y1 < -SLACK || x2 > width + SLACK || y2 > height + SLACK)
}
