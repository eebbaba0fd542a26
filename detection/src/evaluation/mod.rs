//! COCO evaluation: the twelve figures, results files, error analysis.
//!
//! [`CocoEvaluator`] is fed image by image and ends with a [`Report`]; the
//! matching, accumulating and mask arithmetic are hotcoco's, whose figures
//! equal pycocotools' to the last bits. [`results`] writes and reads the files
//! that pycocotools scores, [`analyse`] says what went wrong and where.
//!
//! Classes are numbered 0, 1, … in the order of their category ids, as
//! detectron2 numbers them; files hold the data set's own ids.

mod analysis;
mod curves;
mod detection;
mod evaluator;
mod mask;
mod report;
pub mod results;

use hotcoco::COCO;
use hotcoco::params::IouType;
use serde::{Deserialize, Serialize};

pub use analysis::{Analysis, AnalysisOptions, Confusion, ErrorKind, ErrorShare, analyse};
pub use curves::{PrecisionRecall, RECALLS};
pub use detection::{Detection, ImageDetections};
pub use evaluator::{Areas, CocoEvaluator, Evaluation, EvaluatorOptions};
pub use mask::RleMask;
pub use report::{ClassFigures, Figures, Report, Section};

/// What is compared between a detection and an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The boxes.
    Bbox,
    /// The masks.
    Segm,
}

impl Kind {
    /// COCO's name: `bbox` or `segm`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Bbox => "bbox",
            Kind::Segm => "segm",
        }
    }

    fn iou_type(self) -> IouType {
        match self {
            Kind::Bbox => IouType::Bbox,
            Kind::Segm => IouType::Segm,
        }
    }
}

/// Numbers of the categories by class: ascending, so that class 0 has the smallest id.
pub fn category_ids(ground_truth: &COCO) -> Vec<u64> {
    let mut ids: Vec<u64> = ground_truth.dataset.categories.iter().map(|c| c.id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Category names by class; `category 7` where the file gives none.
pub fn category_names(ground_truth: &COCO) -> Vec<String> {
    let name = |id: u64| match ground_truth.get_cat(id) {
        Some(category) if !category.name.is_empty() => category.name.clone(),
        _ => format!("category {id}"),
    };
    category_ids(ground_truth).into_iter().map(name).collect()
}
