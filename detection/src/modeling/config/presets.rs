//! The detectors of the published recipes.

use super::{
    AnchorConfig, BackboneNorm, BackgroundClass, BoxHeadConfig, BoxPrecision, HeadNorm, LevelRule,
    LossNormalizer, MaskHeadConfig, MaskPaste, MaskTargets, ModelConfig, Naming, PoolConfig,
    ProposalScore, RoiConfig, RpnConfig,
};
use crate::ops::AnchorStyle;
use crate::{Error, Result};

/// COCO's classes.
const COCO_CLASSES: i64 = 80;
/// torchvision counts the ten numbers that COCO left out, too.
const COCO_NUMBERS: i64 = 90;

impl ModelConfig {
    /// Names of the presets.
    pub const PRESETS: [&str; 3] =
        ["mask_rcnn_resnet50", "mask_rcnn_convnext_base", "mask_rcnn_torchvision"];

    /// The preset of this name.
    ///
    /// # Errors
    /// No such preset; the message lists those there are.
    pub fn preset(name: &str) -> Result<Self> {
        match name {
            "mask_rcnn_resnet50" => Ok(Self::mask_rcnn_resnet50()),
            "mask_rcnn_convnext_base" => Ok(Self::mask_rcnn_convnext_base()),
            "mask_rcnn_torchvision" => Ok(Self::mask_rcnn_torchvision()),
            _ => {
                let rule = format!("it must be one of {}", Self::PRESETS.join(", "));
                Err(Error::invalid("preset", format!("{name:?}"), rule))
            }
        }
    }

    /// SparK's recipe for detectron2: batch norm everywhere, learned, and a box
    /// head of four convolutions and one layer.
    pub fn mask_rcnn_resnet50() -> Self {
        Self {
            backbone: "resnet50".into(),
            drop_path: 0.0,
            layer_scale: None,
            num_classes: COCO_CLASSES,
            pixel_mean: [123.675, 116.28, 103.53],
            pixel_std: [58.395, 57.12, 57.375],
            backbone_norm: BackboneNorm::Batch,
            output_norm: false,
            fpn_channels: 256,
            fpn_norm: HeadNorm::Batch,
            boxes: BoxPrecision::Single,
            anchors: AnchorConfig {
                sizes: [32.0, 64.0, 128.0, 256.0, 512.0].map(|size| vec![size]).to_vec(),
                aspect_ratios: vec![0.5, 1.0, 2.0],
                rule: AnchorStyle::Detectron2,
            },
            rpn: RpnConfig {
                batch_size_per_image: 256,
                positive_fraction: 0.5,
                iou: [0.3, 0.7],
                pre_nms_train: 2000,
                pre_nms_test: 1000,
                post_nms_train: 1000,
                post_nms_test: 1000,
                nms_iou: 0.7,
                min_side: 0.0,
                score: ProposalScore::Logit,
                smooth_l1_beta: 0.0,
                normalizer: LossNormalizer::Budget,
            },
            roi: RoiConfig {
                batch_size_per_image: 512,
                positive_fraction: 0.25,
                foreground_iou: 0.5,
                level: LevelRule::Detectron2,
                canonical_size: 224.0,
                score_thresh: 0.05,
                nms_iou: 0.5,
                min_side: None,
                detections_per_image: 100,
            },
            box_head: BoxHeadConfig {
                pool: PoolConfig { size: 7, sampling_ratio: 0, aligned: true },
                convs: 4,
                conv_channels: 256,
                norm: HeadNorm::Batch,
                fcs: 1,
                fc_width: 1024,
                weights: [10.0, 10.0, 5.0, 5.0],
                smooth_l1_beta: 0.0,
            },
            mask_head: Some(MaskHeadConfig {
                pool: PoolConfig { size: 14, sampling_ratio: 0, aligned: true },
                convs: 4,
                channels: 256,
                norm: HeadNorm::Batch,
                targets: MaskTargets::Binary,
            }),
            background: BackgroundClass::Last,
            naming: Naming::Detectron2,
            mask_paste: MaskPaste::Detectron2,
        }
    }

    /// SparK's recipe for mmdet: a layer norm on each of ConvNeXt's outputs, no
    /// other norms, a box head of two layers. Proposal losses are divided by
    /// the anchors sampled, as mmdet does.
    pub fn mask_rcnn_convnext_base() -> Self {
        let base = Self::mask_rcnn_resnet50().without_head_norms();
        Self {
            backbone: "convnext_base".into(),
            drop_path: 0.5,
            layer_scale: Some(1.0),
            output_norm: true,
            rpn: RpnConfig { normalizer: LossNormalizer::Sampled, ..base.rpn },
            ..base
        }
    }

