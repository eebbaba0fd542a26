//! COCO results files: what was found, for pycocotools, servers and
//! [`CocoEvaluator`](super::CocoEvaluator) itself.
//!
//! Boxes and masks go into files of their own, as mmdet writes them: where an
//! entry has both, pycocotools takes the area of the box for that of the mask,
//! which shifts masks between small, medium and large.

mod entries;
mod read;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use data::write_atomically;
use hotcoco::Segmentation;
use serde::Serialize;

use super::{Areas, ImageDetections, Kind, category_ids};
use crate::data::{GroundTruth, Id};
use crate::{Error, Result};

pub use read::read;

/// One entry of a file.
#[derive(Debug, Serialize)]
struct Entry {
    image_id: Id,
    category_id: Id,
    #[serde(skip_serializing_if = "Option::is_none")]
    bbox: Option<[f64; 4]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segmentation: Option<Segmentation>,
    score: f64,
}

/// A file that was read.
#[derive(Debug)]
pub struct Results {
    /// What its entries have: boxes, masks, or both.
    pub kinds: Vec<Kind>,
    /// By image, each in the file's order. In a file of masks alone the boxes
    /// are those around the masks.
    pub images: Vec<ImageDetections>,
    /// Whose area pycocotools goes by for this file.
    pub areas: Areas,
    /// What was left out or is odd, a sentence each.
    pub notes: Vec<String>,
}

impl Results {
    /// What of them can be scored, and by whose areas. Where no object has a mask these are the
    /// boxes, of masks those around them; pycocotools then takes the masks' areas.
    pub fn to_evaluate(&self, ground_truth: &GroundTruth) -> (Vec<Kind>, Areas) {
        if self.kinds == [Kind::Segm] && !ground_truth.has_masks() {
            return (vec![Kind::Bbox], Areas::OfMasks);
        }
        (self.kinds.clone(), self.areas)
    }
}

/// Writes the boxes or the masks of `images` to `path`, whole or not at all,
/// with the ids of `ground_truth`.
///
/// # Errors
/// A class without category id, a detection without mask among masks, or a
/// file that cannot be written.
pub fn write(
    path: &Path,
    kind: Kind,
    images: &[ImageDetections],
    ground_truth: &GroundTruth,
) -> Result<()> {
    let numbers = category_ids(ground_truth);
    let category_ids: Vec<Id> = numbers.iter().map(|n| ground_truth.category_id(*n)).collect();
    let mut entries = Vec::new();
    for ImageDetections { image_id, detections } in images {
        let image_id = ground_truth.image_id(*image_id);
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
            let (image_id, category_id) = (image_id.clone(), category_id.clone());
            let score = detection.score;
            entries.push(Entry { image_id, category_id, bbox, segmentation, score });
        }
    }
    write_atomically(path, |temporary| {
        let io = |error| data::Error::io(path, error);
        let mut file = BufWriter::new(File::create(temporary).map_err(io)?);
        serde_json::to_writer(&mut file, &entries).map_err(|error| io(error.into()))?;
        file.flush().map_err(io)
    })?;
    Ok(())
}
