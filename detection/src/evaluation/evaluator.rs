//! The evaluator that is fed image by image.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hotcoco::params::Params;
use hotcoco::{AccumulatedEval, Annotation, COCO, COCOeval, Category, EvalMode, StreamingEval};

use super::curves::PrecisionRecall;
use super::report::{ClassFigures, Figures, IOU_50, Report, Section};
use super::{Detection, ImageDetections, Kind, category_ids, category_names};
use crate::{Error, Result};

/// Images that are matched together: enough to spread over threads, few enough
/// that their masks take no memory to speak of.
const BATCH: usize = 128;

/// What is evaluated.
#[derive(Debug, Clone)]
pub struct EvaluatorOptions {
    /// Boxes, masks, or both.
    pub kinds: Vec<Kind>,
    /// Whether [`Evaluation::detections`] holds what was added, for
    /// [`analyse`](super::analyse) and results files: some 300 bytes a
    /// detection. Without it 20 bytes are kept.
    pub keep_detections: bool,
    /// The images that count; all of the ground truth if none are named.
    pub images: Option<Vec<u64>>,
}

impl Default for EvaluatorOptions {
    /// Boxes and masks of all images, detections not kept.
    fn default() -> Self {
        Self { kinds: vec![Kind::Bbox, Kind::Segm], keep_detections: false, images: None }
    }
}

/// Scores detections against a COCO data set as pycocotools does, while they
/// come.
pub struct CocoEvaluator {
    ground_truth: Arc<COCO>,
    category_ids: Vec<u64>,
    /// Images that count and have not been added.
    awaited: BTreeSet<u64>,
    images: usize,
    streams: Vec<(Kind, StreamingEval)>,
    /// Added, but not matched yet.
    pending: Vec<ImageDetections>,
    kept: Option<Vec<ImageDetections>>,
}

/// A finished evaluation.
pub struct Evaluation {
    /// The figures.
    pub report: Report,
    /// COCO's precision and recall over (IoU, recall, class, area, detections).
    pub arrays: BTreeMap<Kind, AccumulatedEval>,
    /// What was added, in order of image ids, if that was to be kept.
    pub detections: Option<Vec<ImageDetections>>,
}

impl Evaluation {
    /// Precision against recall at IoU .50 + .05 · `step`; none of what was
    /// not evaluated.
    ///
    /// # Panics
    /// `step` is above 9.
    pub fn precision_recall(&self, kind: Kind, step: usize) -> Option<PrecisionRecall> {
        assert!(step < 10, "IoU thresholds end with step 9, not {step}");
        Some(PrecisionRecall::at(self.arrays.get(&kind)?, IOU_50 + step))
    }
}

impl CocoEvaluator {
    /// Nothing added yet.
    ///
    /// # Errors
    /// No categories; an image named in the options that is not in the ground
    /// truth; or, where masks are evaluated, an object without a mask or an
    /// image without a size.
    pub fn new(ground_truth: impl Into<Arc<COCO>>, options: EvaluatorOptions) -> Result<Self> {
        let ground_truth = ground_truth.into();
        let category_ids = category_ids(&ground_truth);
        if category_ids.is_empty() {
            let rule = "evaluation needs at least one";
            return Err(Error::invalid("number of categories in the ground truth", 0, rule));
        }
        let all = || ground_truth.dataset.images.iter().map(|image| image.id).collect();
        let awaited: BTreeSet<u64> = match options.images {
            Some(images) => images.into_iter().collect(),
            None => all(),
        };
        if let Some(id) = awaited.iter().find(|id| ground_truth.get_img(**id).is_none()) {
            return Err(Error::invalid("image to evaluate", id, "the ground truth has no such id"));
        }
        let mut kinds = options.kinds;
        kinds.sort_unstable();
        kinds.dedup();
        if kinds.contains(&Kind::Segm) {
            check_masks(&ground_truth, &awaited)?;
        }
        let categories = &ground_truth.dataset.categories;
        let stream = |kind| Ok((kind, stream(kind, categories.clone(), &category_ids)?));
        let streams = kinds.into_iter().map(stream).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            category_ids,
            images: awaited.len(),
            awaited,
            streams,
            pending: Vec::new(),
            kept: options.keep_detections.then(Vec::new),
            ground_truth,
        })
    }

    /// Adds all that was found in an image, possibly nothing.
    ///
    /// # Errors
    /// An image that does not count or was added before; an unknown class, a
    /// score or box that is not finite, a mask of another size than the
    /// image's.
    pub fn add(&mut self, image_id: u64, detections: Vec<Detection>) -> Result<()> {
        let Some(image) = self.ground_truth.get_img(image_id) else {
            return Err(Error::invalid("image", image_id, "the ground truth has no such id"));
        };
        if !self.awaited.contains(&image_id) {
            let rule = "it was added before, or is not among those to evaluate";
            return Err(Error::invalid("image", image_id, rule));
        }
        let (size, classes) = ((image.height, image.width), self.category_ids.len());
        let masks = self.streams.iter().any(|(kind, _)| *kind == Kind::Segm);
        for detection in &detections {
            detection.check(image_id, size, classes, masks)?;
        }
        self.awaited.remove(&image_id);
        self.pending.push(ImageDetections { image_id, detections });
        if self.pending.len() >= BATCH { self.match_pending() } else { Ok(()) }
    }

    /// Leaves out, with their objects, the images that have not been added so far:
    /// nothing could be found in them, since they cannot be read.
    pub fn leave_out_rest(&mut self) {
        self.images -= self.awaited.len();
        self.awaited.clear();
    }

    /// The figures. Images that were never added count as ones in which
    /// nothing was found.
    ///
    /// # Errors
    /// The evaluation fails inside.
    pub fn finish(mut self) -> Result<Evaluation> {
        for image_id in std::mem::take(&mut self.awaited) {
            self.pending.push(ImageDetections { image_id, detections: Vec::new() });
        }
        for _ in 0..self.pending.len().div_ceil(BATCH) {
            self.match_pending()?;
        }
        let mut report = Report { images: self.images, bbox: None, segm: None };
        let mut arrays = BTreeMap::new();
        let names = category_names(&self.ground_truth);
        for (kind, stream) in self.streams {
            let (section, eval) = summarise(stream.finalize(), &self.category_ids, &names)?;
            match kind {
                Kind::Bbox => report.bbox = Some(section),
                Kind::Segm => report.segm = Some(section),
            }
            arrays.insert(kind, eval);
        }
        let detections = self.kept.map(|mut kept| {
            kept.retain(|image| !image.detections.is_empty());
            kept.sort_by_key(|image| image.image_id);
            kept
        });
        Ok(Evaluation { report, arrays, detections })
    }

    /// Matches (at most [`BATCH`] of) the images that wait.
    fn match_pending(&mut self) -> Result<()> {
        let batch: Vec<_> = self.pending.drain(..self.pending.len().min(BATCH)).collect();
        let ids: Vec<u64> = batch.iter().map(|image| image.image_id).collect();
        let images: Vec<_> = self.ground_truth.load_imgs(&ids).into_iter().cloned().collect();
        let objects = ids.iter().flat_map(|id| self.ground_truth.get_ann_ids_for_img(*id));
        let objects = self.ground_truth.load_anns(&objects.copied().collect::<Vec<_>>());
        for (kind, stream) in &mut self.streams {
            let objects = objects.iter().map(|object| object_for(*kind, object)).collect();
            let found = annotations(*kind, &batch, &self.category_ids);
            stream.update(images.clone(), objects, found).map_err(scoring)?;
        }
        if let Some(kept) = &mut self.kept {
            kept.extend(batch);
        }
        Ok(())
    }
}

