//! The figures of an evaluation: as numbers, as json, and as COCO prints them.

use std::fmt;

use hotcoco::AccumulatedEval;
use serde::{Deserialize, Serialize};

use super::Kind;

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How many images were scored.
    pub images: usize,
    /// Of the boxes, where they were evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bbox: Option<Section>,
    /// Of the masks, where they were evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segm: Option<Section>,
}

/// Figures of boxes or of masks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Section {
    /// Over all classes.
    #[serde(flatten)]
    pub figures: Figures,
    /// Class by class.
    pub classes: Vec<ClassFigures>,
}

/// COCO's twelve figures, 0 to 1; −1 where no object is counted (COCO's
/// convention).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Average precision: mean over IoU .50, .55, …, .95, classes and recalls.
    #[serde(rename = "AP")]
    pub ap: f64,
    /// At IoU .50.
    #[serde(rename = "AP50")]
    pub ap50: f64,
    /// At IoU .75.
    #[serde(rename = "AP75")]
    pub ap75: f64,
    /// Of objects smaller than 32² pixels.
    #[serde(rename = "APs")]
    pub ap_small: f64,
    /// Of objects of 32² to 96² pixels.
    #[serde(rename = "APm")]
    pub ap_medium: f64,
    /// Of objects larger than 96² pixels.
    #[serde(rename = "APl")]
    pub ap_large: f64,
    /// Average recall with one detection an image and class.
    #[serde(rename = "AR1")]
    pub ar1: f64,
    /// With ten.
    #[serde(rename = "AR10")]
    pub ar10: f64,
    /// With a hundred.
    #[serde(rename = "AR100")]
    pub ar100: f64,
    /// With a hundred, of small objects.
    #[serde(rename = "ARs")]
    pub ar_small: f64,
    /// With a hundred, of medium objects.
    #[serde(rename = "ARm")]
    pub ar_medium: f64,
    /// With a hundred, of large objects.
    #[serde(rename = "ARl")]
    pub ar_large: f64,
}

/// Figures of one class; −1 where it has no object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassFigures {
    /// In the data set.
    pub category_id: u64,
    /// In the data set.
    pub name: String,
    /// Average precision.
    #[serde(rename = "AP")]
    pub ap: f64,
    /// At IoU .50.
    #[serde(rename = "AP50")]
    pub ap50: f64,
    /// At IoU .75.
    #[serde(rename = "AP75")]
    pub ap75: f64,
    /// Average recall with a hundred detections an image.
    #[serde(rename = "AR100")]
    pub ar100: f64,
}

/// The rows of COCO's table: precision or recall, IoU, area, detections.
const ROWS: [(&str, &str, &str, u32); 12] = [
    ("Precision", "0.50:0.95", "all", 100),
    ("Precision", "0.50", "all", 100),
    ("Precision", "0.75", "all", 100),
    ("Precision", "0.50:0.95", "small", 100),
    ("Precision", "0.50:0.95", "medium", 100),
    ("Precision", "0.50:0.95", "large", 100),
    ("Recall", "0.50:0.95", "all", 1),
    ("Recall", "0.50:0.95", "all", 10),
    ("Recall", "0.50:0.95", "all", 100),
    ("Recall", "0.50:0.95", "small", 100),
    ("Recall", "0.50:0.95", "medium", 100),
    ("Recall", "0.50:0.95", "large", 100),
];

const NAMES: [&str; 12] =
    ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"];

impl Figures {
    /// From the values in COCO's order.
    pub(super) fn from_array(values: [f64; 12]) -> Self {
        let [ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100, rest @ ..] = values;
        let [ar_small, ar_medium, ar_large] = rest;
        Self {
            ap,
            ap50,
            ap75,
            ap_small,
            ap_medium,
            ap_large,
            ar1,
            ar10,
            ar100,
            ar_small,
            ar_medium,
            ar_large,
        }
    }

