//! The torchvision preset against torchvision itself, in float64: detections,
//! losses, gradients, and state dicts both ways.

use std::path::Path;

use backbone::weights::{StateDict, read, write_safetensors};
use backbone::{DropPathDraws, Mode};
use data::rng::Rng;
use detection::modeling::config::BackboneNorm;
use detection::modeling::weights::{ReadOptions, read_detector, state_dict, write_detector};
use detection::modeling::{MaskRcnn, ModelConfig};
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::distributed::ProcessGroup;
use spark_tests::fixture::assert_relative;
use spark_tests::{rule, run_python};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Pixels, in float64 through some sixty layers summed in another order (2e-12
/// was seen).
const BOX: f64 = 1e-9;
/// Probabilities, likewise (5e-14 was seen).
const SCORE: f64 = 1e-11;
/// Relative. torchvision's targets of the binary cross entropies are float32,
/// and so are these losses' sums (4e-8 was seen; the others 1e-13).
const LOSS: f64 = 2e-7;
/// Gradient norms relative to themselves, behind the same targets (2e-7 was
/// seen).
const GRADIENT: f64 = 1e-6;

/// Two images of different size, neither a multiple of the stride; the second
/// holds no objects.
fn inputs() -> StateDict {
    let image = |name: &str, height: i64, width: i64| {
        // Smooth, so that regions differ; by rule, so that every run is alike.
        let coarse = rule::weight(name, &[1, 3, height / 16, width / 16]);
        let image = coarse.upsample_bicubic2d([height, width], false, None, None).squeeze_dim(0);
        let (low, high) = (image.min(), image.max());
        (image - &low) / (high - low) * 255.0
    };
    let mut masks = Tensor::zeros([3, 122, 170], (Kind::Uint8, Device::Cpu));
    let boxes = [[10.0, 15.0, 70.0, 75.0], [50.0, 30.0, 165.0, 115.0], [5.5, 80.0, 40.0, 111.0]];
    for (index, [x1, y1, x2, y2]) in (0..).zip(boxes) {
        let area = masks.get(index).narrow(0, y1 as i64, (y2 - y1) as i64);
        let mut area = area.narrow(1, x1 as i64, (x2 - x1) as i64);
        let _ = area.fill_(1);
        let _ = area.narrow(0, 0, 10).narrow(1, 0, 12).fill_(0);
    }
    masks = masks.contiguous();
    let boxes = Tensor::from_slice(&boxes.concat()).view([3, 4]);
    [
        ("image0", image("image0.weight", 122, 170)),
        ("image1", image("image1.weight", 90, 150)),
        ("boxes0", boxes.to_kind(Kind::Float)),
        ("boxes1", Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
        ("classes0", Tensor::from_slice(&[3i64, 17, 61])),
        ("classes1", Tensor::zeros([0], (Kind::Int64, Device::Cpu))),
        ("masks0", masks),
        ("masks1", Tensor::zeros([0, 90, 150], (Kind::Uint8, Device::Cpu))),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

fn targets(inputs: &StateDict, image: usize) -> Targets {
    let masks = &inputs[&format!("masks{image}")];
    let (height, width) = (masks.size()[1] as usize, masks.size()[2] as usize);
    let bitmap = |index: i64| {
        let pixels = Vec::try_from(&masks.get(index).reshape([-1])).unwrap();
        InstanceMask::Bitmap(Bitmap { height, width, pixels })
    };
    Targets {
        boxes: Boxes(inputs[&format!("boxes{image}")].shallow_clone()),
        classes: inputs[&format!("classes{image}")].shallow_clone(),
        masks: (0..masks.size()[0]).map(bitmap).collect(),
    }
}

/// Weights by rule under torchvision's names, scaled so that many regions stay.
fn fill(tensors: StateDict) {
    let scales = [
        ("roi_heads.box_predictor.cls_score.weight", 2.0),
        ("roi_heads.box_predictor.bbox_pred.weight", 0.5),
        ("rpn.head.bbox_pred.weight", 0.3),
    ];
    rule::fill_scaled(tensors, &scales);
}

fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), expected.size(), "{what}");
    if expected.numel() > 0 {
        let difference = (got - expected).abs().max().double_value(&[]);
        println!("{what}: {difference:.2e}");
        assert!(difference <= tolerance, "{what}: off by {difference:.2e}");
    }
}

#[test]
fn detections_losses_and_state_dicts_are_torchvisions() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let inputs = inputs();
    let config = config(BackboneNorm::Frozen);
    let mut store = VarStore::new(Device::Cpu);
    let model = MaskRcnn::build(&store, &config).unwrap();
    fill(state_dict(&store, &config).unwrap());
    write_detector(path("ours.pth"), &store, &config).unwrap();
    write_safetensors(path("inputs.safetensors"), &inputs, &Default::default()).unwrap();
    run_python("detection_torchvision.py", &[folder.path()]);
    let outputs = read(path("outputs.safetensors")).unwrap().tensors;

    store.double();
    let images = ["image0", "image1"].map(|name| inputs[name].to_kind(Kind::Double));
    let found = model.infer(&images, &Mode::eval()).unwrap();
    for (image, found) in found.iter().enumerate() {
        let theirs = |key: &str| &outputs[&format!("{image}.{key}")];
        assert_eq!(found.boxes.len(), 100, "enough to compare");
        assert_close("boxes", found.boxes.tensor(), theirs("boxes"), BOX);
        assert_close("scores", &found.scores, theirs("scores"), SCORE);
        assert!((&found.classes + 1).equal(theirs("labels")), "classes of image {image}");
        assert_close("masks", found.masks.as_ref().unwrap(), theirs("masks"), SCORE);
    }

    for (norm, name) in [(BackboneNorm::Frozen, "frozen"), (BackboneNorm::Batch, "batch")] {
        let config = self::config(norm);
        compare_training(&config, name, &path("ours.pth"), &inputs, &outputs);
        compare_state_dicts(&config, &path(&format!("{name}.pth")));
    }
}

