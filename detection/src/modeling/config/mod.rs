//! Everything that defines a detector, as data: what the recipes of detectron2,
//! mmdet and torchvision differ in are fields here, not code.

mod parts;
mod presets;

use backbone::models::{self, Family, Model};
use serde::{Deserialize, Serialize};

pub use parts::{
    AnchorConfig, BackboneNorm, BackgroundClass, BoxHeadConfig, BoxPrecision, HeadNorm, LevelRule,
    LossNormalizer, MaskHeadConfig, MaskTargets, Naming, PoolConfig, ProposalScore, RoiConfig,
    RpnConfig,
};

pub use crate::ops::MaskPaste;
use crate::{Error, Result};

/// A Mask R-CNN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ModelConfig {
    /// Name of the backbone: a registered one, or a `.pt2` file.
    pub backbone: String,
    /// Drop-path rate of the backbone's last block.
    pub drop_path: f64,
    /// What ConvNeXt's layer scales start at; the backbone's own start if none.
    pub layer_scale: Option<f64>,
    /// Classes of objects, the background not counted.
    pub num_classes: i64,
    /// Mean of red, green, blue, for pixels in 0–255.
    pub pixel_mean: [f64; 3],
    /// Deviation of red, green, blue.
    pub pixel_std: [f64; 3],
    /// How the backbone's batch norms are run.
    pub backbone_norm: BackboneNorm,
    /// Whether each of the backbone's maps goes through a layer norm of its own
    /// (`norm0` to `norm3`, eps 1e-6) before the feature pyramid.
    pub output_norm: bool,
    /// Channels of the feature pyramid.
    pub fpn_channels: i64,
    /// Norm behind the pyramid's convolutions, which then have no bias.
    pub fpn_norm: HeadNorm,
    /// The type boxes are computed in.
    pub boxes: BoxPrecision,
    /// Boxes that proposals start from.
    pub anchors: AnchorConfig,
    /// Region proposals.
    pub rpn: RpnConfig,
    /// From proposals to detections.
    pub roi: RoiConfig,
    /// The box branch.
    pub box_head: BoxHeadConfig,
    /// The mask branch; boxes alone if none.
    pub mask_head: Option<MaskHeadConfig>,
    /// Which class the background is.
    pub background: BackgroundClass,
    /// Whose state dicts are written.
    pub naming: Naming,
    /// How masks are pasted into the image.
    pub mask_paste: MaskPaste,
}

impl ModelConfig {
    /// The same for another number of classes.
    pub fn with_classes(self, num_classes: i64) -> Self {
        Self { num_classes, ..self }
    }

    /// What the detector is called in the names of files: `mask_rcnn_resnet18`, or
    /// `faster_rcnn_resnet18` without mask branch; torchvision's say so.
    pub fn name(&self) -> String {
        let detector = if self.mask_head.is_some() { "mask_rcnn" } else { "faster_rcnn" };
        let theirs = match self.naming {
            Naming::Detectron2 => "",
            Naming::Torchvision => "_torchvision",
        };
        format!("{detector}_{}{theirs}", models::short_name(&self.backbone))
    }

    /// Whose names the backbone's parameters bear; a network that isn't
    /// registered keeps its own.
    pub fn family(&self) -> Family {
        let registered = models::registered(&self.backbone).ok().flatten();
        registered.map_or(Family::Custom, Model::family)
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The first field that breaks a rule.
    pub fn check(&self) -> Result<()> {
        let positive = [
            ("num-classes", self.num_classes),
            ("fpn-channels", self.fpn_channels),
            ("rpn.batch-size-per-image", self.rpn.batch_size_per_image),
            ("rpn.pre-nms-train", self.rpn.pre_nms_train),
            ("rpn.pre-nms-test", self.rpn.pre_nms_test),
            ("rpn.post-nms-train", self.rpn.post_nms_train),
            ("rpn.post-nms-test", self.rpn.post_nms_test),
            ("roi.batch-size-per-image", self.roi.batch_size_per_image),
            ("roi.detections-per-image", self.roi.detections_per_image),
            ("box-head.pool.size", self.box_head.pool.size),
            ("box-head.fcs", self.box_head.fcs),
        ];
        for (name, value) in positive {
            if value < 1 {
                return Err(Error::invalid(name, value, "it must be at least 1"));
            }
        }
        let shares = [
            ("rpn.positive-fraction", self.rpn.positive_fraction),
            ("rpn.nms-iou", self.rpn.nms_iou),
            ("roi.positive-fraction", self.roi.positive_fraction),
            ("roi.nms-iou", self.roi.nms_iou),
            ("roi.foreground-iou", self.roi.foreground_iou),
        ];
        for (name, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::invalid(name, value, "it must be in 0–1"));
            }
        }
        if self.rpn.iou[0] > self.rpn.iou[1] {
            let value = format!("{:?}", self.rpn.iou);
            return Err(Error::invalid("rpn.iou", value, "the lower threshold stands first"));
        }
        if let Some(std) = self.pixel_std.iter().find(|std| **std <= 0.0) {
            return Err(Error::invalid("pixel-std", std, "it must be positive"));
        }
        self.anchors.check()
    }
}