/// COCO's settings for boxes or masks.
fn stream(kind: Kind, categories: Vec<Category>, ids: &[u64]) -> Result<StreamingEval> {
    let mut params = Params::new(kind.iou_type());
    params.cat_ids = ids.to_vec();
    StreamingEval::new(params, EvalMode::Coco, categories).map_err(scoring)
}

/// The entries of a results file.
pub(super) fn annotations(
    kind: Kind,
    images: &[ImageDetections],
    category_ids: &[u64],
) -> Vec<Annotation> {
    let of_image = |image: &ImageDetections| {
        let rows = image.detections.iter();
        let row = |row: &Detection| row.annotation(kind, image.image_id, category_ids[row.class]);
        rows.map(row).collect::<Vec<_>>()
    };
    images.iter().flat_map(of_image).collect()
}

/// An object as the comparison needs it: for boxes without its mask, unless
/// that has to give its area.
fn object_for(kind: Kind, object: &Annotation) -> Annotation {
    if kind == Kind::Segm || object.area.is_none() {
        return object.clone();
    }
    Annotation {
        image_id: object.image_id,
        category_id: object.category_id,
        bbox: object.bbox,
        area: object.area,
        iscrowd: object.iscrowd,
        ..Annotation::default()
    }
}

fn summarise(
    mut eval: COCOeval,
    category_ids: &[u64],
    names: &[String],
) -> Result<(Section, AccumulatedEval)> {
    eval.accumulate();
    eval.summarize_lines();
    let figures = eval.stats().and_then(|figures| <[f64; 12]>::try_from(figures).ok());
    let (Some(figures), Some(arrays)) = (figures, eval.accumulated()) else {
        return Err(Error::invalid("evaluation", "without result", "it must give 12 figures"));
    };
    let ids_and_names = category_ids.iter().zip(names);
    let classes = ids_and_names
        .enumerate()
        .map(|(k, (&id, name))| ClassFigures::of(arrays, k, id, name.clone()))
        .collect();
    Ok((Section { figures: Figures::from_array(figures), classes }, arrays.clone()))
}

/// Every object that counts has a mask on an image of known size.
fn check_masks(ground_truth: &COCO, images: &BTreeSet<u64>) -> Result<()> {
    let objects = ground_truth.dataset.annotations.iter();
    for object in objects.filter(|object| images.contains(&object.image_id)) {
        if object.segmentation.is_none() {
            let operand = format!("segmentation of annotation {}", object.id);
            let rule = "the evaluation of masks needs it; evaluate boxes alone otherwise";
            return Err(Error::invalid(operand, "missing", rule));
        }
    }
    for image in images.iter().filter_map(|id| ground_truth.get_img(*id)) {
        if image.height == 0 || image.width == 0 {
            let operand = format!("size of image {}", image.id);
            let value = format!("{}×{}", image.height, image.width);
            let rule = "the evaluation of masks needs its height and width";
            return Err(Error::invalid(operand, value, rule));
        }
    }
    Ok(())
}

/// What hotcoco says, as an error of this crate.
pub(super) fn scoring(error: hotcoco::Error) -> Error {
    Error::invalid("evaluation", "not possible", error.to_string())
}
