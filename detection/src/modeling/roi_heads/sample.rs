//! Which regions a training step learns from.

use data::rng::Rng;
use tch::{Kind, Tensor};

use super::RoiHeads;
use crate::ops::subsample;
use crate::structures::{Boxes, Targets};

/// The regions of one image; those that are objects stand first.
#[derive(Debug)]
pub(super) struct Sample {
    /// `[S, 4]`.
    pub(super) boxes: Tensor,
    /// `[S]`, int64: the output that should be largest.
    pub(super) columns: Tensor,
    /// For each region that is an object, which of the image's it is.
    pub(super) objects: Vec<i64>,
    /// `[P, 4]`: the moves of those regions onto their objects.
    pub(super) goals: Tensor,
}

impl Sample {
    /// Boxes of the regions that are objects, `[P, 4]`.
    pub(super) fn object_boxes(&self) -> Tensor {
        self.boxes.narrow(0, 0, self.objects.len() as i64)
    }

    /// Their outputs, `[P]`.
    pub(super) fn object_columns(&self) -> Tensor {
        self.columns.narrow(0, 0, self.objects.len() as i64)
    }
}

impl RoiHeads {
    /// Draws regions out of `proposals` (`[R, 4]`) and the objects' own boxes.
    pub(super) fn sample(&self, proposals: &Tensor, targets: &Targets, rng: &mut Rng) -> Sample {
        let objects = targets.boxes.tensor().to_kind(proposals.kind());
        // The first proposals are bad: the objects' boxes give the heads
        // something to learn from the start.
        let boxes = Tensor::cat(&[proposals, &objects], 0);
        let matches =
            self.matcher.match_(&Boxes(objects.shallow_clone()).iou(&Boxes(boxes.shallow_clone())));
        let background = self.background();
        let columns = if targets.boxes.is_empty() {
            matches.label.full_like(background)
        } else {
            let columns = targets.classes.index_select(0, &matches.object);
            (columns + self.config.background.offset())
                .masked_fill(&matches.label.eq(0), background)
        };
        let roi = self.roi();
        let (positive, negative) =
            subsample(&columns, roi.batch_size_per_image, roi.positive_fraction, background, rng);
        let matched = matches.object.index_select(0, &positive);
        let goals = self
            .coder
            .encode(&boxes.index_select(0, &positive), &objects.index_select(0, &matched));
        let sampled = Tensor::cat(&[&positive, &negative], 0);
        Sample {
            boxes: boxes.index_select(0, &sampled),
            columns: columns.index_select(0, &sampled).to_kind(Kind::Int64),
            objects: Vec::try_from(&matched).expect("a vector of indices"),
            goals,
        }
    }
}
