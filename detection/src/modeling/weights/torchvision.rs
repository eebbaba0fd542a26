//! torchvision's names of a Mask R-CNN.
//! Reference: torchvision `models/detection/mask_rcnn.py`.

use backbone::models::Family;
use backbone::weights::Naming;

use super::{BOTTOM_UP, is_output_norm};
use crate::modeling::config::{BackboneNorm, ModelConfig};

/// The logarithm of the finest stage's stride, which torchvision counts from.
const FINEST: u32 = 2;
/// torchvision's fully connected layers are called after VGG's.
const BEFORE_FC6: u32 = 5;

/// What the tensor `memory` is called in torchvision; `None` if it has no
/// counterpart there.
pub(super) fn to(family: Family, config: &ModelConfig, memory: &str) -> Option<String> {
    if let Some(canonical) = memory.strip_prefix(BOTTOM_UP) {
        let counts = canonical.ends_with("num_batches_tracked");
        if counts && config.backbone_norm == BackboneNorm::Frozen {
            return None;
        }
        if is_output_norm(canonical) {
            return Some(format!("backbone.body.{canonical}"));
        }
        return Some(format!("backbone.body.{}", Naming::Torchvision.to(family, canonical)?));
    }
    let (layer, parameter) = memory.rsplit_once('.')?;
    // A norm stands behind its convolution.
    let (layer, place) = match layer.strip_suffix(".norm") {
        Some(layer) => (layer, 1),
        None => (layer, 0),
    };
    let number = |start: &str| layer.strip_prefix(start)?.parse::<u32>().ok();
    if let Some(level) = number("backbone.fpn_lateral") {
        return Some(format!(
            "backbone.fpn.inner_blocks.{}.{place}.{parameter}",
            level.checked_sub(FINEST)?
        ));
    }
    if let Some(level) = number("backbone.fpn_output") {
        return Some(format!(
            "backbone.fpn.layer_blocks.{}.{place}.{parameter}",
            level.checked_sub(FINEST)?
        ));
    }
    if let Some(fc) = number("roi_heads.box_head.fc") {
        return Some(format!("roi_heads.box_head.fc{}.{parameter}", fc + BEFORE_FC6));
    }
    if let Some(conv) = number("roi_heads.mask_head.mask_fcn") {
        return Some(format!("roi_heads.mask_head.{}.{place}.{parameter}", conv.checked_sub(1)?));
    }
    let layer = match layer {
        "proposal_generator.rpn_head.conv" => "rpn.head.conv.0.0",
        "proposal_generator.rpn_head.objectness_logits" => "rpn.head.cls_logits",
        "proposal_generator.rpn_head.anchor_deltas" => "rpn.head.bbox_pred",
        "roi_heads.mask_head.deconv" => "roi_heads.mask_predictor.conv5_mask",
        "roi_heads.mask_head.predictor" => "roi_heads.mask_predictor.mask_fcn_logits",
        "roi_heads.box_predictor.cls_score" | "roi_heads.box_predictor.bbox_pred" => layer,
        // A head of convolutions has no names there that could be agreed on.
        _ => return Some(memory.to_owned()),
    };
    Some(format!("{layer}.{parameter}"))
}

/// Today's name of a tensor in one of torchvision's older files, in which a
/// layer wasn't yet a list of convolution and norm; its published weights are
/// such.
pub(super) fn modern(name: &str) -> Option<String> {
    let (layer, parameter) = name.rsplit_once('.')?;
    let (before, last) = layer.rsplit_once('.')?;
    let number = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if number && (before.ends_with("fpn.inner_blocks") || before.ends_with("fpn.layer_blocks")) {
        return Some(format!("{layer}.0.{parameter}"));
    }
    if layer.ends_with("rpn.head.conv") {
        return Some(format!("{layer}.0.0.{parameter}"));
    }
    let conv = last.strip_prefix("mask_fcn")?.parse::<u32>().ok()?.checked_sub(1)?;
    // detectron2 calls its own like this.
    (before.ends_with("mask_head")).then(|| format!("{before}.{conv}.0.{parameter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_its_name() {
        let config = ModelConfig::mask_rcnn_torchvision();
        let name = |memory: &str| to(Family::ResNet, &config, memory).unwrap();
        let pairs = [
            ("backbone.bottom_up.layer1.0.bn1.weight", "backbone.body.layer1.0.bn1.weight"),
            ("backbone.fpn_lateral2.weight", "backbone.fpn.inner_blocks.0.0.weight"),
            ("backbone.fpn_output5.norm.bias", "backbone.fpn.layer_blocks.3.1.bias"),
            ("proposal_generator.rpn_head.conv.bias", "rpn.head.conv.0.0.bias"),
            ("roi_heads.box_head.fc2.weight", "roi_heads.box_head.fc7.weight"),
            ("roi_heads.mask_head.mask_fcn4.bias", "roi_heads.mask_head.3.0.bias"),
            ("roi_heads.mask_head.deconv.bias", "roi_heads.mask_predictor.conv5_mask.bias"),
        ];
        for (memory, expected) in pairs {
            assert_eq!(name(memory), expected);
        }
        let count = "backbone.bottom_up.bn1.num_batches_tracked";
        assert_eq!(to(Family::ResNet, &config, count), None);
    }

    #[test]
    fn older_files_are_understood() {
        let pairs = [
            ("backbone.fpn.inner_blocks.3.bias", "backbone.fpn.inner_blocks.3.0.bias"),
            ("rpn.head.conv.weight", "rpn.head.conv.0.0.weight"),
            ("roi_heads.mask_head.mask_fcn2.weight", "roi_heads.mask_head.1.0.weight"),
        ];
        for (old, new) in pairs {
            assert_eq!(modern(old).as_deref(), Some(new));
            assert_eq!(modern(new), None);
        }
    }
}