    /// torchvision's `maskrcnn_resnet50_fpn`: frozen batch norm in the
    /// backbone, none elsewhere, and its own rounding throughout.
    pub fn mask_rcnn_torchvision() -> Self {
        let base = Self::mask_rcnn_resnet50().without_head_norms();
        let unaligned = |size| PoolConfig { size, sampling_ratio: 2, aligned: false };
        let beta = 1.0 / 9.0;
        Self {
            num_classes: COCO_NUMBERS,
            pixel_mean: [0.485, 0.456, 0.406].map(|mean| 255.0 * mean),
            pixel_std: [0.229, 0.224, 0.225].map(|std| 255.0 * std),
            backbone_norm: BackboneNorm::Frozen,
            boxes: BoxPrecision::Network,
            anchors: AnchorConfig { rule: AnchorStyle::Torchvision, ..base.anchors },
            rpn: RpnConfig {
                post_nms_train: 2000,
                min_side: 1e-3,
                score: ProposalScore::Probability,
                smooth_l1_beta: beta,
                normalizer: LossNormalizer::Sampled,
                ..base.rpn
            },
            roi: RoiConfig { level: LevelRule::Torchvision, min_side: Some(1e-2), ..base.roi },
            box_head: BoxHeadConfig { pool: unaligned(7), smooth_l1_beta: beta, ..base.box_head },
            mask_head: base.mask_head.map(|head| MaskHeadConfig {
                pool: unaligned(14),
                targets: MaskTargets::Average,
                ..head
            }),
            background: BackgroundClass::First,
            naming: Naming::Torchvision,
            mask_paste: MaskPaste::Torchvision,
            ..base
        }
    }

    /// Biases instead of norms outside the backbone, and two fully connected
    /// layers.
    fn without_head_norms(self) -> Self {
        let none = HeadNorm::None;
        Self {
            fpn_norm: none,
            box_head: BoxHeadConfig { convs: 0, fcs: 2, norm: none, ..self.box_head },
            mask_head: self.mask_head.map(|head| MaskHeadConfig { norm: none, ..head }),
            ..self
        }
    }

    /// The same for a small data set on one device: small images, so small
    /// anchors and fewer, narrower layers; group norm, since batches are small.
    pub fn small(self) -> Self {
        let sizes = [8.0, 16.0, 32.0, 64.0, 128.0].map(|size| vec![size]).to_vec();
        Self {
            fpn_channels: 128,
            fpn_norm: HeadNorm::Group,
            anchors: AnchorConfig { sizes, ..self.anchors },
            rpn: RpnConfig {
                pre_nms_train: 500,
                pre_nms_test: 300,
                post_nms_train: 300,
                post_nms_test: 300,
                ..self.rpn
            },
            roi: RoiConfig { batch_size_per_image: 128, canonical_size: 56.0, ..self.roi },
            box_head: BoxHeadConfig { convs: 0, fcs: 1, fc_width: 256, ..self.box_head },
            mask_head: self.mask_head.map(|head| MaskHeadConfig {
                convs: 2,
                channels: 128,
                norm: HeadNorm::Group,
                ..head
            }),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_found_by_name_and_survive_serialisation() {
        for name in ModelConfig::PRESETS {
            let config = ModelConfig::preset(name).unwrap();
            config.check().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
        }
        let error = ModelConfig::preset("mask_rcnn").unwrap_err().to_string();
        assert!(error.contains("mask_rcnn_torchvision"), "{error}");
    }

    #[test]
    fn files_are_called_by_what_they_hold() {
        let backbone = "resnet18".to_owned();
        let small = ModelConfig { backbone, ..ModelConfig::mask_rcnn_resnet50() };
        assert_eq!(small.name(), "mask_rcnn_resnet18");
        let boxes = ModelConfig { mask_head: None, ..ModelConfig::mask_rcnn_torchvision() };
        assert_eq!(boxes.name(), "faster_rcnn_resnet50_torchvision");
        assert_eq!(ModelConfig::mask_rcnn_convnext_base().name(), "mask_rcnn_convnext_base");
    }

    #[test]
    fn broken_settings_are_named() {
        let broken = |change: fn(&mut ModelConfig)| {
            let mut config = ModelConfig::mask_rcnn_resnet50().small();
            config.check().unwrap();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        let error = broken(|config| config.num_classes = 0);
        assert_eq!(error, "num-classes is 0, but it must be at least 1");
        let error = broken(|config| config.anchors.sizes[1].push(3.0));
        assert!(error.starts_with("anchors.sizes"), "{error}");
        let error = broken(|config| config.rpn.iou = [0.7, 0.3]);
        assert!(error.contains("lower threshold"), "{error}");
        let error = broken(|config| config.roi.nms_iou = 1.5);
        assert_eq!(error, "roi.nms-iou is 1.5, but it must be in 0–1");
    }
}
