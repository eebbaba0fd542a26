//! Reading results, of whatever program.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use rayon::prelude::*;

use super::entries::{Entries, Entry};
use super::{Areas, Results};
use crate::Error;
use crate::data::annotations::{decode, walk_leniently};
use crate::data::{GroundTruth, Id};
use crate::evaluation::{Detection, ImageDetections, Kind, RleMask, category_ids};

/// Cases named in a note.
const NAMED: usize = 5;

/// What is said of entries, most important first.
const NOTES: [(&str, &str); 7] = [
    ("bad_entry", "entries can't be read and are left out"),
    ("no_shape", "entries have neither a bbox nor a segmentation and are left out"),
    (
        "unknown_category",
        "entries are of a category that the ground truth has not and are left out, as by \
         pycocotools",
    ),
    ("unknown_image", "entries are of an image that the ground truth has not and are left out"),
    ("bad_mask", "entries have a segmentation that can't be used; as masks they fit nothing"),
    ("no_mask", "entries have no segmentation, others have; as masks they fit nothing"),
    ("negative_side", "entries have a box with a negative side, which fits nothing"),
];

/// Counts and first cases of what is said of entries.
#[derive(Default)]
struct Notes(BTreeMap<&'static str, (usize, Vec<String>)>);

impl Notes {
    fn add(&mut self, code: &'static str, place: usize, problem: &str) {
        let (count, named) = self.0.entry(code).or_default();
        *count += 1;
        if named.len() < NAMED {
            let why = if problem.is_empty() { String::new() } else { format!(" ({problem})") };
            named.push(format!("entry {place}{why}"));
        }
    }

    fn finish(self) -> Vec<String> {
        let said = NOTES.iter().filter_map(|(code, what)| {
            let (count, named) = self.0.get(code)?;
            let more = if *count > named.len() { ", …" } else { "" };
            Some(format!("{count} {what}: {}{more}", named.join(", ")))
        });
        said.collect()
    }
}

/// Reads a results file of anyone's for `ground_truth`: a list of entries, or an object with
/// images, categories and annotations with scores as `detect predict` writes it, whose images and
/// categories then are found by their names.
///
/// Entries that can't be used are left out with a note. Masks may be polygons or run lengths.
///
/// # Errors
/// A file that cannot be read or holds no results; an image that the ground truth has not.
pub fn read(path: &Path, ground_truth: &GroundTruth) -> crate::Result<Results> {
    let bytes = fs::read(path).map_err(|error| data::Error::io(path, error))?;
    parse(path, bytes, ground_truth)
}

pub(super) fn parse(path: &Path, bytes: Vec<u8>, truth: &GroundTruth) -> crate::Result<Results> {
    let refuse = |problem: String| Error::format(path, problem);
    let mut text = decode(bytes).map_err(&refuse)?;
    let mut file = Entries::default();
    walk_leniently(&mut text, &mut file)
        .map_err(|error| refuse(format!("it is not a list of COCO results: {error}")))?;
    drop(text);
    if !file.seen {
        return Err(refuse("it is not a list of COCO results: it has no annotations".into()));
    }
    let all = file.entries.len();
    let unusable = file.entries.iter().all(Result::is_err);
    if let (true, Some(Err(problem))) = (unusable, file.entries.first()) {
        let problems = || file.entries.iter().flat_map(|entry| entry.as_ref().err());
        let is_truth = problems().all(|problem| problem.starts_with("score is missing"));
        let hint = if is_truth {
            ": without scores it is an annotation file, not one of results"
        } else {
            ""
        };
        return Err(refuse(format!(
            "none of its {all} entries is usable{hint} (entry 0: {problem})"
        )));
    }
    let names = Names::of(&file, truth).map_err(&refuse)?;
    let entries = std::mem::take(&mut file.entries);
    let (boxes, masks) = shapes(&entries);
    let classes: HashMap<u64, usize> = category_ids(truth).into_iter().zip(0..).collect();
    let find = |entry: Result<Entry, String>| match entry {
        Ok(entry) => detection(entry, truth, &names, &classes, masks > 0),
        Err(problem) => Found::left_out("bad_entry", problem),
    };
    let found: Vec<Found> = entries.into_par_iter().map(find).collect();

    let mut notes = Notes::default();
    let mut images: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    for (place, found) in found.into_iter().enumerate() {
        if let Some(id) = found.unknown_image {
            return Err(refuse(format!(
                "entry {place} is of image {id}, which the ground truth has not"
            )));
        }
        found.notes.iter().for_each(|(code, problem)| notes.add(code, place, problem));
        if let Some((image_id, detection)) = found.detection {
            images.entry(image_id).or_default().push(detection);
        }
    }
    let has = |kind: &Kind| match kind {
        Kind::Bbox => boxes > 0 || masks == 0,
        Kind::Segm => masks > 0,
    };
    let images = images.into_iter();
    let images = images.map(|(image_id, detections)| ImageDetections { image_id, detections });
    Ok(Results {
        kinds: [Kind::Bbox, Kind::Segm].into_iter().filter(has).collect(),
        images: images.collect(),
        areas: if boxes > 0 && masks > 0 { Areas::OfBoxes } else { Areas::OfKind },
        notes: notes.finish(),
    })
}

/// How many entries have boxes, and how many masks.
fn shapes(entries: &[Result<Entry, String>]) -> (usize, usize) {
    let usable = || entries.iter().flatten();
    let boxes = usable().filter(|entry| entry.bbox.is_some()).count();
    (boxes, usable().filter(|entry| entry.segmentation.is_some()).count())
}

/// The numbers in the ground truth of a file's own images and categories, by name; none where it
/// has only the ground truth's ids.
struct Names {
    images: Option<HashMap<Id, Option<u64>>>,
    categories: Option<HashMap<Id, Option<u64>>>,
}

impl Names {
    fn of(file: &Entries, truth: &GroundTruth) -> Result<Self, String> {
        let dataset = &truth.dataset;
        let images = dataset.images.iter().map(|image| (image.file_name.as_str(), image.id));
        let categories = dataset.categories.iter().map(|c| (c.name.as_str(), c.id));
        let images = by_name(&file.images, images, true);
        if let Some(found) = &images
            && found.values().all(Option::is_none)
            && let (Some(one), Some(other)) = (file.images.values().next(), dataset.images.first())
        {
            return Err(format!(
                "it is of other images than the ground truth: {one:?}, not {:?}",
                other.file_name
            ));
        }
        Ok(Self { images, categories: by_name(&file.categories, categories, false) })
    }
}

/// For each id of a file's own records the number of the record of the same name.
fn by_name<'a>(
    own: &HashMap<Id, String>,
    records: impl Iterator<Item = (&'a str, u64)>,
    files: bool,
) -> Option<HashMap<Id, Option<u64>>> {
    if own.is_empty() {
        return None;
    }
    let mut full: HashMap<&str, u64> = HashMap::new();
    // Predictions may name files from another folder on: their last part must do if it is one's.
    let mut last: HashMap<&str, Option<u64>> = HashMap::new();
    for (name, number) in records {
        full.insert(name, number);
        last.entry(last_part(name)).and_modify(|one| *one = None).or_insert(Some(number));
    }
    let find = |name: &str| {
        let by_last = || last.get(last_part(name)).copied().flatten();
        full.get(name).copied().or_else(|| if files { by_last() } else { None })
    };
    Some(own.iter().map(|(id, name)| (id.clone(), find(name))).collect())
}

fn last_part(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// What becomes of an entry.
#[derive(Default)]
struct Found {
    detection: Option<(u64, Detection)>,
    unknown_image: Option<Id>,
    notes: Vec<(&'static str, String)>,
}

impl Found {
    fn left_out(code: &'static str, problem: String) -> Self {
        Self { notes: vec![(code, problem)], ..Self::default() }
    }
}

/// An entry in our terms.
fn detection(
    entry: Entry,
    truth: &GroundTruth,
    names: &Names,
    classes: &HashMap<u64, usize>,
    masks: bool,
) -> Found {
    let Entry { image, category, bbox, segmentation, score, problem } = entry;
    let number = match &names.images {
        Some(images) => images.get(&image).copied().flatten(),
        None => truth.find_image(&image).map(|(number, _)| number),
    };
    let Some(record) = number.and_then(|number| truth.get_img(number)) else {
        if names.images.is_some() {
            return Found::left_out("unknown_image", format!("image {image}"));
        }
        return Found { unknown_image: Some(image), ..Found::default() };
    };
    let number = match &names.categories {
        Some(categories) => categories.get(&category).copied().flatten(),
        None => truth.find_category(&category).map(|(number, _)| number),
    };
    let Some(&class) = number.and_then(|number| classes.get(&number)) else {
        return Found::left_out("unknown_category", format!("category {category}"));
    };
    if bbox.is_none() && segmentation.is_none() {
        return Found::left_out("no_shape", problem.unwrap_or_default());
    }
    let mut notes = Vec::new();
    let mask = match &segmentation {
        None if !masks => None,
        None => {
            let code = if problem.is_some() { "bad_mask" } else { "no_mask" };
            notes.push((code, problem.unwrap_or_default()));
            RleMask::empty(record.height, record.width)
        }
        Some(segmentation) => match RleMask::of_segmentation(segmentation, record) {
            Ok(mask) => Some(mask),
            Err(problem) => {
                notes.push(("bad_mask", problem));
                RleMask::empty(record.height, record.width)
            }
        },
    };
    let bbox = match (bbox, &mask) {
        (Some(bbox), _) => bbox,
        (None, Some(mask)) => mask.bounding_box(),
        (None, None) => return Found::left_out("no_shape", String::new()),
    };
    if bbox[2] < 0.0 || bbox[3] < 0.0 {
        notes.push(("negative_side", format!("{bbox:?}")));
    }
    let detection = Some((record.id, Detection { class, score, bbox, mask }));
    Found { detection, notes, unknown_image: None }
}
