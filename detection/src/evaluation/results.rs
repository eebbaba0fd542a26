//! COCO results files: what was found, for pycocotools, servers and
//! [`CocoEvaluator`](super::CocoEvaluator) itself.
//!
//! Boxes and masks go into files of their own, as mmdet writes them: where an
//! entry has both, pycocotools takes the area of the box for that of the mask,
//! which shifts masks between small, medium and large.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use engine::checkpoint::write_atomically;
use hotcoco::{COCO, Segmentation};
use serde::{Deserialize, Serialize};

use super::{Detection, ImageDetections, Kind, RleMask, category_ids};
use crate::{Error, Result};

/// One entry of a file.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    image_id: u64,
    category_id: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bbox: Option<[f64; 4]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    segmentation: Option<Segmentation>,
    score: f64,
}

/// A file that was read.
#[derive(Debug)]
pub struct Results {
    /// What all its entries have: boxes, masks, or both.
    pub kinds: Vec<Kind>,
    /// By image, each in the file's order. In a file of masks alone the boxes
    /// are those around the masks.
    pub images: Vec<ImageDetections>,
}

/// Writes the boxes or the masks of `images` to `path`, whole or not at all;
/// `category_ids` by class, as [`category_ids`] gives them.
///
/// # Errors
/// A class without category id, a detection without mask among masks, or a
/// file that cannot be written.
pub fn write(
    path: &Path,
    kind: Kind,
    images: &[ImageDetections],
    category_ids: &[u64],
) -> Result<()> {
    let mut entries = Vec::new();
    for ImageDetections { image_id, detections } in images {
        for detection in detections {
            let Some(category_id) = category_ids.get(detection.class) else {
                let rule = format!("there are {} categories", category_ids.len());
                return Err(Error::invalid("class of a detection", detection.class, rule));
            };
            let (bbox, segmentation) = match (kind, &detection.mask) {
                (Kind::Bbox, _) => (Some(detection.bbox), None),
                (Kind::Segm, Some(mask)) => (None, Some(mask.segmentation())),
                (Kind::Segm, None) => {
                    let operand = format!("mask of a detection in image {image_id}");
                    return Err(Error::invalid(operand, "missing", "masks are to be written"));
                }
            };
            let (image_id, category_id) = (*image_id, *category_id);
            let score = detection.score;
            entries.push(Entry { image_id, category_id, bbox, segmentation, score });
        }
    }
    write_atomically(path, |temporary| {
        let io = |error| engine::Error::io(path, error);
        let mut file = BufWriter::new(File::create(temporary).map_err(io)?);
        serde_json::to_writer(&mut file, &entries).map_err(|error| io(error.into()))?;
        file.flush().map_err(io)
    })?;
    Ok(())
}

/// Reads a results file of anyone's for `ground_truth`.
///
/// # Errors
/// A file that cannot be read or is not a list of results; an image or
/// category that the ground truth has not; a mask that is not run lengths of
/// the image's size; entries of which some have boxes or masks and some not.
pub fn read(path: &Path, ground_truth: &COCO) -> Result<Results> {
    let file = fs::read(path).map_err(|error| engine::Error::io(path, error))?;
    let entries: Vec<Entry> = serde_json::from_slice(&file).map_err(|error| {
        let problem = format!("it is not a list of COCO results: {error}");
        Error::format(path, problem)
    })?;
    let classes: BTreeMap<u64, usize> = category_ids(ground_truth).into_iter().zip(0..).collect();
    let mut images: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    let (mut boxes, mut masks) = (0, 0);
    for (at, entry) in entries.iter().enumerate() {
        let detection = detection(entry, ground_truth, &classes)
            .map_err(|problem| Error::format(path, format!("entry {at} {problem}")))?;
        boxes += usize::from(entry.bbox.is_some());
        masks += usize::from(entry.segmentation.is_some());
        images.entry(entry.image_id).or_default().push(detection);
    }
    for (count, what) in [(boxes, "a bbox"), (masks, "a segmentation")] {
        if count != 0 && count != entries.len() {
            let problem =
                format!("{count} of {} entries have {what}, the others not", entries.len());
            return Err(Error::format(path, problem));
        }
    }
    let has = |kind: &Kind| match kind {
        Kind::Bbox => boxes > 0 || entries.is_empty(),
        Kind::Segm => masks > 0,
    };
    let kinds = [Kind::Bbox, Kind::Segm].into_iter().filter(has).collect();
    let images = images.into_iter();
    let images = images.map(|(image_id, detections)| ImageDetections { image_id, detections });
    Ok(Results { kinds, images: images.collect() })
}

/// An entry in our terms, or what is wrong with it.
fn detection(
    entry: &Entry,
    ground_truth: &COCO,
    classes: &BTreeMap<u64, usize>,
) -> std::result::Result<Detection, String> {
    let Some(image) = ground_truth.get_img(entry.image_id) else {
        return Err(format!("is of image {}, which the ground truth has not", entry.image_id));
    };
    let Some(class) = classes.get(&entry.category_id) else {
        return Err(format!(
            "is of category {}, which the ground truth has not",
            entry.category_id
        ));
    };
    let mask = match &entry.segmentation {
        None => None,
        Some(segmentation) => {
            let mask = RleMask::from_segmentation(segmentation)
                .map_err(|problem| format!("has a segmentation that {problem}"))?;
            let (height, width) = mask.size();
            if (height, width) != (image.height, image.width) {
                return Err(format!(
                    "has a mask of {height}×{width}, but image {} has {}×{}",
                    image.id, image.height, image.width
                ));
            }
            Some(mask)
        }
    };
    let bbox = match (entry.bbox, &mask) {
        (Some(bbox), _) => bbox,
        (None, Some(mask)) => mask.bounding_box(),
        (None, None) => return Err("has neither bbox nor segmentation".to_owned()),
    };
    Ok(Detection { class: *class, score: entry.score, bbox, mask })
}
