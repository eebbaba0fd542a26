use test_support::{of_preset, presets_survive_a_file};

use super::*;
use crate::modeling::ModelConfig;

fn preset(preset: Preset, more: &str) -> Result<TrainConfig> {
    of_preset::<TrainConfig>(&preset, more)?.resolve()
}

#[test]
fn presets_are_valid_and_survive_a_file() {
    presets_survive_a_file::<Preset, _, _>(TrainConfig::resolve);
}

#[test]
fn recipes_are_the_published_ones() {
    let resnet = preset(Preset::MaskRcnnResnet50_1x, "").unwrap();
    let model = resnet.detector.model_config(80).unwrap();
    assert_eq!(model, ModelConfig::mask_rcnn_resnet50());
    assert_eq!(resnet.total_steps(7330), 90_000);
    for (step, lr) in [(0, 2.5e-6), (1000, 2.5e-4), (60_000, 6.25e-5), (89_999, 1.5625e-5)] {
        assert!((resnet.lr(step, 7330) / lr - 1.0).abs() < 1e-12, "step {step}");
    }
    let convnext = preset(Preset::MaskRcnnConvnextBase3x, "").unwrap();
    assert_eq!(convnext.detector.model_config(80).unwrap(), ModelConfig::mask_rcnn_convnext_base());
    assert_eq!(convnext.augmentation, TrainTransform::mmdet());
    assert_eq!(convnext.total_steps(100), 3600);
    assert!((convnext.lr(2700, 100) / 4e-5 - 1.0).abs() < 1e-12);
    let half = preset(Preset::MaskRcnnResnet50_1x, "batch-size = 8").unwrap();
    assert_eq!(half.peak_lr(), 1.25e-4);
}

#[test]
fn the_model_table_is_laid_over_the_detectors_preset() {
    let config = preset(Preset::Demo, "[model.rpn]\nbatch = 64").unwrap();
    let model = config.detector.model_config(3).unwrap();
    assert_eq!(
        (model.rpn.batch_size_per_image, model.rpn.pre_nms_train, model.num_classes),
        (64, 300, 3)
    );
    assert_eq!((model.backbone.as_str(), model.fpn_channels), ("resnet18", 64));
    assert!(
        preset(Preset::Demo, "masks = false")
            .unwrap()
            .detector
            .model_config(3)
            .unwrap()
            .mask_head
            .is_none()
    );

    let error = |more| format!("{:#}", preset(Preset::Demo, more).unwrap_err());
    assert!(error("[model]\nnum-classes = 3").contains("num-classes"));
    assert!(error("[model.rpn]\nbatches = 3").contains("batches"));
    assert!(error("detector = \"yolo\"").contains("detector is \"yolo\", but it must be one of"));
    assert!(error("[model.rpn]\nbatch = 0").contains("rpn.batch-size-per-image is 0"));
}
