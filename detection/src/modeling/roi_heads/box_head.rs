//! Class and box of every region.
//! Reference: detectron2 `roi_heads/box_head.py`, `roi_heads/fast_rcnn.py`.

use backbone::Mode;
use backbone::layers::Linear;
use tch::Tensor;
use tch::nn::Path;

use crate::modeling::config::BoxHeadConfig;
use crate::modeling::layers::{NormConv, in_full, normal, xavier};

/// Convolutions, then fully connected layers, a ReLU behind each.
#[derive(Debug)]
pub(super) struct BoxHead {
    convs: Vec<NormConv>,
    fcs: Vec<Linear>,
}

impl BoxHead {
    /// `conv1`, …, `fc1`, … under `path`.
    pub(super) fn new(path: &Path, channels: i64, config: &BoxHeadConfig) -> Self {
        let ends = (channels, config.conv_channels);
        let convs = NormConv::chain(path, ("conv", config.convs), ends, config.norm);
        let channels = if config.convs == 0 { channels } else { config.conv_channels };
        let mut width = channels * config.pool.size * config.pool.size;
        let fcs = (1..=config.fcs).map(|number| {
            let path = path / format!("fc{number}");
            let fc = Linear::new(&path, width, config.fc_width, xavier(width));
            width = config.fc_width;
            fc
        });
        Self { convs, fcs: fcs.collect() }
    }

    /// `[R, C, size, size]` to `[R, fc_width]`.
    pub(super) fn forward(&self, regions: &Tensor, mode: &Mode) -> Tensor {
        let regions = NormConv::forward_chain(&self.convs, regions, mode);
        self.fcs.iter().fold(regions.flatten(1, -1), |x, fc| fc.on_rows(&x, mode).relu())
    }
}

/// What is predicted for every region.
#[derive(Debug)]
pub(super) struct BoxPredictions {
    /// `[R, K + 1]`, before the softmax.
    pub(super) scores: Tensor,
    /// `[R, outputs, 4]`: a move for every class.
    pub(super) deltas: Tensor,
}

/// The last layers of the box branch.
#[derive(Debug)]
pub(super) struct Predictor {
    cls_score: Linear,
    bbox_pred: Linear,
}

impl Predictor {
    /// `cls_score` with as many outputs as `scores` and `bbox_pred` with four
    /// times `boxes` under `path`.
    pub(super) fn new(path: &Path, width: i64, (scores, boxes): (i64, i64)) -> Self {
        Self {
            cls_score: Linear::new(&(path / "cls_score"), width, scores, normal(0.01)),
            bbox_pred: Linear::new(&(path / "bbox_pred"), width, 4 * boxes, normal(0.001)),
        }
    }

    /// `[R, fc_width]` to scores and deltas.
    pub(super) fn forward(&self, features: &Tensor, mode: &Mode) -> BoxPredictions {
        let deltas = in_full(self.bbox_pred.on_rows(features, mode));
        let outputs = deltas.size()[1] / 4;
        BoxPredictions {
            scores: in_full(self.cls_score.on_rows(features, mode)),
            deltas: deltas.view([-1, outputs, 4]),
        }
    }
}
