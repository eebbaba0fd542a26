//! The data set itself: what in an annotation file is wrong or odd.

use std::fmt;

use hotcoco::{COCO, Finding};
use serde::Serialize;

use super::{Kind, RleMask, category_ids, category_names};

/// Ids that are printed for each finding.
const SHOWN: usize = 8;

/// What a look at an annotation file brought up.
#[derive(Debug, Clone, Serialize)]
pub struct DatasetCheck {
    /// Images in the file.
    pub images: usize,
    /// Of these, without any object.
    pub empty_images: usize,
    /// Objects, crowds among them.
    pub objects: usize,
    /// Crowds.
    pub crowds: usize,
    /// (name, objects) by class.
    pub classes: Vec<(String, usize)>,
    /// What makes training or scores wrong.
    pub errors: Vec<Problem>,
    /// What is odd.
    pub warnings: Vec<Problem>,
}

/// One kind of trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// For machines, like `duplicate_ann_id`.
    pub code: String,
    /// For readers.
    pub message: String,
    /// Annotations, images or categories that have it.
    pub ids: Vec<u64>,
}

impl From<Finding> for Problem {
    fn from(finding: Finding) -> Self {
        let Finding { code, message, affected_ids, .. } = finding;
        Problem { code: code.to_owned(), message, ids: affected_ids }
    }
}

/// Looks for duplicate and dangling ids, objects without shape or outside
/// their image, duplicates, classes with hardly any objects, and masks that
/// cannot be used; `kinds` says whether masks are needed.
pub fn check_dataset(coco: &COCO, kinds: &[Kind]) -> DatasetCheck {
    let health = coco.healthcheck();
    let mut errors: Vec<Problem> = health.errors.into_iter().map(Problem::from).collect();
    if kinds.contains(&Kind::Segm) {
        errors.extend(unusable_masks(coco));
    }
    let mut warnings: Vec<Problem> = health.warnings.into_iter().map(Problem::from).collect();
    warnings.extend(numbered_zero(coco));
    let objects = &coco.dataset.annotations;
    let count = |id: &u64| objects.iter().filter(|object| object.category_id == *id).count();
    let counts = category_ids(coco).iter().map(count).collect::<Vec<_>>();
    DatasetCheck {
        images: health.summary.num_images,
        empty_images: health.summary.images_without_annotations,
        objects: objects.len(),
        crowds: objects.iter().filter(|object| object.iscrowd).count(),
        classes: category_names(coco).into_iter().zip(counts).collect(),
        errors,
        warnings,
    }
}

fn unusable_masks(coco: &COCO) -> Option<Problem> {
    let unusable = |object: &&hotcoco::Annotation| {
        let Some(image) = coco.get_img(object.image_id) else { return false };
        match &object.segmentation {
            None => true,
            Some(shape) if shape.rle_ref().is_some() => RleMask::from_segmentation(shape)
                .map_or(true, |mask| mask.size() != (image.height, image.width)),
            Some(_) => coco.ann_to_rle(object).is_none_or(|rle| hotcoco::mask::area(&rle) == 0),
        }
    };
    let ids: Vec<u64> = coco.dataset.annotations.iter().filter(unusable).map(|a| a.id).collect();
    (!ids.is_empty()).then(|| Problem {
        code: "unusable_mask".to_owned(),
        message: format!(
            "{} annotation(s) have no mask, an empty one, or one that does not fit the image.",
            ids.len()
        ),
        ids,
    })
}

/// pycocotools takes the annotation id 0 for none.
fn numbered_zero(coco: &COCO) -> Option<Problem> {
    coco.get_ann(0).map(|_| Problem {
        code: "annotation_id_zero".to_owned(),
        message: "An annotation has id 0, which pycocotools never counts as found.".to_owned(),
        ids: vec![0],
    })
}

/// Counts, then errors and warnings with the first ids that have them.
impl fmt::Display for DatasetCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { images, empty_images, objects, crowds, classes, .. } = self;
        writeln!(f, "images   {images} ({empty_images} without objects)")?;
        writeln!(f, "objects  {objects} ({crowds} crowds) of {} classes", classes.len())?;
        let width = classes.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, count) in classes {
            writeln!(f, "  {name:<width$}  {count}")?;
        }
        for (kind, problems) in [("error", &self.errors), ("warning", &self.warnings)] {
            for Problem { message, ids, .. } in problems {
                let shown: Vec<String> = ids.iter().take(SHOWN).map(u64::to_string).collect();
                let more = if ids.len() > SHOWN { ", …" } else { "" };
                writeln!(f, "{kind}: {message} [{}{more}]", shown.join(", "))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(annotations: Value) -> DatasetCheck {
        let dataset = json!({
            "images": [{"id": 1, "height": 20, "width": 30}, {"id": 2, "height": 20, "width": 30}],
            "annotations": annotations,
            "categories": [{"id": 2, "name": "cat"}, {"id": 1, "name": "dog"}],
        });
        let coco = COCO::from_dataset(serde_json::from_value(dataset).unwrap());
        check_dataset(&coco, &[Kind::Segm])
    }

    fn object(id: u64, changed: &str, value: Value) -> Value {
        let mut object = json!({
            "id": id, "image_id": 1, "category_id": 1 + id % 2, "bbox": [id, 2, 8, 8],
            "area": 64, "iscrowd": 0, "segmentation": [[id, 2, id + 8, 2, id + 8, 10, id, 10]],
        });
        object[changed] = value;
        object
    }

    fn codes(problems: &[Problem]) -> Vec<(&str, &[u64])> {
        problems.iter().map(|problem| (problem.code.as_str(), &problem.ids[..])).collect()
    }

    #[test]
    fn a_sound_file_has_counts_and_no_errors() {
        let check = check(json!([object(1, "iscrowd", json!(1)), object(10, "area", json!(64))]));
        assert_eq!((check.images, check.empty_images, check.objects, check.crowds), (2, 1, 2, 1));
        assert_eq!(check.classes, [("dog".to_owned(), 1), ("cat".to_owned(), 1)]);
        assert!(check.errors.is_empty() && check.to_string().contains("  dog  1\n"), "{check}");
    }

    #[test]
    fn troubles_are_found_and_name_their_objects() {
        let check = check(json!([
            object(0, "area", json!(64)),
            object(5, "segmentation", Value::Null),
            object(6, "segmentation", json!({"size": [3, 3], "counts": [9]})),
            object(7, "segmentation", json!({"size": [20, 30], "counts": [9]})),
            object(8, "segmentation", json!([[900, 900, 901, 900, 901, 901]])),
            object(9, "image_id", json!(77)),
            object(10, "category_id", json!(78)),
            object(11, "bbox", json!([25, 2, 8, 8])),
        ]));
        let errors = codes(&check.errors);
        assert!(errors.contains(&("orphan_image_id", &[9])), "{errors:?}");
        assert!(errors.contains(&("orphan_category_id", &[10])), "{errors:?}");
        assert!(errors.contains(&("unusable_mask", &[5, 6, 7, 8])), "{errors:?}");
        let warnings = codes(&check.warnings);
        assert!(warnings.contains(&("annotation_id_zero", &[0])), "{warnings:?}");
        assert!(warnings.contains(&("bbox_out_of_bounds", &[11])), "{warnings:?}");
        assert!(check.to_string().contains("error: Annotation(s) reference image IDs"), "{check}");
    }
}
