//! The figures of an evaluation: as numbers, as json, and as COCO prints them.

use std::collections::BTreeMap;
use std::fmt;

use hotcoco::AccumulatedEval;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Kind;
use super::evaluator::MAX_DETECTIONS;
use crate::data::Id;

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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Average precision: mean over IoU .50, .55, …, .95, classes and recalls.
    pub ap: f64,
    /// At IoU .50.
    pub ap50: f64,
    /// At IoU .75.
    pub ap75: f64,
    /// Of objects smaller than 32² pixels.
    pub ap_small: f64,
    /// Of objects of 32² to 96² pixels.
    pub ap_medium: f64,
    /// Of objects larger than 96² pixels.
    pub ap_large: f64,
    /// Average recall with one detection an image and class.
    pub ar1: f64,
    /// With ten.
    pub ar10: f64,
    /// With all that count, by default a hundred.
    pub ar_all: f64,
    /// With all, of small objects.
    pub ar_small: f64,
    /// With all, of medium objects.
    pub ar_medium: f64,
    /// With all, of large objects.
    pub ar_large: f64,
    /// Most detections of an image and class that count.
    pub max_detections: u32,
}

/// Figures of one class; −1 where it has no object.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassFigures {
    /// In the data set.
    pub category_id: Id,
    /// In the data set.
    pub name: String,
    /// Average precision.
    pub ap: f64,
    /// At IoU .50.
    pub ap50: f64,
    /// At IoU .75.
    pub ap75: f64,
    /// Average recall with all detections of an image that count.
    pub ar_all: f64,
    /// Most detections of an image and class that count.
    pub max_detections: u32,
}

/// A row of COCO's table.
struct Row {
    name: &'static str,
    precision: bool,
    iou: &'static str,
    area: &'static str,
    /// All that count if none.
    detections: Option<u32>,
}

const fn row(name: &'static str, iou: &'static str, area: &'static str) -> Row {
    Row { name, precision: name.as_bytes()[1] == b'P', iou, area, detections: None }
}

/// With what COCO calls it; the average recall with all detections is called after their number.
static ROWS: [Row; 12] = [
    row("AP", "0.50:0.95", "all"),
    row("AP50", "0.50", "all"),
    row("AP75", "0.75", "all"),
    row("APs", "0.50:0.95", "small"),
    row("APm", "0.50:0.95", "medium"),
    row("APl", "0.50:0.95", "large"),
    Row { detections: Some(1), ..row("AR1", "0.50:0.95", "all") },
    Row { detections: Some(10), ..row("AR10", "0.50:0.95", "all") },
    row(RECALL, "0.50:0.95", "all"),
    row("ARs", "0.50:0.95", "small"),
    row("ARm", "0.50:0.95", "medium"),
    row("ARl", "0.50:0.95", "large"),
];

/// The average recall with all detections, without their number.
const RECALL: &str = "AR";

fn recall_with(max_detections: u32) -> String {
    format!("{RECALL}{max_detections}")
}

/// The number in a name that [`recall_with`] gave: the only `AR…` but AR1 and AR10.
fn detections_in(name: &str) -> Option<u32> {
    name.strip_prefix(RECALL)?.parse().ok().filter(|number| *number > 10)
}

impl Figures {
    /// From the values in COCO's order.
    pub(super) fn from_array(values: [f64; 12], max_detections: u32) -> Self {
        let [ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar_all, rest @ ..] = values;
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
            ar_all,
            ar_small,
            ar_medium,
            ar_large,
            max_detections,
        }
    }

    /// The values in COCO's order.
    pub fn to_array(&self) -> [f64; 12] {
        let ap = [self.ap, self.ap50, self.ap75, self.ap_small, self.ap_medium, self.ap_large];
        let ar = [self.ar1, self.ar10, self.ar_all, self.ar_small, self.ar_medium, self.ar_large];
        std::array::from_fn(|at| if at < 6 { ap[at] } else { ar[at - 6] })
    }

    /// The values with COCO's names, in its order.
    fn named(&self) -> impl Iterator<Item = (String, f64)> {
        let recall = recall_with(self.max_detections);
        let name = move |row: &Row| match row.name {
            RECALL => recall.clone(),
            name => name.to_owned(),
        };
        ROWS.iter().map(name).zip(self.to_array())
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.named())
    }
}

impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = BTreeMap::<String, f64>::deserialize(deserializer)?;
        let max_detections = values.keys().find_map(|name| detections_in(name));
        let max_detections = max_detections.unwrap_or(MAX_DETECTIONS as u32);
        let mut figures = Self::from_array([0.0; 12], max_detections);
        let read = figures.named().map(|(name, _)| {
            values.get(&name).copied().ok_or_else(|| D::Error::custom(format!("{name} is missing")))
        });
        let read: Vec<f64> = read.collect::<Result<_, _>>()?;
        if let Ok(read) = read.try_into() {
            figures = Self::from_array(read, max_detections);
        }
        Ok(figures)
    }
}

/// The figures of a class in a file, where the average recall is called after the number of
/// detections.
#[derive(Serialize, Deserialize)]
struct ClassRecord {
    category_id: Id,
    name: String,
    #[serde(flatten)]
    figures: BTreeMap<String, f64>,
}

impl Serialize for ClassFigures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let named = [("AP", self.ap), ("AP50", self.ap50), ("AP75", self.ap75)];
        let recall = (recall_with(self.max_detections), self.ar_all);
        let named = named.map(|(name, value)| (name.to_owned(), value));
        let record = ClassRecord {
            category_id: self.category_id.clone(),
            name: self.name.clone(),
            figures: named.into_iter().chain([recall]).collect(),
        };
        record.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ClassFigures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ClassRecord { category_id, name, figures } = ClassRecord::deserialize(deserializer)?;
        let max_detections = figures.keys().find_map(|name| detections_in(name));
        let max_detections = max_detections.unwrap_or(MAX_DETECTIONS as u32);
        let value = |name: &str| {
            let missing = || D::Error::custom(format!("{name} is missing"));
            figures.get(name).copied().ok_or_else(missing)
        };
        Ok(Self {
            category_id,
            name,
            ap: value("AP")?,
            ap50: value("AP50")?,
            ap75: value("AP75")?,
            ar_all: value(&recall_with(max_detections))?,
            max_detections,
        })
    }
}

/// COCO's table of twelve lines, letter by letter.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (row, value) in ROWS.iter().zip(self.to_array()) {
            let Row { iou, area, precision, .. } = row;
            let (title, short) = if *precision { ("Precision", "P") } else { ("Recall", "R") };
            let title = format!("Average {title}");
            let detections = row.detections.unwrap_or(self.max_detections);
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
            let values = section.figures.named();
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
            let recall = first.figures.max_detections;
            for figure in ["AP", "AP50", "AP75", &recall_with(recall)] {
                table += &format!("  {:>10}", format!("{} {figure}", kind.name()));
            }
        }
        for at in order {
            table += &format!("\n{:<width$}", first.classes[at].name);
            for (_, section) in &sections {
                let class = &section.classes[at];
                for value in [class.ap, class.ap50, class.ap75, class.ar_all] {
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
    pub(super) fn of(
        eval: &AccumulatedEval,
        k: usize,
        category_id: Id,
        name: String,
        max_detections: u32,
    ) -> Self {
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
            max_detections,
            ar_all: mean((0..shape.t).map(|t| eval.recall[eval.recall_idx(t, k, area, most)])),
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
