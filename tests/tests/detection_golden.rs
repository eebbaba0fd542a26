//! detectron2's numbers, reproduced in float64: pyramid, proposals, detections,
//! masks, losses, gradients.

use std::collections::BTreeMap;
use std::path::PathBuf;

use backbone::weights::StateDict;
use backbone::{DropPathDraws, Mode};
use detection::modeling::{MaskRcnn, ModelConfig, weights};
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::rng::Rng;
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

struct Golden {
    tensors: BTreeMap<String, Tensor>,
    /// Names of the parameters, in the order of `train.grad_norm`.
    params: Vec<String>,
}

impl Golden {
    fn read() -> Self {
        let path =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/maskrcnn_r50_256.safetensors");
        let file = backbone::weights::read(path).unwrap();
        let params = serde_json::from_str(&file.metadata["params"]).unwrap();
        Self { tensors: file.tensors, params }
    }

    fn double(&self, name: &str) -> Tensor {
        self.tensors[name].to_kind(Kind::Double)
    }

    fn image(&self) -> Tensor {
        self.double("image")
    }

    fn check(&self, name: &str, got: &Tensor, tolerance: f64) {
        let expected = self.double(name);
        assert_eq!(got.size(), expected.size(), "{name}");
        let difference = (got.to_kind(Kind::Double) - &expected).abs().max().double_value(&[]);
        println!("{name}: {difference:.2e}");
        assert!(difference <= tolerance, "{name}: off by {difference:.2e}");
    }

    fn targets(&self) -> Targets {
        let masks = &self.tensors["gt.masks"];
        let bitmap = |index: i64| {
            let pixels = masks.get(index).to_kind(Kind::Uint8).reshape([-1]);
            let pixels = Vec::try_from(&pixels).unwrap();
            InstanceMask::Bitmap(Bitmap { height: 256, width: 256, pixels })
        };
        Targets {
            boxes: Boxes(self.tensors["gt.boxes"].shallow_clone()),
            classes: self.tensors["gt.classes"].shallow_clone(),
            masks: (0..masks.size()[0]).map(bitmap).collect(),
        }
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
    tch::no_grad(|| {
        for (name, tensor) in tensors.iter().filter(|(_, tensor)| tensor.is_floating_point()) {
            let scale = match name.as_str() {
                "roi_heads.box_predictor.cls_score.weight" => 2.0,
                "roi_heads.box_predictor.bbox_pred.weight" => 0.5,
                "proposal_generator.rpn_head.anchor_deltas.weight" => 0.3,
                _ => 1.0,
            };
            // The product, too, is of float32.
            let value = rule::weight(name, &tensor.size()) * scale;
            tensor.shallow_clone().copy_(&value);
        }
    });
    (model, store, tensors)
}

#[test]
fn inference_is_detectron2s() {
    let golden = Golden::read();
    let (model, _store, _) = model(&config());
    let dump = model.dump(&[golden.image()], &Mode::eval()).unwrap();
    for (number, map) in (2..).zip(&dump.maps) {
        let map = if number < 4 { map.slice(1, 0, None, 8) } else { map.shallow_clone() };
        let name = format!("inference.fpn.p{number}");
        let largest = golden.double(&name).abs().max().double_value(&[]);
        golden.check(&name, &map, STORED_F32 * largest);
    }
    let proposals = &dump.proposals[0];
    golden.check("inference.proposals.boxes", proposals.boxes.tensor(), BOX);
    let largest = golden.double("inference.proposals.logits").abs().max().double_value(&[]);
    golden.check("inference.proposals.logits", &proposals.logits, STORED_F32 * largest);
    let detections = &dump.detections[0];
    golden.check("inference.detections.boxes", detections.boxes.tensor(), BOX);
    golden.check("inference.detections.scores", &detections.scores, SCORE);
    golden.check("inference.detections.classes", &detections.classes, 0.0);
    golden.check("inference.detections.masks28", detections.masks.as_ref().unwrap(), SCORE);
}

#[test]
fn losses_and_gradients_are_detectron2s() {
    let golden = Golden::read();
    let mut config = config();
    // Every anchor and every proposal is kept: nothing is left to chance.
    (config.rpn.batch, config.rpn.positive_fraction) = (20_000, 1.0);
    (config.roi.batch, config.roi.positive_fraction) = (10_000_000, 1.0);
    let (model, _store, tensors) = model(&config);
    let mode = Mode::train().with_drop_path(DropPathDraws::Off);
    let mut rngs = [Rng::new(0, &[])];
    let losses = model.losses(&[golden.image()], &[golden.targets()], &mode, &mut rngs).unwrap();
    for (name, loss) in losses.iter() {
        let name = format!("train.{name}");
        let expected = golden.double(&name).double_value(&[0]);

        golden.check(&name, &loss.view([1]), LOSS * expected);
    }
    assert_eq!(losses.iter().count(), 5);

    losses.total().backward();
    let expected = Vec::<f64>::try_from(&golden.tensors["train.grad_norm"]).unwrap();
    assert_eq!(expected.len(), golden.params.len());
    let trained = tensors.values().filter(|tensor| tensor.requires_grad()).count();
    assert_eq!(trained, golden.params.len());
    let mut worst: f64 = 0.0;
    for (name, expected) in golden.params.iter().zip(expected) {
        let got = tensors[name].grad().norm().double_value(&[]);
        let difference = (got - expected).abs() / expected;
        worst = worst.max(difference);
        assert!(difference <= GRADIENT, "{name}: {got:e} for {expected:e}: {difference:.2e}");
    }
    println!("gradients: {worst:.2e}");
}
