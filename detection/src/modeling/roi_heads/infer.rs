//! From predictions for every region to the detections of an image.
//! Reference: detectron2 `roi_heads/fast_rcnn.py` (`fast_rcnn_inference`).

use backbone::Mode;
use tch::{Kind, Tensor};

use super::box_head::Predictions;
use super::{MaskBranch, RoiHeads};
use crate::ops::batched_nms;
use crate::structures::{Boxes, Detections};

impl RoiHeads {
    /// The best boxes of every image, without masks. `regions` are the boxes
    /// that `predictions` are for, image by image.
    pub(super) fn select(
        &self,
        predictions: &Predictions,
        regions: &[&Tensor],
        sizes: &[(i64, i64)],
    ) -> Vec<Detections> {
        let offset = self.config.background.offset();
        let classes = self.config.num_classes;
        let scores = predictions.scores.softmax(-1, None::<Kind>).narrow(1, offset, classes);
        let moves = predictions.moves.narrow(1, offset, classes);
        let counts: Vec<i64> = regions.iter().map(|regions| regions.size()[0]).collect();
        let scores = scores.split_with_sizes(&counts[..], 0);
        let moves = moves.split_with_sizes(&counts[..], 0);
        let images = scores.iter().zip(&moves).zip(regions).zip(sizes);
        images
            .map(|(((scores, moves), regions), size)| {
                self.select_in_image(scores, moves, regions, *size)
            })
            .collect()
    }

    /// `scores` `[R, K]`, `moves` `[R, K, 4]` and `regions` `[R, 4]`: every pair
    /// of region and class above the threshold is a candidate.
    fn select_in_image(
        &self,
        scores: &Tensor,
        moves: &Tensor,
        regions: &Tensor,
        size: (i64, i64),
    ) -> Detections {
        let roi = self.roi();
        let pairs = scores.gt(roi.score_thresh).nonzero();
        let (rows, classes) = (pairs.select(1, 0), pairs.select(1, 1));
        let flat = &rows * self.config.num_classes + &classes;
        let scores = scores.reshape([-1]).index_select(0, &flat);
        let moves = moves.reshape([-1, 4]).index_select(0, &flat);
        let moves = moves.to_kind(self.config.boxes.kind(moves.kind()));
        let boxes = self.coder.decode(&moves, &regions.index_select(0, &rows));
        let boxes = Boxes(boxes).clip(size).0;

        let mut sound = boxes.sum_dim_intlist(1, false, None::<Kind>).isfinite();
        if let Some(least) = roi.min_side {
            let side = |axis: i64| boxes.select(1, axis + 2) - boxes.select(1, axis);
            sound = sound.logical_and(&side(0).ge(least)).logical_and(&side(1).ge(least));
        }
        let sound = sound.nonzero().squeeze_dim(1);
        let of = |tensor: &Tensor, index: &Tensor| tensor.index_select(0, index);
        let (boxes, scores, classes) =
            (of(&boxes, &sound), of(&scores, &sound), of(&classes, &sound));
        let best = batched_nms(&boxes, &scores, &classes, roi.nms_iou);
        let best = best.narrow(0, 0, roi.detections_per_image.min(best.size()[0]));
        Detections {
            boxes: Boxes(of(&boxes, &best)),
            scores: of(&scores, &best),
            classes: of(&classes, &best),
            masks: None,
        }
    }

    /// The mask of each detection, for its own class.
    pub(super) fn add_masks(
        &self,
        branch: &MaskBranch,
        maps: &[Tensor],
        detections: &mut [Detections],
        mode: &Mode,
    ) {
        let boxes: Vec<&Tensor> = detections.iter().map(|found| found.boxes.tensor()).collect();
        let counts: Vec<i64> = detections.iter().map(|found| found.boxes.len()).collect();
        let classes: Vec<&Tensor> = detections.iter().map(|found| &found.classes).collect();
        let columns = Tensor::cat(&classes, 0) + self.config.background.offset();
        let regions = branch.pooler.pool(maps, &boxes);
        let masks = branch.head.forward(&regions, &columns, mode).sigmoid();
        for (found, masks) in detections.iter_mut().zip(masks.split_with_sizes(&counts[..], 0)) {
            found.masks = Some(masks);
        }
    }
}
