//! detectron2's numbers, reproduced in float64: pyramid, proposals, detections,
//! masks, losses, gradients.

use std::collections::BTreeMap;
use std::path::Path;

use backbone::weights::StateDict;
use backbone::{DropPathDraws, Mode};
use clap::Parser;
use data::rng::Rng;
use detection::cli::Cli;
use detection::modeling::{MaskRcnn, ModelConfig, weights};
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::distributed::ProcessGroup;
use spark_tests::fixture::{Fixture, assert_relative};
use spark_tests::rule;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Maps are stored as float32: half a unit in the last of its 24 bits, relative
/// to the largest value since small ones come out of cancellation.
const STORED_F32: f64 = 1e-7;
/// Pixels. Boxes are float32 in detectron2, and here the same bits; another
/// processor's float32 exponential may move them by a unit, 1.5e-5.
const BOX: f64 = 1e-4;
/// Probabilities and logits stored as float32 (3e-8 was seen).
const SCORE: f64 = 1e-7;
/// Relative. The binary cross entropies are sums of float32 in detectron2
/// (1.5e-7 was seen), the others are float64 (1e-13).
const LOSS: f64 = 3e-7;
/// Relative (2.5e-8 was seen): float64, behind those cross entropies. A box that
/// moved by a float32's last unit would flip ReLUs and change it by 1e-4.
const GRADIENT: f64 = 1e-6;

fn fixture() -> Fixture {
    Fixture::read("maskrcnn_r50_256.safetensors")
}

/// What inference found, by name.
fn check_inference(fixture: &Fixture, found: impl Fn(&str) -> Tensor) {
    for number in 2..=6 {
        let name = format!("fpn.p{number}");
        let map = found(&name);
        let map = if number < 4 { map.slice(1, 0, None, 8) } else { map };
        let name = format!("inference.{name}");
        fixture.check(&name, &map, STORED_F32 * fixture.largest(&name));
    }
    let logits = STORED_F32 * fixture.largest("inference.proposals.logits");
    for (name, tolerance) in [
        ("proposals.boxes", BOX),
        ("proposals.logits", logits),
        ("detections.boxes", BOX),
        ("detections.scores", SCORE),
        ("detections.classes", 0.0),
        ("detections.masks28", SCORE),
    ] {
        fixture.check(&format!("inference.{name}"), &found(name), tolerance);
    }
}

fn targets(fixture: &Fixture) -> Targets {
    let masks = &fixture.tensors["gt.masks"];
    let bitmap = |index: i64| {
        let pixels = masks.get(index).to_kind(Kind::Uint8).reshape([-1]);
        let pixels = Vec::try_from(&pixels).unwrap();
        InstanceMask::Bitmap(Bitmap { height: 256, width: 256, pixels })
    };
    Targets {
        boxes: Boxes(fixture.tensors["gt.boxes"].shallow_clone()),
        classes: fixture.tensors["gt.classes"].shallow_clone(),
        masks: (0..masks.size()[0]).map(bitmap).collect(),
    }
}

/// The recipe. detectron2 keeps the pixels' mean and deviation in float32.
fn config() -> ModelConfig {
    let config = ModelConfig::mask_rcnn_resnet50();
    let single = |values: [f64; 3]| values.map(|value| f64::from(value as f32));
    let (pixel_mean, pixel_std) = (single(config.pixel_mean), single(config.pixel_std));
    ModelConfig { pixel_mean, pixel_std, ..config }
}

/// A model with weights by rule, in float64, and its tensors by detectron2's
/// names.
fn model(config: &ModelConfig) -> (MaskRcnn, VarStore, StateDict) {
    let mut store = VarStore::new(Device::Cpu);
    let model = MaskRcnn::build(&store, config).unwrap();
    store.double();
    let tensors = weights::state_dict(&store, config).unwrap();
    let scales = [
        ("roi_heads.box_predictor.cls_score.weight", 2.0),
        ("roi_heads.box_predictor.bbox_pred.weight", 0.5),
        ("proposal_generator.rpn_head.anchor_deltas.weight", 0.3),
    ];
    rule::fill_scaled(weights::state_dict(&store, config).unwrap(), &scales);
    (model, store, tensors)
}

