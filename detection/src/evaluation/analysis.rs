//! What went wrong: TIDE's kinds of error and the confusion of classes.

use std::fmt;
use std::sync::Arc;

use hotcoco::{COCO, COCOeval};
use serde::Serialize;

use super::evaluator::{MAX_DETECTIONS, annotations, scoring};
use super::{Areas, ImageDetections, Kind, category_ids, category_names};
use crate::Result;
use crate::data::GroundTruth;

/// Thresholds of an analysis.
#[derive(Debug, Clone)]
pub struct AnalysisOptions {
    /// IoU from which on a detection fits an object.
    pub iou: f64,
    /// IoU up to which it has nothing to do with it.
    pub background_iou: f64,
    /// Detections below this score are left out of the confusion matrix, where
    /// every weak one would count like a strong one.
    pub min_score: f64,
    /// The images that count; all of the ground truth if none are named.
    pub images: Option<Vec<u64>>,
    /// Most detections of an image and class that count.
    pub max_detections: usize,
}

impl Default for AnalysisOptions {
    /// TIDE's IoU .5 and .1; scores from .3; a hundred detections.
    fn default() -> Self {
        Self {
            iou: 0.5,
            background_iou: 0.1,
            min_score: 0.3,
            images: None,
            max_detections: MAX_DETECTIONS,
        }
    }
}

/// Kinds of error, after "TIDE: A General Toolbox for Identifying Object
/// Detection Errors" (Bolya et al. 2020).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum ErrorKind {
    /// Right place, wrong class.
    Class,
    /// Right class, poor place.
    Location,
    /// Wrong class and poor place.
    Both,
    /// An object found a second time.
    Duplicate,
    /// Nothing there.
    Background,
    /// An object that no detection comes near.
    Missed,
    /// All detections that fit no object.
    FalsePositive,
    /// All objects that no detection fits.
    FalseNegative,
}

impl ErrorKind {
    /// The six kinds, then the two sums.
    pub const ALL: [ErrorKind; 8] = [
        ErrorKind::Class,
        ErrorKind::Location,
        ErrorKind::Both,
        ErrorKind::Duplicate,
        ErrorKind::Background,
        ErrorKind::Missed,
        ErrorKind::FalsePositive,
        ErrorKind::FalseNegative,
    ];

    /// A word or two for tables and pictures.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Class => "class",
            ErrorKind::Location => "location",
            ErrorKind::Both => "class and location",
            ErrorKind::Duplicate => "duplicate",
            ErrorKind::Background => "background",
            ErrorKind::Missed => "missed",
            ErrorKind::FalsePositive => "false positives",
            ErrorKind::FalseNegative => "false negatives",
        }
    }

    /// TIDE's name.
    fn key(self) -> &'static str {
        match self {
            ErrorKind::Class => "Cls",
            ErrorKind::Location => "Loc",
            ErrorKind::Both => "Both",
            ErrorKind::Duplicate => "Dupe",
            ErrorKind::Background => "Bkg",
            ErrorKind::Missed => "Miss",
            ErrorKind::FalsePositive => "FP",
            ErrorKind::FalseNegative => "FN",
        }
    }
}

/// What one kind of error costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ErrorShare {
    /// Which.
    pub kind: ErrorKind,
    /// AP that would be gained without it, 0 to 1.
    pub delta_ap: f64,
    /// How often it occurs; the sums are not counted.
    pub count: Option<u64>,
}

/// Which classes are taken for which.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Confusion {
    /// Category names by class.
    pub names: Vec<String>,
    /// Row by row, K + 1 of K + 1 counts: objects of class `row` found as
    /// class `column`. The last column counts objects that were not found, the
    /// last row detections where no object is.
    pub counts: Vec<u64>,
}

impl Confusion {
    /// Rows, and columns: the classes and one more.
    pub fn side(&self) -> usize {
        self.names.len() + 1
    }

