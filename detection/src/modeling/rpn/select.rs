//! From predictions for every anchor to the proposals of an image.
//! Reference: detectron2 `proposal_generator/proposal_utils.py`.

use tch::{Kind, Tensor};

use super::RpnOutput;
use crate::modeling::config::{ProposalScore, RpnConfig};
use crate::ops::{BoxCoder, batched_nms};
use crate::structures::Boxes;

/// Regions that may hold an object, best first.
#[derive(Debug)]
pub struct Proposals {
    /// `[P, 4]` in the pixels of the image as it is fed.
    pub boxes: Boxes,
    /// `[P]`: objectness before the sigmoid.
    pub logits: Tensor,
}

/// The candidates of all images at one level, best first: boxes `[N, k, 4]` and
/// logits `[N, k]`.
struct Candidates {
    boxes: Tensor,
    logits: Tensor,
}

pub(super) fn select(
    output: &RpnOutput,
    coder: &BoxCoder,
    config: &RpnConfig,
    sizes: &[(i64, i64)],
    training: bool,
) -> Vec<Proposals> {
    let (before, after) = if training {
        (config.pre_nms_train, config.post_nms_train)
    } else {
        (config.pre_nms_test, config.post_nms_test)
    };
    let levels = output.0.iter().map(|level| {
        let images = level.logits.size()[0];
        let count = before.min(level.logits.size()[1]);
        let (logits, index) = level.logits.topk(count, 1, true, true);
        // Only the best are decoded.
        let rows = index.unsqueeze(-1).expand([-1, -1, 4], false);
        let deltas = level.deltas.gather(1, &rows, false).view([-1, 4]);
        let anchors = level.anchors.index_select(0, &index.view([-1]));
        Candidates { boxes: coder.decode(&deltas, &anchors).view([images, count, 4]), logits }
    });
    let levels: Vec<Candidates> = levels.collect();
    let cat = |field: fn(&Candidates) -> &Tensor| {
        Tensor::cat(&levels.iter().map(field).collect::<Vec<_>>(), 1)
    };
    let (boxes, logits) = (cat(|level| &level.boxes), cat(|level| &level.logits));
    let numbers: Vec<i64> = (0..)
        .zip(&levels)
        .flat_map(|(number, level)| (0..level.logits.size()[1]).map(move |_| number))
        .collect();
    let numbers = Tensor::from_slice(&numbers).to_device(logits.device());

    let of_image = |(image, size): (i64, &(i64, i64))| {
        let boxes = Boxes(boxes.get(image)).clip(*size).0;
        let logits = logits.get(image);
        let kept = sound(&boxes, &logits, config.min_side);
        let boxes = boxes.index_select(0, &kept);
        let logits = logits.index_select(0, &kept);
        let scores = match config.score {
            ProposalScore::Logit => logits.shallow_clone(),
            ProposalScore::Probability => logits.sigmoid(),
        };
        let levels = numbers.index_select(0, &kept);
        let best = batched_nms(&boxes, &scores, &levels, config.nms_iou);
        let best = best.narrow(0, 0, after.min(best.size()[0]));
        Proposals {
            boxes: Boxes(boxes.index_select(0, &best)),
            logits: logits.index_select(0, &best),
        }
    };
    (0..).zip(sizes).map(of_image).collect()
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