#[test]
fn inference_is_detectron2s() {
    let golden = fixture();
    let (model, _store, _) = model(&config());
    let dump = model.dump(&[golden.double("image")], &Mode::eval()).unwrap();
    let mut found = StateDict::new();
    for (number, map) in (2..).zip(dump.maps) {
        found.insert(format!("fpn.p{number}"), map);
    }
    let (proposals, detections) = (&dump.proposals[0], &dump.detections[0]);
    for (name, tensor) in [
        ("proposals.boxes", proposals.boxes.tensor()),
        ("proposals.logits", &proposals.logits),
        ("detections.boxes", detections.boxes.tensor()),
        ("detections.scores", &detections.scores),
        ("detections.classes", &detections.classes),
        ("detections.masks28", detections.masks.as_ref().unwrap()),
    ] {
        found.insert(name.into(), tensor.shallow_clone());
    }
    check_inference(&golden, |name| found[name].shallow_clone());
}

/// The program's own way: a weight file, a batch, settings in, tensors out.
#[test]
fn the_command_says_the_same() {
    let golden = fixture();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (config, batch, out) = (config(), path("batch.safetensors"), path("out.safetensors"));
    let (_model, store, _) = model(&config);
    weights::write_detector(Path::new(&path("model.pth")), &store, &config).unwrap();
    let image = StateDict::from([("image".into(), golden.double("image"))]);
    backbone::weights::write_safetensors(&batch, &image, &BTreeMap::new()).unwrap();
    let settings = format!(
        "[model]\npixel-mean = {:?}\npixel-std = {:?}\n",
        config.pixel_mean, config.pixel_std
    );
    std::fs::write(path("settings.toml"), settings).unwrap();

    let files = ["--weights", &path("model.pth"), "--batch", &batch, "--out", &out];
    let settings = ["--preset", "mask_rcnn_resnet50_1x", "--config", &path("settings.toml")];
    let more = ["--dtype", "float64", "--device", "cpu"];
    let arguments = [["detect", "forward"].as_slice(), &files, &settings, &more].concat();
    Cli::try_parse_from(arguments).unwrap().run().unwrap();
    let found = backbone::weights::read(&out).unwrap().tensors;
    check_inference(&golden, |name| found[&format!("inference.{name}")].shallow_clone());
}

#[test]
fn losses_and_gradients_are_detectron2s() {
    let golden = fixture();
    let mut config = config();
    // Every anchor and every proposal is kept: nothing is left to chance.
    (config.rpn.batch_size_per_image, config.rpn.positive_fraction) = (20_000, 1.0);
    (config.roi.batch_size_per_image, config.roi.positive_fraction) = (10_000_000, 1.0);
    let (model, _store, tensors) = model(&config);
    let mode = Mode::train().with_drop_path(DropPathDraws::Off);
    let mut rngs = [Rng::new(0, &[])];
    let losses = model
        .losses(
            &[golden.double("image")],
            &[targets(&golden)],
            &mode,
            &mut rngs,
            &ProcessGroup::alone(),
        )
        .unwrap();
    for (name, loss) in losses.iter() {
        let name = format!("train.{name}");
        let expected = golden.double(&name).double_value(&[0]);
        golden.check(&name, &loss.view([1]), LOSS * expected);
    }
    assert_eq!(losses.iter().count(), 5);

    losses.total().backward();
    let expected = golden.values("train.grad_norm");
    let params = golden.names("params");
    assert_eq!(expected.len(), params.len());
    let trained = tensors.values().filter(|tensor| tensor.requires_grad()).count();
    assert_eq!(trained, params.len());
    for (name, expected) in params.iter().zip(expected) {
        let got = tensors[name].grad().norm().double_value(&[]);
        assert_relative(name, got, expected, GRADIENT);
    }
}