    /// Objects of class `truth` found as class `found`.
    pub fn count(&self, truth: usize, found: usize) -> u64 {
        self.counts[truth * self.side() + found]
    }
}

/// Errors of boxes or masks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Analysis {
    /// What was compared.
    pub kind: Kind,
    /// IoU from which on a detection fits an object.
    pub iou: f64,
    /// AP at that IoU.
    pub ap: f64,
    /// In the order of [`ErrorKind::ALL`].
    pub errors: Vec<ErrorShare>,
    /// Detections from [`min_score`](AnalysisOptions::min_score) on.
    pub confusion: Confusion,
    /// The score from which on detections are in [`confusion`](Self::confusion).
    pub min_score: f64,
}

/// Sorts the errors among `images` by their kind.
///
/// # Errors
/// Detections of unknown images or classes, or without the masks that are to
/// be compared.
pub fn analyse(
    ground_truth: impl Into<GroundTruth>,
    images: &[ImageDetections],
    kind: Kind,
    options: &AnalysisOptions,
) -> Result<Analysis> {
    let ground_truth: GroundTruth = ground_truth.into();
    let ids = category_ids(&ground_truth);
    for ImageDetections { image_id, detections } in images {
        let size = ground_truth.get_img(*image_id).map(|image| (image.height, image.width));
        let Some(size) = size else {
            let rule = "the ground truth has no such id";
            return Err(crate::Error::invalid("image", image_id, rule));
        };
        for detection in detections {
            let id = ground_truth.image_id(*image_id);
            detection.check(&id, size, ids.len(), kind == Kind::Segm)?;
        }
    }
    let found = annotations(kind, Areas::OfKind, images, &ids);
    let found = ground_truth.load_res_anns(found).map_err(scoring)?;
    let mut eval = COCOeval::new(comparable(&ground_truth, kind), found, kind.iou_type());
    eval.params.cat_ids = ids;
    eval.params.max_dets = vec![1, 10, options.max_detections];
    eval.params.img_ids = options.images.clone().unwrap_or_default();
    eval.evaluate().map_err(scoring)?;
    let tide = eval.tide_errors(options.iou, options.background_iou).map_err(scoring)?;
    let errors = ErrorKind::ALL.map(|kind| ErrorShare {
        kind,
        delta_ap: tide.delta_ap.get(kind.key()).copied().unwrap_or(0.0),
        count: tide.counts.get(kind.key()).copied(),
    });
    let matrix = eval.confusion_matrix(options.iou, None, Some(options.min_score));
    Ok(Analysis {
        kind,
        iou: options.iou,
        ap: tide.ap_base,
        errors: errors.into(),
        confusion: Confusion { names: category_names(&ground_truth), counts: matrix.matrix },
        min_score: options.min_score,
    })
}

/// The objects that can be compared: of masks those that have one.
fn comparable(truth: &GroundTruth, kind: Kind) -> Arc<COCO> {
    let has_mask = |object: &hotcoco::Annotation| object.segmentation.is_some();
    if kind == Kind::Bbox || truth.dataset.annotations.iter().all(has_mask) {
        return truth.shared();
    }
    let mut dataset = truth.dataset.clone();
    dataset.annotations.retain(has_mask);
    Arc::new(COCO::from_dataset(dataset))
}

/// A table of the errors, AP in percent.
impl fmt::Display for Analysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, iou, ap) = (self.kind.name(), 100.0 * self.iou, 100.0 * self.ap);
        writeln!(f, "{kind} AP{iou:.0} {ap:.1}; without errors of one kind it would gain")?;
        writeln!(f, "{:<18}  {:>6}  {:>8}", "error", "AP", "count")?;
        for ErrorShare { kind, delta_ap, count } in &self.errors {
            let count = count.map_or(String::new(), |count| count.to_string());
            let line = format!("{:<18}  {:>6.2}  {count:>8}", kind.name(), 100.0 * delta_ap);
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
