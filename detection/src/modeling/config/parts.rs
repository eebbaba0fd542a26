//! The parts of a [`ModelConfig`](super::ModelConfig).

use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::ops::AnchorStyle;
use crate::{Error, Result};

/// How the backbone's batch norms are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneNorm {
    /// On the batch's statistics in training; weights and biases learn. On one
    /// process this is what detectron2's SyncBN is.
    Batch,
    /// On running statistics, nothing of it learns (`FrozenBatchNorm2d`).
    Frozen,
}

/// Norm behind a convolution outside the backbone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadNorm {
    /// None; the convolution has a bias.
    None,
    /// Batch norm.
    Batch,
    /// Group norm of 32 groups, for batches of few images.
    Group,
}

/// Whose names the parameters have in state dicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Naming {
    /// detectron2's.
    Detectron2,
    /// torchvision's.
    Torchvision,
}

/// Which class the background is among a classifier's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackgroundClass {
    /// Behind the classes; boxes and masks have none (detectron2, mmdet).
    Last,
    /// Before the classes, in boxes and masks too (torchvision).
    First,
}

impl BackgroundClass {
    /// Outputs before that of class 0.
    pub fn offset(self) -> i64 {
        match self {
            Self::Last => 0,
            Self::First => 1,
        }
    }

    /// The background's place among the scores of `classes` classes.
    pub fn index(self, classes: i64) -> i64 {
        match self {
            Self::Last => classes,
            Self::First => 0,
        }
    }

    /// Boxes, or masks, that are predicted for each region.
    pub fn outputs(self, classes: i64) -> i64 {
        classes + self.offset()
    }
}

/// The type boxes are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoxPrecision {
    /// float32, whatever the network's is (detectron2).
    Single,
    /// The network's, float32 at least (torchvision).
    Network,
}

impl BoxPrecision {
    /// The type of boxes where the network predicts in `kind`.
    pub fn kind(self, kind: Kind) -> Kind {
        match (self, kind) {
            (Self::Network, Kind::Double) => Kind::Double,
            _ => Kind::Float,
        }
    }
}

/// Anchors: boxes that proposals start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct AnchorConfig {
    /// Sides of the square anchors of every level, in pixels, finest level
    /// first; the last one's are those of the pooled level.
    pub sizes: Vec<Vec<f64>>,
    /// Height over width.
    pub aspect_ratios: Vec<f64>,
    /// How they are made.
    pub rule: AnchorStyle,
}

impl AnchorConfig {
    /// Anchors at each position.
    pub fn per_position(&self) -> i64 {
        (self.sizes.first().map_or(0, Vec::len) * self.aspect_ratios.len()) as i64
    }

    pub(super) fn check(&self) -> Result<()> {
        let sizes = format!("{:?}", self.sizes);
        let count = self.sizes.first().map_or(0, Vec::len);
        if count == 0 || self.sizes.iter().any(|level| level.len() != count) {
            let rule = "every level needs at least one and all levels equally many";
            return Err(Error::invalid("anchors.sizes", sizes, rule));
        }
        if self.sizes.iter().flatten().any(|size| *size <= 0.0) {
            return Err(Error::invalid("anchors.sizes", sizes, "they must be positive"));
        }
        let ratios = &self.aspect_ratios;
        if ratios.is_empty() || ratios.iter().any(|ratio| *ratio <= 0.0) {
            let rule = "there must be at least one, and all positive";
            return Err(Error::invalid("anchors.aspect-ratios", format!("{ratios:?}"), rule));
        }
        Ok(())
    }
}

/// What the sum of a proposal loss is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossNormalizer {
    /// Anchors that may be sampled: `rpn.batch-size-per-image` times images (detectron2).
    Budget,
    /// Anchors that were sampled (torchvision, mmdet).
    Sampled,
}

/// What proposals are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProposalScore {
    /// The logit itself (detectron2).
    Logit,
    /// Its sigmoid, which rounds large logits to the same value (torchvision).
    Probability,
}

/// Region proposals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RpnConfig {
    /// Anchors sampled per image.
    pub batch_size_per_image: i64,
    /// Share of them that may be positive.
    pub positive_fraction: f64,
    /// Below the first an anchor is background, from the second on an object,
    /// between them neither.
    pub iou: [f64; 2],
    /// Proposals of each level before suppression, in training.
    pub pre_nms_train: i64,
    /// In evaluation.
    pub pre_nms_test: i64,
    /// Proposals of an image after suppression, in training.
    pub post_nms_train: i64,
    /// In evaluation.
    pub post_nms_test: i64,
    /// Overlap above which the worse of two proposals of a level goes.
    pub nms_iou: f64,
    /// Shortest side of a proposal in pixels; empty ones go in any case.
    pub min_side: f64,
    /// What they are ranked by.
    pub score: ProposalScore,
    /// Difference up to which the box loss is quadratic; 0: never.
    pub smooth_l1_beta: f64,
    /// What the losses are divided by.
    pub normalizer: LossNormalizer,
}

/// Which pyramid level a region is read from: floor(4 + log2(√area /
/// canonical size)), made robust just below whole numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LevelRule {
    /// 1e-8 is added under the logarithm.
    Detectron2,
    /// 1e-6 is added to the logarithm.
    Torchvision,
}

/// From proposals to detections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RoiConfig {
    /// Regions sampled per image in training.
    pub batch_size_per_image: i64,
    /// Share of them that may be objects.
    pub positive_fraction: f64,
    /// Overlap with an object from which on a region is that object.
    pub foreground_iou: f64,
    /// Which level a region is read from.
    pub level: LevelRule,
    /// Side in pixels of a square region that is read at stride 16.
    pub canonical_size: f64,
    /// Least score of a detection (exclusive).
    pub score_thresh: f64,
    /// Overlap above which the worse of two detections of a class goes.
    pub nms_iou: f64,
    /// Shortest side of a detection in pixels; any if none.
    pub min_side: Option<f64>,
    /// Most detections of an image.
    pub detections_per_image: i64,
}

/// RoIAlign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PoolConfig {
    /// Side of the square output.
    pub size: i64,
    /// Samples along each side of an output cell; 0: as many as positions.
    pub sampling_ratio: i64,
    /// Whether positions are shifted by half a pixel, as they should be.
    pub aligned: bool,
}

/// The box branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BoxHeadConfig {
    /// RoIAlign of its input.
    pub pool: PoolConfig,
    /// 3×3 convolutions.
    pub convs: i64,
    /// Their width.
    pub conv_channels: i64,
    /// Norm behind them.
    pub norm: HeadNorm,
    /// Fully connected layers.
    pub fcs: i64,
    /// Their width.
    pub fc_width: i64,
    /// By what (dx, dy, dw, dh) are multiplied.
    pub weights: [f64; 4],
    /// Difference up to which the box loss is quadratic; 0: never.
    pub smooth_l1_beta: f64,
}

/// How an object's mask becomes the target of a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskTargets {
    /// Inside or outside: polygons drawn, bitmaps averaged and cut at one half
    /// (detectron2).
    Binary,
    /// The average of the bitmap, by unaligned RoIAlign (torchvision).
    Average,
}

/// The mask branch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MaskHeadConfig {
    /// RoIAlign of its input; masks are twice as large.
    pub pool: PoolConfig,
    /// 3×3 convolutions.
    pub convs: i64,
    /// Their width.
    pub channels: i64,
    /// Norm behind them.
    pub norm: HeadNorm,
    /// What it learns from.
    pub targets: MaskTargets,
}
