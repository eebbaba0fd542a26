//! From predictions for every anchor to the proposals of an image.
//! Reference: detectron2 `proposal_generator/proposal_utils.py`.

use tch::{Kind, Tensor};

use super::{Rpn, RpnOutput};
use crate::modeling::config::ProposalScore;
use crate::ops::batched_nms;
use crate::structures::Boxes;

/// Regions that may hold an object, best first.
#[derive(Debug)]
pub struct Proposals {
    /// `[P, 4]` in the pixels of the image as it is fed.
    pub boxes: Boxes,
    /// `[P]`: objectness before the sigmoid.
    pub logits: Tensor,
}

/// The best of every level, one level after the other, for all images.
pub(super) struct Candidates {
    /// `[N, k, 4]`.
    boxes: Tensor,
    /// `[N, k]`.
    logits: Tensor,
    /// `[k]`: the level each is of.
    levels: Tensor,
}

impl Rpn {
    /// The `count` best of every level, decoded.
    pub(super) fn candidates(&self, output: &RpnOutput, count: i64) -> Candidates {
        let (mut boxes, mut logits, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        for (number, level) in (0i64..).zip(&output.0) {
            let images = level.logits.size()[0];
            let count = count.min(level.logits.size()[1]);
            let (best, index) = level.logits.topk(count, 1, true, true);
            let rows = index.unsqueeze(-1).expand([-1, -1, 4], false);
            let kind = self.precision.kind(level.deltas.kind());
            let deltas = level.deltas.gather(1, &rows, false).view([-1, 4]).to_kind(kind);
            let anchors = level.anchors.index_select(0, &index.view([-1]));
            boxes.push(self.coder.decode(&deltas, &anchors).view([images, count, 4]));
            levels.push(Tensor::full([count], number, (Kind::Int64, best.device())));
            logits.push(best);
        }
        Candidates {
            boxes: Tensor::cat(&boxes, 1),
            logits: Tensor::cat(&logits, 1),
            levels: Tensor::cat(&levels, 0),
        }
    }

    /// The `count` best of image `image` that don't overlap, inside its `size`
    /// (height, width).
    pub(super) fn select(
        &self,
        candidates: &Candidates,
        image: i64,
        size: (i64, i64),
        count: i64,
    ) -> Proposals {
        let boxes = Boxes(candidates.boxes.get(image)).clip(size).0;
        let logits = candidates.logits.get(image);
        let kept = sound(&boxes, &logits, self.config.min_side);
        let of = |tensor: &Tensor, index: &Tensor| tensor.index_select(0, index);
        let (boxes, logits) = (of(&boxes, &kept), of(&logits, &kept));
        let scores = match self.config.score {
            ProposalScore::Logit => logits.shallow_clone(),
            ProposalScore::Probability => logits.sigmoid(),
        };
        let levels = of(&candidates.levels, &kept);
        let best = batched_nms(&boxes, &scores, &levels, self.config.nms_iou);
        let best = best.narrow(0, 0, count.min(best.size()[0]));
        Proposals { boxes: Boxes(of(&boxes, &best)), logits: of(&logits, &best) }
    }
}

/// Indices of the boxes that are finite, not empty, and have no side shorter
/// than `min_side`.
fn sound(boxes: &Tensor, logits: &Tensor, min_side: f64) -> Tensor {
    let corners = [0, 1, 2, 3].map(|at| boxes.select(1, at));
    let [width, height] = [&corners[2] - &corners[0], &corners[3] - &corners[1]];
    let long = |side: &Tensor| side.gt(0).logical_and(&side.ge(min_side));
    // A sum is finite only if all of it is.
    let finite = (boxes.sum_dim_intlist(1, false, None::<Kind>) + logits).isfinite();
    finite.logical_and(&long(&width)).logical_and(&long(&height)).nonzero().squeeze_dim(1)
}
