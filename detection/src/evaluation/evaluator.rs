//! The evaluator that is fed image by image.

use std::collections::{BTreeMap, BTreeSet};

use hotcoco::params::Params;
use hotcoco::{AccumulatedEval, Annotation, COCOeval, Category, EvalMode, StreamingEval, mask};
use words::counted;

use super::curves::PrecisionRecall;
use super::report::{ClassFigures, Figures, IOU_50, Report, Section};
use super::{Detection, ImageDetections, Kind, category_ids, category_names};
use crate::data::GroundTruth;
use crate::{Error, Result};

/// Images that are matched together: enough to spread over threads, few enough
/// that their masks take no memory to speak of.
const BATCH: usize = 128;
/// Most detections of an image and class that count, unless more are asked for.
pub const MAX_DETECTIONS: usize = 100;
/// Annotations named in a note.
const NAMED: usize = 5;

/// Whose area decides whether a detection is small, medium or large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Areas {
    /// That of what is compared: a box's among boxes, a mask's among masks.
    #[default]
    OfKind,
    /// The box's among masks, too: pycocotools of a results file with both.
    OfBoxes,
    /// The mask's among boxes, too: pycocotools of a results file of masks alone.
    OfMasks,
}

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
    /// Most detections of an image and class that count, the best ones: COCO's 100, or more.
    pub max_detections: usize,
    /// Whose area decides about detections.
    pub areas: Areas,
}

impl Default for EvaluatorOptions {
    /// Boxes and masks of all images, detections not kept, a hundred of which count.
    fn default() -> Self {
        Self {
            kinds: vec![Kind::Bbox, Kind::Segm],
            keep_detections: false,
            images: None,
            max_detections: MAX_DETECTIONS,
            areas: Areas::OfKind,
        }
    }
}

/// Scores detections against a COCO data set as pycocotools does, while they
/// come.
pub struct CocoEvaluator {
    ground_truth: GroundTruth,
    category_ids: Vec<u64>,
    max_detections: usize,
    areas: Areas,
    notes: Vec<String>,
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
    /// truth; no more detections than COCO's own lesser limit; or, where masks are
    /// evaluated, an image without a size, or nothing else to evaluate where no
    /// object has a mask.
    pub fn new(ground_truth: impl Into<GroundTruth>, options: EvaluatorOptions) -> Result<Self> {
        let ground_truth: GroundTruth = ground_truth.into();
        let max_detections = options.max_detections;
        if !(11..=u32::MAX as usize).contains(&max_detections) {
            let rule = "COCO's figures need more than 10 detections an image";
            return Err(Error::invalid("max-detections", max_detections, rule));
        }
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
        let mut notes = Vec::new();
        if kinds.contains(&Kind::Segm) {
            notes.extend(check_masks(&ground_truth, &awaited, &mut kinds)?);
        }
        let categories = &ground_truth.dataset.categories;
        let stream = |kind| {
            let categories = categories.clone();
            Ok((kind, stream(kind, categories, &category_ids, max_detections)?))
        };
        let streams = kinds.into_iter().map(stream).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            max_detections,
            areas: options.areas,
            notes,
            category_ids,
            images: awaited.len(),
            awaited,
            streams,
            pending: Vec::new(),
            kept: options.keep_detections.then(Vec::new),
            ground_truth,
        })
    }

    /// What the figures leave out, a sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
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
        let id = self.ground_truth.image_id(image_id);
        if !self.awaited.contains(&image_id) {
            let rule = "it was added before, or is not among those to evaluate";
            return Err(Error::invalid("image", id, rule));
        }
        let (size, classes) = ((image.height, image.width), self.category_ids.len());
        let masks = self.streams.iter().any(|(kind, _)| *kind == Kind::Segm);
        for detection in &detections {
            detection.check(&id, size, classes, masks)?;
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
            let max = self.max_detections;
            let (section, eval) = summarise(stream.finalize(), &self.ground_truth, &names, max)?;
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
            let truth = &self.ground_truth;
            let objects = objects.iter().filter_map(|object| object_for(*kind, object, truth));
            let found = annotations(*kind, self.areas, &batch, &self.category_ids);
            stream.update(images.clone(), objects.collect(), found).map_err(scoring)?;
        }
        if let Some(kept) = &mut self.kept {
            kept.extend(batch);
        }
        Ok(())
    }
}

