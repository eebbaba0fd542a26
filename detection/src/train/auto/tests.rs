use engine::settings::TrainSettings as _;
use tch::Device;

use super::*;
use crate::modeling::ModelConfig;

const NUCLEI: Facts = Facts { images: 559, short_side: 256.0, object_share: 0.08 };
const COCO: Facts = Facts { images: 117_266, short_side: 428.0, object_share: 0.13 };

fn machine(device: Device, cores: usize) -> Machine {
    Machine { device, cores, processes: 1, memory: Some(20_000_000_000), bfloat16: false }
}

/// The rule without the files: `seconds` are what an image takes.
fn chosen(
    facts: &Facts,
    machine: &Machine,
    given: &str,
    start: &Start,
    seconds: f64,
) -> TrainConfig {
    let mut choices = Choices::new(given.parse().unwrap());
    let rule = DetectionRule { facts: *facts, start: start.clone() };
    rule.choose_recipe(&mut choices, machine).unwrap();
    rule.choose_batch(&mut choices, machine).unwrap();
    let cost = StepCost { seconds, bytes: None, fixed: 0 };
    rule.choose_length(&mut choices, machine, &cost).unwrap();
    let mut config = choices.settings().unwrap();
    (config.data, config.run.output) = ("d".into(), "o".into());
    config.resolve().unwrap()
}

fn pretrained() -> Start {
    Start {
        backbone: Some(("resnet34".into(), "runs/first".into())),
        pretrained: true,
        ..Start::default()
    }
}

/// Backbone, short side, batch, epochs, warm-up.
fn told(config: &TrainConfig) -> (String, usize, usize, u64, u64) {
    let backbone = config.detector.backbone().to_owned();
    let (side, optim) = (config.inference.eval_short_side, &config.optim);
    (backbone, side, optim.batch_size, optim.epochs, config.warmup_iterations)
}

#[test]
fn the_rule_by_images_and_machine() {
    let (small, gpu) = (machine(Device::Cpu, 2), machine(Device::Cuda(0), 8));
    let of = |images, like: &Facts, machine, seconds| {
        let facts = Facts { images, ..*like };
        told(&chosen(&facts, machine, "", &Start::default(), seconds))
    };
    let row = |backbone: &str, side, batch, epochs, warmup| {
        (backbone.to_owned(), side, batch, epochs, warmup)
    };
    assert_eq!(of(15, &NUCLEI, &small, 0.2), row("resnet18", 256, 4, 250, 50));
    assert_eq!(of(475, &NUCLEI, &small, 0.2), row("resnet18", 256, 4, 50, 297));
    // 216,000 images in a night.
    assert_eq!(of(20_000, &COCO, &small, 0.2), row("resnet18", 320, 4, 10, 1000));
    assert_eq!(of(1_300_000, &COCO, &small, 0.2), row("resnet18", 320, 4, 1, 1000));
    assert_eq!(of(475, &NUCLEI, &gpu, 0.01), row("resnet50", 320, 8, 50, 150));
    assert_eq!(of(20_000, &COCO, &gpu, 0.01), row("resnet50", 800, 16, 24, 1000));
    assert_eq!(of(117_266, &COCO, &gpu, 0.01), row("resnet50", 800, 16, 12, 1000));
    assert_eq!(of(1_300_000, &COCO, &gpu, 0.01).3, 3, "at most 270,000 steps");
}

#[test]
fn anchors_are_of_the_objects_sizes() {
    let gpu = machine(Device::Cuda(0), 8);
    let model = |facts: &Facts, machine, given: &str, start: &Start| {
        let config = chosen(facts, machine, given, start, 0.01);
        config.detector.model_config(1).unwrap()
    };
    let finest = |model: &ModelConfig| (model.anchors.sizes[0][0], model.roi.canonical_size);
    let none = Start::default();
    let small = machine(Device::Cpu, 2);
    let nuclei = model(&NUCLEI, &small, "", &none);
    assert_eq!(finest(&nuclei), (8.0, 56.0));
    assert_eq!(nuclei.anchors.sizes.concat(), [8.0, 16.0, 32.0, 64.0, 128.0]);
    // As detectron2 has it.
    assert_eq!(finest(&model(&COCO, &gpu, "", &none)), (32.0, 224.0));
    let given = "[model.anchors]\nsizes = [[4.0], [8.0], [16.0], [32.0], [64.0]]";
    assert_eq!(finest(&model(&NUCLEI, &gpu, given, &none)).0, 4.0);
}

#[test]
fn weights_tell_the_backbone_and_how_carefully_it_is_trained() {
    let small = machine(Device::Cpu, 2);
    let from = |given: &str, start: &Start| chosen(&NUCLEI, &small, given, start, 0.1);
    let config = from("", &pretrained());
    assert_eq!((config.detector.backbone(), config.layer_decay), ("resnet34", 0.75));
    assert!(!config.detector.norm_eval);
    assert_eq!(from("", &Start::default()).layer_decay, 1.0);
    assert_eq!(from("backbone = \"resnet50\"", &pretrained()).detector.backbone(), "resnet50");
    // Statistics of two images are worse than those of pretraining, if there was any.
    assert!(from("batch-size = 2", &pretrained()).detector.norm_eval);
    assert!(!from("batch-size = 2", &Start::default()).detector.norm_eval);
}

#[test]
fn a_whole_detector_stays_what_it_is() {
    let detector = "small = true\nbackbone = \"resnet18\"\n[model]\nfpn-channels = 64";
    let start = Start {
        detector: Some(detector.parse().unwrap()),
        pretrained: true,
        whole: true,
        ..Start::default()
    };
    let config = chosen(&NUCLEI, &machine(Device::Cuda(0), 8), "", &start, 0.1);
    let model = config.detector.model_config(1).unwrap();
    assert_eq!((model.backbone.as_str(), model.fpn_channels), ("resnet18", 64));
    // Another program's file tells nothing: the full detector, as without a preset before.
    let start = Start { detector: None, ..start };
    let config = chosen(&NUCLEI, &machine(Device::Cpu, 2), "", &start, 0.1);
    assert_eq!(config.detector.model_config(80).unwrap(), ModelConfig::mask_rcnn_resnet50());
}

#[test]
fn what_is_given_stays_and_the_rest_goes_by_it() {
    let small = machine(Device::Cpu, 2);
    let start = Start::default();
    let config = chosen(&NUCLEI, &small, "iterations = 60\nschedule = \"step\"", &start, 0.1);
    assert_eq!(config.total_steps(140), 60);
    assert_eq!((config.warmup_iterations, config.milestones), (3, vec![40, 53]));
    let config = chosen(&NUCLEI, &small, "epochs = 1\neval-short-side = 192", &start, 0.1);
    assert_eq!((config.optim.epochs, config.inference.eval_short_side), (1, 192));
}