    /// The values in COCO's order.
    pub fn to_array(&self) -> [f64; 12] {
        let ap = [self.ap, self.ap50, self.ap75, self.ap_small, self.ap_medium, self.ap_large];
        let ar = [self.ar1, self.ar10, self.ar100, self.ar_small, self.ar_medium, self.ar_large];
        std::array::from_fn(|at| if at < 6 { ap[at] } else { ar[at - 6] })
    }
}

/// COCO's table of twelve lines, letter by letter.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ((title, iou, area, detections), value) in ROWS.into_iter().zip(self.to_array()) {
            let (title, short) = (format!("Average {title}"), &title[..1]);
            writeln!(
                f,
                " {title:<18} (A{short}) @[ IoU={iou:<9} | area={area:>6} | \
                 maxDets={detections:>3} ] = {value:.3}"
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// Boxes, then masks: those that were evaluated.
    pub fn sections(&self) -> impl Iterator<Item = (Kind, &Section)> {
        let bbox = self.bbox.iter().map(|section| (Kind::Bbox, section));
        bbox.chain(self.segm.iter().map(|section| (Kind::Segm, section)))
    }

    /// Every figure over all classes under a name like `bbox/AP50`.
    pub fn scalars(&self) -> Vec<(String, f64)> {
        let named = |(kind, section): (Kind, &Section)| {
            let values = NAMES.into_iter().zip(section.figures.to_array());
            values
                .map(move |(name, value)| (format!("{}/{name}", kind.name()), value))
                .collect::<Vec<_>>()
        };
        self.sections().flat_map(named).collect()
    }

    /// A table of the classes, best box (or else mask) AP first; AP in percent.
    pub fn class_table(&self) -> String {
        let sections: Vec<_> = self.sections().collect();
        let Some((_, first)) = sections.first() else { return String::new() };
        let names = first.classes.iter().map(|class| class.name.chars().count());
        let width = names.max().unwrap_or(0).max("class".len());
        let mut order: Vec<usize> = (0..first.classes.len()).collect();
        order.sort_by(|&a, &b| first.classes[b].ap.total_cmp(&first.classes[a].ap));
        let mut table = format!("{:<width$}", "class");
        for (kind, _) in &sections {
            for figure in ["AP", "AP50", "AP75", "AR100"] {
                table += &format!("  {:>10}", format!("{} {figure}", kind.name()));
            }
        }
        for at in order {
            table += &format!("\n{:<width$}", first.classes[at].name);
            for (_, section) in &sections {
                let class = &section.classes[at];
                for value in [class.ap, class.ap50, class.ap75, class.ar100] {
                    let text =
                        if value < 0.0 { "-".into() } else { format!("{:.1}", 100.0 * value) };
                    table += &format!("  {text:>10}");
                }
            }
        }
        table + "\n"
    }
}

/// COCO's tables under the headings `bbox` and `segm`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, section) in self.sections() {
            write!(f, "{}\n{}", kind.name(), section.figures)?;
        }
        Ok(())
    }
}

/// Rows of IoU .50 and .75 among .50, .55, …, .95.
pub(super) const IOU_50: usize = 0;
const IOU_75: usize = 5;

impl ClassFigures {
    /// Of class `k` from the arrays over all.
    pub(super) fn of(eval: &AccumulatedEval, k: usize, category_id: u64, name: String) -> Self {
        let shape = eval.shape;
        // All areas, most detections.
        let (area, most) = (0, shape.m - 1);
        let ap = |rows: std::ops::Range<usize>| {
            mean(rows.flat_map(|t| {
                (0..shape.r).map(move |r| eval.precision[eval.precision_idx(t, r, k, area, most)])
            }))
        };
        Self {
            category_id,
            name,
            ap: ap(0..shape.t),
            ap50: ap(IOU_50..IOU_50 + 1),
            ap75: ap(IOU_75..IOU_75 + 1),
            ar100: mean((0..shape.t).map(|t| eval.recall[eval.recall_idx(t, k, area, most)])),
        }
    }
}

/// Of those that are counted; −1 if none is.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values
        .filter(|value| *value > -1.0)
        .fold((0.0, 0u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { -1.0 } else { sum / f64::from(count) }
}
