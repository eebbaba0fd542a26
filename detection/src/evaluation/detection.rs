//! One found object, in the coordinates and precision of COCO's files.

use hotcoco::Annotation;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind as TensorKind, Tensor};

use super::{Areas, Kind, RleMask};
use crate::data::Id;
use crate::structures::{Bitmap, Detections};
use crate::{Error, Result};

/// An object found in an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// 0 the first class.
    pub class: usize,
    /// Confidence; only its order counts.
    pub score: f64,
    /// x, y of the top left corner, width, height, in pixels of the original
    /// image; one of a negative side fits nothing. Not two corners: a width recomputed from them can differ in its
    /// last bit, and areas decide between small, medium and large.
    pub bbox: [f64; 4],
    /// The mask on the original image; none of a detector of boxes.
    pub mask: Option<RleMask>,
}

/// All that was found in one image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageDetections {
    /// The image's number in its data set: its id, where ids are numbers.
    pub image_id: u64,
    /// In any order; of equal scores the first counts as the better one.
    pub detections: Vec<Detection>,
}

impl Detection {
    /// What the model found, in pixels of the original image, with its masks
    /// pasted there (`masks` empty for a model without mask head).
    ///
    /// # Errors
    /// Another number of masks than of boxes; see [`RleMask::encode`].
    pub fn from_model(found: &Detections, masks: &[Bitmap]) -> Result<Vec<Self>> {
        let count = found.boxes.len() as usize;
        if !masks.is_empty() && masks.len() != count {
            let rule = format!("there are {count} boxes");
            return Err(Error::invalid("number of masks", masks.len(), rule));
        }
        let boxes = floats(found.boxes.tensor())?;
        let scores = floats(&found.scores)?;
        let classes = Vec::<i64>::try_from(found.classes.to_device(Device::Cpu))
            .map_err(backbone::Error::from)?;
        let mut masks = masks.iter();
        let rows = boxes.chunks_exact(4).zip(scores).zip(classes);
        rows.map(|((corners, score), class)| {
            let class = usize::try_from(class)
                .map_err(|_| Error::invalid("class", class, "the first class has number 0"))?;
            let [x1, y1, x2, y2] = [corners[0], corners[1], corners[2], corners[3]];
            let mask = masks.next().map(RleMask::encode).transpose()?;
            Ok(Self { class, score, bbox: [x1, y1, x2 - x1, y2 - y1], mask })
        })
        .collect()
    }

    /// The box's corners: x1, y1, x2, y2.
    pub fn corners(&self) -> [f64; 4] {
        let [x, y, width, height] = self.bbox;
        [x, y, x + width, y + height]
    }

    /// The entry of a results file. A box gives the area, also that of a mask;
    /// a mask alone gives that of its box, too.
    pub(super) fn annotation(
        &self,
        kind: Kind,
        areas: Areas,
        image_id: u64,
        category_id: u64,
    ) -> Annotation {
        let mask = || self.mask.as_ref().map(RleMask::segmentation);
        let (bbox, segmentation) = match (kind, areas) {
            (Kind::Bbox, Areas::OfKind | Areas::OfBoxes) => (Some(self.bbox), None),
            (Kind::Segm, Areas::OfBoxes) => (Some(self.bbox), mask()),
            (Kind::Segm, _) | (Kind::Bbox, Areas::OfMasks) => (None, mask()),
        };
        let score = Some(self.score);
        Annotation { image_id, category_id, bbox, segmentation, score, ..Annotation::default() }
    }

    /// Whether the evaluation can use it, for an image of `size` (height,
    /// width) and `classes` classes.
    pub(super) fn check(
        &self,
        image_id: &Id,
        size: (u32, u32),
        classes: usize,
        masks: bool,
    ) -> Result<()> {
        let at = |what: &str| format!("{what} of a detection in image {image_id}");
        if self.class >= classes {
            let rule = format!("the data set has {classes} classes, the first with number 0");
            return Err(Error::invalid(at("class"), self.class, rule));
        }
        if !self.score.is_finite() {
            return Err(Error::invalid(at("score"), self.score, "it must be a finite number"));
        }
        if self.bbox.iter().any(|value| !value.is_finite()) {
            let rule = "it must be x, y, width and height, all finite";
            return Err(Error::invalid(at("box"), format!("{:?}", self.bbox), rule));
        }
        match &self.mask {
            None if masks => Err(Error::invalid(at("mask"), "missing", "masks are evaluated, too")),
            Some(mask) if masks && mask.size() != size => {
                let rule = format!("the image has {}×{}", size.0, size.1);
                let value = format!("{}×{}", mask.size().0, mask.size().1);
                Err(Error::invalid(at("mask"), value, rule))
            }
            _ => Ok(()),
        }
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.detach().to_device(Device::Cpu).to_kind(TensorKind::Double);
    Ok(Vec::<f64>::try_from(tensor.contiguous().view([-1])).map_err(backbone::Error::from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structures::Boxes;

    #[test]
    fn tensors_become_rows_in_order() {
        let found = Detections {
            boxes: Boxes(Tensor::from_slice2(&[[1.5f32, 2.0, 4.0, 8.0], [0.0, 0.0, 3.0, 2.0]])),
            scores: Tensor::from_slice(&[0.75f32, 0.5]),
            classes: Tensor::from_slice(&[2i64, 0]),
            masks: None,
        };
        let mask = Bitmap { height: 1, width: 2, pixels: vec![0, 1] };
        let full = Bitmap { height: 1, width: 2, pixels: vec![1, 1] };
        let rows = Detection::from_model(&found, &[mask, full]).unwrap();
        assert_eq!((rows[0].class, rows[0].score), (2, 0.75));
        assert_eq!(rows[0].bbox, [1.5, 2.0, 2.5, 6.0]);
        assert_eq!(rows[0].corners(), [1.5, 2.0, 4.0, 8.0]);
        let areas: Vec<_> = rows.iter().map(|row| row.mask.as_ref().unwrap().area()).collect();
        assert_eq!(areas, [1, 2]);
        assert!(Detection::from_model(&found, &[]).unwrap()[1].mask.is_none());
        let one = Bitmap { height: 1, width: 1, pixels: vec![1] };
        let message = Detection::from_model(&found, &[one]).unwrap_err().to_string();
        assert_eq!(message, "number of masks is 1, but there are 2 boxes");
    }
}