/// COCO's settings for boxes or masks.
fn stream(
    kind: Kind,
    categories: Vec<Category>,
    ids: &[u64],
    max_detections: usize,
) -> Result<StreamingEval> {
    let mut params = Params::new(kind.iou_type());
    params.cat_ids = ids.to_vec();
    params.max_dets = vec![1, 10, max_detections];
    StreamingEval::new(params, EvalMode::Coco, categories).map_err(scoring)
}

/// The entries of a results file.
pub(super) fn annotations(
    kind: Kind,
    areas: Areas,
    images: &[ImageDetections],
    category_ids: &[u64],
) -> Vec<Annotation> {
    let of_image = |image: &ImageDetections| {
        let rows = image.detections.iter();
        let row =
            |row: &Detection| row.annotation(kind, areas, image.image_id, category_ids[row.class]);
        rows.map(row).collect::<Vec<_>>()
    };
    images.iter().flat_map(of_image).collect()
}

/// An object as the comparison needs it: for boxes without its mask, unless
/// that has to give its area; for masks not at all without one.
fn object_for(kind: Kind, object: &Annotation, truth: &GroundTruth) -> Option<Annotation> {
    if kind == Kind::Segm {
        return object.segmentation.is_some().then(|| object.clone());
    }
    let around_mask = || truth.ann_to_rle(object).as_ref().map(mask::to_bbox);
    let bbox = object.bbox.or_else(around_mask);
    if object.area.is_none() {
        return Some(Annotation { bbox, ..object.clone() });
    }
    Some(Annotation {
        image_id: object.image_id,
        category_id: object.category_id,
        bbox,
        area: object.area,
        iscrowd: object.iscrowd,
        ..Annotation::default()
    })
}

fn summarise(
    mut eval: COCOeval,
    truth: &GroundTruth,
    names: &[String],
    max_detections: usize,
) -> Result<(Section, AccumulatedEval)> {
    eval.accumulate();
    eval.summarize_lines();
    let figures = eval.stats().and_then(|figures| <[f64; 12]>::try_from(figures).ok());
    let (Some(figures), Some(arrays)) = (figures, eval.accumulated()) else {
        return Err(Error::invalid("evaluation", "without result", "it must give 12 figures"));
    };
    let max = max_detections as u32;
    let ids_and_names = category_ids(truth).into_iter().zip(names).enumerate();
    let classes = ids_and_names
        .map(|(k, (number, name))| {
            ClassFigures::of(arrays, k, truth.category_id(number), name.clone(), max)
        })
        .collect();
    Ok((Section { figures: Figures::from_array(figures, max), classes }, arrays.clone()))
}

/// Takes masks out of `kinds` where no object that counts has one, and says what of the objects is
/// left out.
fn check_masks(
    ground_truth: &GroundTruth,
    images: &BTreeSet<u64>,
    kinds: &mut Vec<Kind>,
) -> Result<Option<String>> {
    let objects = ground_truth.dataset.annotations.iter();
    let objects = objects.filter(|object| images.contains(&object.image_id));
    let (with, without): (Vec<_>, Vec<_>) =
        objects.partition(|object| object.segmentation.is_some());
    if with.is_empty() && !without.is_empty() {
        kinds.retain(|kind| *kind != Kind::Segm);
        if kinds.is_empty() {
            let rule = "the evaluation of masks needs some; evaluate boxes instead";
            return Err(Error::invalid("number of objects with a mask", 0, rule));
        }
        let all = without.len();
        return Ok(Some(format!("none of the {all} objects has a mask: boxes alone are scored")));
    }
    for image in images.iter().filter_map(|id| ground_truth.get_img(*id)) {
        if image.height == 0 || image.width == 0 {
            let operand = format!("size of image {}", ground_truth.image_id(image.id));
            let value = format!("{}×{}", image.height, image.width);
            let rule = "the evaluation of masks needs its height and width";
            return Err(Error::invalid(operand, value, rule));
        }
    }
    let named = without.iter().take(NAMED).map(|object| ground_truth.annotation(object.id));
    let named: Vec<String> = named.collect();
    let more = if without.len() > NAMED { ", …" } else { "" };
    Ok((!without.is_empty()).then(|| {
        let (count, named) = (counted(without.len(), "object"), named.join(", "));
        format!("left out of mask AP, without a mask: {count}, {named}{more}")
    }))
}

/// What hotcoco says, as an error of this crate.
pub(super) fn scoring(error: hotcoco::Error) -> Error {
    Error::invalid("evaluation", "not possible", error.to_string())
}