fn config(norm: BackboneNorm) -> ModelConfig {
    let mut config = ModelConfig { backbone_norm: norm, ..ModelConfig::mask_rcnn_torchvision() };
    // Everything is sampled: nothing is left to chance.
    (config.rpn.batch_size_per_image, config.rpn.positive_fraction) = (10_000_000, 1.0);
    (config.roi.batch_size_per_image, config.roi.positive_fraction) = (10_000_000, 1.0);
    config.rpn.post_nms_train = 200;
    config
}

/// Losses, and the gradient of everything that learns.
fn compare_training(
    config: &ModelConfig,
    variant: &str,
    weights: &Path,
    inputs: &StateDict,
    outputs: &StateDict,
) {
    let theirs = |name: &str| outputs[&format!("{variant}.{name}")].double_value(&[0]);
    let mut store = VarStore::new(Device::Cpu);
    let model = MaskRcnn::build(&store, config).unwrap();
    read_detector(weights, &store, config, &ReadOptions::default()).unwrap();
    store.double();
    let mode = Mode::train().with_drop_path(DropPathDraws::Off);
    let mut rngs = [Rng::new(0, &[]), Rng::new(1, &[])];
    let images = ["image0", "image1"].map(|name| inputs[name].to_kind(Kind::Double));
    let targets = [targets(inputs, 0), targets(inputs, 1)];
    let losses = model.losses(&images, &targets, &mode, &mut rngs, &ProcessGroup::alone()).unwrap();
    let names = [
        ("loss_rpn_cls", "loss_objectness"),
        ("loss_rpn_loc", "loss_rpn_box_reg"),
        ("loss_cls", "loss_classifier"),
        ("loss_box_reg", "loss_box_reg"),
        ("loss_mask", "loss_mask"),
    ];
    for (ours, name) in names {
        let got = losses.get(ours).unwrap().double_value(&[]);
        assert_relative(&format!("{variant} {ours}"), got, theirs(name), LOSS);
    }
    losses.total().backward();
    let tensors = state_dict(&store, config).unwrap();
    let learning = || tensors.iter().filter(|(_, tensor)| tensor.requires_grad());
    for (name, tensor) in learning() {
        let got = tensor.grad().norm().double_value(&[]);
        assert_relative(name, got, theirs(&format!("grad.{name}")), GRADIENT);
    }
    let start = format!("{variant}.grad.");
    let count = outputs.keys().filter(|name| name.starts_with(&start)).count();
    assert_eq!(learning().count(), count, "what learns here learns there");
}

/// torchvision's own state dict, from its file and as plain tensors.
fn compare_state_dicts(config: &ModelConfig, file: &Path) {
    let store = VarStore::new(Device::Cpu);
    MaskRcnn::build(&store, config).unwrap();
    let report = read_detector(file, &store, config, &ReadOptions::default());
    let report = report.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.missing, report.unused), (vec![], vec![]));
    let theirs = read(file.with_extension("safetensors")).unwrap().tensors;
    let ours = state_dict(&store, config).unwrap();
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    assert!(theirs.iter().all(|(name, tensor)| ours[name].equal(tensor)));
}
