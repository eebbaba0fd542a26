//! What is wrong with an annotation file, and which of its objects can be trained on.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use hotcoco::{Annotation, Dataset, Image, Segmentation};
use serde::Serialize;

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

/// The kinds of problem: code, severity, and what is wrong.
const KINDS: [(&str, Severity, &str); 18] = [
    ("no_images", Severity::Error, "file without a record in `images`"),
    ("no_categories", Severity::Error, "file without a record in `categories`"),
    ("duplicate_image_id", Severity::Error, "image ids are used twice"),
    ("duplicate_category_id", Severity::Error, "category ids are used twice"),
    ("image_without_size", Severity::Error, "images lack a width or height"),
    ("image_without_name", Severity::Error, "images lack a file_name"),
    (
        "unknown_category",
        Severity::Error,
        "annotations have a category_id that is not in `categories`",
    ),
    ("duplicate_category_name", Severity::Warning, "category names are used twice"),
    ("duplicate_file_name", Severity::Warning, "images have a file_name that another has too"),
    (
        "unknown_image",
        Severity::Warning,
        "annotations have an image_id that is not in `images` and are ignored",
    ),
    ("duplicate_annotation_id", Severity::Warning, "annotation ids are used twice; all are kept"),
    ("no_mask", Severity::Warning, "objects have no segmentation and are not trained on"),
    (
        "broken_mask",
        Severity::Warning,
        "objects have a segmentation that covers nothing or can't be read and are not trained on",
    ),
    ("degenerate_box", Severity::Warning, "objects have a box without area and are not trained on"),
    (
        "outside",
        Severity::Warning,
        "objects lie outside their image altogether and are not trained on",
    ),
    ("box_out_of_bounds", Severity::Warning, "boxes reach outside their image and are cut"),
    ("mask_out_of_bounds", Severity::Warning, "masks reach outside their image and are cut"),
    ("no_box", Severity::Warning, "objects have no box; their mask's is taken"),
];

/// What was found in an annotation file.
pub(super) struct Inspection {
    /// The kinds of problem met, errors first.
    pub findings: Vec<Finding>,
    /// For each image record, the places in `annotations` of the objects to train on.
    pub objects: Vec<Vec<u32>>,
}

/// Counts cases by kind.
#[derive(Default)]
struct Notes(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Notes {
    fn add(&mut self, code: &'static str, example: impl FnOnce() -> String) {
        let (count, examples) = self.0.entry(code).or_default();
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(example());
        }
    }

    fn finish(mut self) -> Vec<Finding> {
        let found = KINDS.iter().filter_map(|&(code, severity, problem)| {
            let (count, examples) = self.0.remove(code)?;
            Some(Finding { severity, code: code.into(), problem: problem.into(), count, examples })
        });
        found.collect()
    }
}

/// Looks through all of `dataset`.
pub(super) fn inspect(dataset: &Dataset) -> Inspection {
    let mut notes = Notes::default();
    inspect_records(dataset, &mut notes);

    let places: HashMap<u64, usize> =
        dataset.images.iter().enumerate().map(|(place, image)| (image.id, place)).collect();
    let categories: HashMap<u64, ()> = dataset.categories.iter().map(|c| (c.id, ())).collect();
    let mut objects = vec![Vec::new(); dataset.images.len()];
    for (number, annotation) in dataset.annotations.iter().enumerate() {
        let (id, category) = (annotation.id, annotation.category_id);
        if !categories.contains_key(&category) {
            let example = || format!("annotation {id} (category {category})");
            notes.add("unknown_category", example);
            continue;
        }
        let Some(&place) = places.get(&annotation.image_id) else {
            let example = || format!("annotation {id} (image {})", annotation.image_id);
            notes.add("unknown_image", example);
            continue;
        };
        if annotation.iscrowd {
            continue;
        }
        match inspect_object(annotation, &dataset.images[place], &mut notes) {
            Ok(()) => objects[place].push(number as u32),
            Err(code) => notes.add(code, || format!("annotation {id}")),
        }
    }
    Inspection { findings: notes.finish(), objects }
}

/// Images, categories, and ids.
fn inspect_records(dataset: &Dataset, notes: &mut Notes) {
    if dataset.images.is_empty() {
        notes.add("no_images", || "nothing to read".into());
    }
    if dataset.categories.is_empty() {
        notes.add("no_categories", || "no class to detect".into());
    }
    for id in repeated(dataset.images.iter().map(|image| image.id)) {
        notes.add("duplicate_image_id", || format!("image {id}"));
    }
    for id in repeated(dataset.categories.iter().map(|category| category.id)) {
        notes.add("duplicate_category_id", || format!("category {id}"));
    }
    for name in repeated(dataset.categories.iter().map(|category| &category.name)) {
        notes.add("duplicate_category_name", || format!("{name:?}"));
    }
    for id in repeated(dataset.annotations.iter().map(|annotation| annotation.id)) {
        notes.add("duplicate_annotation_id", || format!("annotation {id}"));
    }
    for name in repeated(dataset.images.iter().map(|image| &image.file_name)) {
        if !name.is_empty() {
            notes.add("duplicate_file_name", || name.clone());
        }
    }
    for image in &dataset.images {
        if image.width == 0 || image.height == 0 {
            notes.add("image_without_size", || format!("image {}", image.id));
        }
        if image.file_name.is_empty() {
            notes.add("image_without_name", || format!("image {}", image.id));
        }
    }
}

/// Those that were there before, in order.
fn repeated<T: std::hash::Hash + Eq + Copy>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    all.filter(|&one| !seen.insert(one)).collect()
}

/// Whether an object can be trained on, or the kind of problem that forbids it.
fn inspect_object(
    annotation: &Annotation,
    image: &Image,
    notes: &mut Notes,
) -> Result<(), &'static str> {
    let id = annotation.id;
    let mask = annotation.segmentation.as_ref().ok_or("no_mask")?;
    let extent = mask_extent(mask, image).ok_or("broken_mask")?;
    let outside = outside(extent, image).ok_or("outside")?;
    if outside {
        notes.add("mask_out_of_bounds", || format!("annotation {id}"));
    }
    let Some([x, y, width, height]) = annotation.bbox else {
        notes.add("no_box", || format!("annotation {id}"));
        return Ok(());
    };
    if !(width > 0.0 && height > 0.0 && [x, y, width, height].iter().all(|v| v.is_finite())) {
        return Err("degenerate_box");
    }
    if self::outside([x, y, x + width, y + height], image).ok_or("outside")? {
        notes.add("box_out_of_bounds", || format!("annotation {id}"));
    }
    Ok(())
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
