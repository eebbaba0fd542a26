//! The network of the proposal generator, the same for every level.
//! Reference: detectron2 `StandardRPNHead`.

use backbone::layers::{Conv2d, Conv2dConfig, Layer};
use backbone::{FeatureMap, Mode};
use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use crate::modeling::layers::{in_full, normal};

const NAMES: [&str; 3] = ["conv", "objectness_logits", "anchor_deltas"];

/// A 3×3 convolution, then for every anchor of a position a logit and a move.
#[derive(Debug)]
pub(super) struct RpnHead {
    conv: Conv2d,
    objectness_logits: Conv2d,
    anchor_deltas: Conv2d,
    /// Weight and bias of the three, in this order.
    parameters: [(Tensor, Tensor); 3],
    anchors: i64,
}

impl RpnHead {
    /// `conv`, `objectness_logits` and `anchor_deltas` under `path`, for
    /// `anchors` at each position.
    pub(super) fn new(path: &Path, channels: i64, anchors: i64) -> Self {
        let conv = |name: &str, kernel: i64, to: i64| {
            let config = Conv2dConfig::square(kernel).bias().init(normal(0.01));
            Conv2d::new(&(path / name), channels, to, config)
        };
        Self {
            conv: conv(NAMES[0], 3, channels),
            objectness_logits: conv(NAMES[1], 1, anchors),
            anchor_deltas: conv(NAMES[2], 1, 4 * anchors),
            parameters: NAMES.map(|name| {
                let of = |parameter: &str| (path / name).get(parameter).expect("just made");
                (of("weight"), of("bias"))
            }),
            anchors,
        }
    }

    pub(super) fn options(&self) -> (Kind, Device) {
        let (weight, _) = &self.parameters[0];
        (weight.kind(), weight.device())
    }

    /// Anchors at each position.
    pub(super) fn anchors(&self) -> i64 {
        self.anchors
    }

    /// Weight and bias of `conv`, `objectness_logits` and `anchor_deltas`.
    pub(super) fn parameters(&self) -> &[(Tensor, Tensor); 3] {
        &self.parameters
    }

    /// Logits `[N, H·W·A]` and deltas `[N, H·W·A, 4]` of a map `[N, C, H, W]`:
    /// position by position, its anchors together.
    pub(super) fn forward(&self, map: &Tensor, mode: &Mode) -> (Tensor, Tensor) {
        let images = map.size()[0];
        let hidden = self.conv.forward(&FeatureMap::Grid(map.shallow_clone()), mode);
        let hidden = hidden.map(Tensor::relu);
        let rows = |conv: &Conv2d| {
            in_full(conv.forward(&hidden, mode).to_grid()).permute([0, 2, 3, 1]).contiguous()
        };
        let logits = rows(&self.objectness_logits).view([images, -1]);
        let deltas = rows(&self.anchor_deltas).view([images, -1, 4]);
        (logits, deltas)
    }
}
