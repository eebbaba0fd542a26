//! Precision against recall, class by class.

use hotcoco::AccumulatedEval;
use serde::Serialize;

/// Recall at point `i` of a curve is `i / (RECALLS − 1)`.
pub const RECALLS: usize = 101;

/// The curves of one IoU threshold, over all areas and with as many
/// detections an image as count: the highest precision at each recall or beyond it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PrecisionRecall {
    /// IoU from which on a detection fits an object.
    pub iou: f64,
    /// By class: [`RECALLS`] precisions, or none of a class without objects.
    pub classes: Vec<Option<Vec<f64>>>,
}

impl PrecisionRecall {
    /// Row `t` of COCO's IoU thresholds .50, .55, …, .95.
    pub(super) fn at(eval: &AccumulatedEval, t: usize) -> Self {
        let shape = eval.shape;
        let curve = |k: usize| {
            let value = |r: usize| eval.precision[eval.precision_idx(t, r, k, 0, shape.m - 1)];
            (value(0) > -1.0).then(|| (0..shape.r).map(value).collect())
        };
        Self { iou: 0.5 + 0.05 * t as f64, classes: (0..shape.k).map(curve).collect() }
    }

    /// Mean over the classes that have objects; none if none has.
    pub fn mean(&self) -> Option<Vec<f64>> {
        let curves: Vec<&Vec<f64>> = self.classes.iter().flatten().collect();
        let mean =
            |r: usize| curves.iter().map(|curve| curve[r]).sum::<f64>() / curves.len() as f64;
        (!curves.is_empty()).then(|| (0..RECALLS).map(mean).collect())
    }

    /// Area under a class's curve: its AP at this IoU.
    pub fn average_precision(&self, class: usize) -> Option<f64> {
        let curve = self.classes.get(class)?.as_ref()?;
        Some(curve.iter().sum::<f64>() / curve.len() as f64)
    }
}
