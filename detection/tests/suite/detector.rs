//! The detector as a whole on small networks: every preset runs and learns, bad
//! input is named, weights go to disk and come back.

use std::path::Path;

use backbone::weights::{self as backbone_weights, LoadOptions, Naming, StateDict};
use backbone::{FeatureMap, Mode};
use data::rng::Rng;
use detection::modeling::config::{BackboneNorm, HeadNorm};
use detection::modeling::weights::{
    ReadOptions, read_backbone, read_detector, state_dict, write_detector,
};
use detection::modeling::{Losses, MaskRcnn, ModelConfig};
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::distributed::ProcessGroup;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

fn resnet18(preset: &str) -> ModelConfig {
    let config = ModelConfig::preset(preset).unwrap().small();
    let backbone = if config.output_norm { "convnext_tiny" } else { "resnet18" };
    ModelConfig { backbone: backbone.to_owned(), drop_path: 0.0, ..config.with_classes(3) }
}

fn build(config: &ModelConfig) -> (MaskRcnn, VarStore) {
    tch::manual_seed(0);
    let store = VarStore::new(Device::Cpu);
    (MaskRcnn::build(&store, config).unwrap(), store)
}

/// The detector with other random weights, which is only read into.
fn other(config: &ModelConfig) -> VarStore {
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    MaskRcnn::build(&store, config).unwrap();
    store
}

/// A new detector's weights, written to `path`.
fn written(path: &Path, config: &ModelConfig) -> VarStore {
    let (_, store) = build(config);
    write_detector(path, &store, config).unwrap();
    store
}

fn image(height: i64, width: i64) -> Tensor {
    tch::manual_seed(height * width);
    (Tensor::rand([3, height, width], (Kind::Float, Device::Cpu)) * 255.0).to_kind(Kind::Uint8)
}

/// A polygon and a bitmap in an image of 64×96.
fn two_objects() -> Targets {
    let triangle = InstanceMask::Polygons(vec![vec![8.0, 8.0, 40.0, 8.0, 8.0, 40.0]]);
    let mut bitmap = Bitmap::empty(64, 96);
    for row in bitmap.pixels.chunks_mut(96).skip(20).take(30) {
        row[50..80].fill(1);
    }
    Targets {
        boxes: Boxes(Tensor::from_slice(&[8f32, 8., 40., 40., 50., 20., 80., 50.]).view([2, 4])),
        classes: Tensor::from_slice(&[0i64, 2]),
        masks: vec![triangle, InstanceMask::Bitmap(bitmap)],
    }
}

fn nothing() -> Targets {
    Targets {
        boxes: Boxes(Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
        classes: Tensor::zeros([0], (Kind::Int64, Device::Cpu)),
        masks: vec![],
    }
}

fn losses(model: &MaskRcnn, targets: &[Targets], seed: u64) -> Losses {
    let images = [image(64, 96), image(75, 70)];
    let mut rngs: Vec<Rng> = (0..2).map(|image| Rng::new(seed, &[image])).collect();
    let count = targets.len();
    model
        .losses(
            &images[..count],
            targets,
            &Mode::train(),
            &mut rngs[..count],
            &ProcessGroup::alone(),
        )
        .unwrap()
}

#[test]
fn every_preset_detects_and_learns() {
    for preset in ModelConfig::PRESETS {
        let config = resnet18(preset);
        let (model, store) = build(&config);
        let found = model.infer(&[image(64, 96), image(75, 70)], &Mode::eval()).unwrap();
        assert_eq!(found.len(), 2, "{preset}");
        for (found, (height, width)) in found.iter().zip([(64.0, 96.0), (75.0, 70.0)]) {
            let count = found.boxes.len();
            assert_eq!(found.masks.as_ref().unwrap().size(), [count, 1, 28, 28]);
            let rows = Vec::<f32>::try_from(found.boxes.tensor().reshape([-1])).unwrap();
            let inside = |row: &[f32]| {
                row.iter().all(|side| *side >= 0.0) && row[2] <= width && row[3] <= height
            };
            assert!(rows.chunks(4).all(inside), "{preset}");
        }
        let losses = losses(&model, &[two_objects(), nothing()], 0);
        assert_eq!(losses.iter().count(), 5);
        assert!(losses.iter().all(|(_, loss)| loss.double_value(&[]) > 0.0), "{losses:?}");
        losses.total().backward();
        for (name, variable) in store.variables() {
            let unused = name.starts_with("backbone.bottom_up.norm.");
            if variable.requires_grad() && !unused {
                let gradient = variable.grad();
                assert!(gradient.defined(), "{preset}: {name} has no gradient");
                assert!(gradient.isfinite().all().double_value(&[]) == 1.0, "{preset}: {name}");
            }
        }
    }
}

#[test]
fn bfloat16_computes_the_network_and_nothing_else() {
    let (model, store) = build(&resnet18("mask_rcnn_resnet50"));
    let half = |mode: Mode| mode.with_compute(Kind::BFloat16);
    let images = [image(64, 96)];
    let losses = [Mode::train(), half(Mode::train())].map(|mode| {
        model
            .losses(
                &images,
                &[two_objects()],
                &mode,
                &mut [Rng::new(0, &[])],
                &ProcessGroup::alone(),
            )
            .unwrap()
    });
    let [exact, rounded] = [0, 1].map(|at: usize| losses[at].total().double_value(&[]));
    // Eight bits of significand through some thirty layers.
    assert!((exact - rounded).abs() < 0.1 * exact && exact != rounded, "{exact}, {rounded}");
    assert!(losses[1].iter().all(|(_, loss)| loss.kind() == Kind::Float));
    losses[1].total().backward();
    let gradient = store.variables()["backbone.bottom_up.conv1.weight"].grad();
    assert_eq!(gradient.kind(), Kind::Float);
    let found = model.infer(&images, &half(Mode::eval())).unwrap();
    assert_eq!(found[0].boxes.tensor().kind(), Kind::Float);
}

#[test]
fn a_batch_without_objects_gives_zero_gradients_to_the_mask_branch() {
    let (model, store) = build(&resnet18("mask_rcnn_resnet50"));
    let losses = losses(&model, &[nothing(), nothing()], 0);
    assert_eq!(losses.get("loss_mask").unwrap().double_value(&[]), 0.0);
    assert_eq!(losses.get("loss_box_reg").unwrap().double_value(&[]), 0.0);
    losses.total().backward();
    let gradient = store.variables()["roi_heads.mask_head.predictor.weight"].grad();
    assert!(gradient.defined() && gradient.abs().max().double_value(&[]) == 0.0);
    let norm = store.variables()["roi_heads.mask_head.mask_fcn1.norm.bias"].shallow_clone();
    assert!(norm.isfinite().all().double_value(&[]) == 1.0);
}

#[test]
fn what_is_sampled_depends_on_the_generators_alone() {
    let mut config = resnet18("mask_rcnn_resnet50");
    config.rpn.batch_size_per_image = 32;
    config.roi.batch_size_per_image = 16;
    let (model, _store) = build(&config);
    let total = |seed| losses(&model, &[two_objects()], seed).total().double_value(&[]);
    assert_eq!(total(1), total(1));
    assert_ne!(total(1), total(2));
}

#[test]
fn frozen_norms_neither_learn_nor_follow_the_batch() {
    let config = resnet18("mask_rcnn_torchvision");
    assert_eq!(config.backbone_norm, BackboneNorm::Frozen);
    let (model, store) = build(&config);
    let variables = store.variables();
    let mean = variables["backbone.bottom_up.bn1.running_mean"].copy();
    assert!(!variables["backbone.bottom_up.layer2.0.downsample.1.weight"].requires_grad());
    assert!(variables["backbone.bottom_up.layer2.0.downsample.0.weight"].requires_grad());
    losses(&model, &[two_objects()], 0).total().backward();
    assert!(variables["backbone.bottom_up.bn1.running_mean"].equal(&mean));
}

#[test]
fn layer_scales_start_where_the_recipe_says() {
    let (_model, store) = build(&resnet18("mask_rcnn_convnext_base"));
    let gamma = &store.variables()["backbone.bottom_up.stages.0.0.gamma"];
    assert!(gamma.eq(1.0).all().double_value(&[]) == 1.0);
    assert!(store.variables().contains_key("backbone.bottom_up.norm3.weight"));
}

#[test]
fn bad_input_is_named() {
    let (model, _store) = build(&resnet18("mask_rcnn_resnet50"));
    let error = model.infer(&[], &Mode::eval()).unwrap_err().to_string();
    assert!(error.starts_with("images is empty"), "{error}");
    let grey = Tensor::zeros([1, 64, 64], (Kind::Float, Device::Cpu));
    let error = model.infer(&[grey], &Mode::eval()).unwrap_err().to_string();
    assert_eq!(error, "image 0 is [1, 64, 64], but it must be [3, H, W]");

    let refused = |change: fn(&mut Targets)| {
        let mut targets = two_objects();
        change(&mut targets);
        let mut rngs = [Rng::new(0, &[])];
        let result = model.losses(
            &[image(64, 96)],
            &[targets],
            &Mode::train(),
            &mut rngs,
            &ProcessGroup::alone(),
        );
        result.unwrap_err().to_string()
    };
    let error = refused(|targets| targets.classes = Tensor::from_slice(&[0i64, 3]));
    assert_eq!(error, "a class of image 0 is 3, but the model has classes 0 to 2");
    let error = refused(|targets| {
        let _ = targets.masks.pop();
    });
    assert!(error.contains("2 boxes, 2 classes, 1 mask"), "{error}");
    let error = refused(|targets| targets.masks[1] = InstanceMask::Bitmap(Bitmap::empty(5, 7)));
    assert!(error.contains("5×7") && error.contains("64×96"), "{error}");

    let mut config = resnet18("mask_rcnn_resnet50");
    config.anchors.sizes.pop();
    let store = VarStore::new(Device::Cpu);
    let error = MaskRcnn::build(&store, &config).unwrap_err().to_string();
    assert!(error.contains("anchors.sizes") && error.contains("5 levels"), "{error}");
}

fn same(ours: &StateDict, theirs: &StateDict) -> bool {
    ours.len() == theirs.len() && ours.iter().all(|(name, tensor)| theirs[name].equal(tensor))
}

#[test]
fn detectors_go_to_disk_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    for preset in ModelConfig::PRESETS {
        let config = resnet18(preset);
        let (_model, store) = build(&config);
        let ours = state_dict(&store, &config).unwrap();
        for file in ["model.pth", "model.safetensors", "model.pkl"] {
            let path = folder.path().join(file);
            write_detector(&path, &store, &config).unwrap();
            let other = other(&config);
            let theirs = state_dict(&other, &config).unwrap();
            assert!(!same(&ours, &theirs));
            let report = read_detector(&path, &other, &config, &ReadOptions::default()).unwrap();
            assert!(report.missing.is_empty() && report.unused.is_empty(), "{report}");
            let frozen_names = config.backbone_norm == BackboneNorm::Frozen;
            let expected = if frozen_names { Naming::Torchvision } else { Naming::Detectron2 };
            assert_eq!(report.naming, expected);
            assert!(same(&ours, &theirs), "{preset} {file}");
        }
    }
    let (_model, store) = build(&resnet18("mask_rcnn_resnet50"));
    let path = folder.path().join("model.onnx");
    let error = write_detector(path, &store, &resnet18("mask_rcnn_resnet50")).unwrap_err();
    assert!(error.to_string().contains(".safetensors"), "{error}");
}

#[test]
fn other_classes_are_refused_unless_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let config = resnet18("mask_rcnn_resnet50");
    let store = written(&path, &config);
    let seven = config.with_classes(7);
    let fresh = other(&seven);
    let before = fresh.variables()["roi_heads.box_predictor.cls_score.weight"].copy();
    let error = read_detector(&path, &fresh, &seven, &ReadOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("3 classes") && error.contains("the model has 7"), "{error}");
    assert!(error.contains("--reset-head"), "{error}");

    let options = ReadOptions { without_predictors: true, ..ReadOptions::default() };
    read_detector(&path, &fresh, &seven, &options).unwrap();
    let (fresh, store) = (fresh.variables(), store.variables());
    assert!(fresh["roi_heads.box_predictor.cls_score.weight"].equal(&before));
    for name in ["roi_heads.box_head.fc1.weight", "backbone.bottom_up.layer4.1.conv2.weight"] {
        assert!(fresh[name].equal(&store[name]), "{name}");
    }
}

#[test]
fn a_file_that_is_no_detector_of_this_kind_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pth");
    written(&path, &resnet18("mask_rcnn_torchvision"));
    let ours = resnet18("mask_rcnn_resnet50");
    let (_model, store) = build(&ours);
    let error = read_detector(&path, &store, &ours, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("a detector of torchvision"), "{error}");

    // A head without its norms is incomplete.
    let plain = ModelConfig { fpn_norm: HeadNorm::None, ..ours.clone() };
    written(&path, &plain);
    let error = read_detector(&path, &store, &ours, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("backbone.fpn_lateral2.norm.weight"), "{error}");
    let loose = ReadOptions { strict: false, ..ReadOptions::default() };
    let report = read_detector(&path, &store, &ours, &loose).unwrap();
    assert!(report.unused.contains(&"backbone.fpn_lateral2.bias".to_owned()), "{report}");
}

#[test]
fn a_backbones_weights_fill_the_bottom_up() {
    let folder = tempfile::tempdir().unwrap();
    tch::manual_seed(3);
    let pretrained = VarStore::new(Device::Cpu);
    let options = backbone::models::BuildOptions::default();
    let model = backbone::models::find("resnet18").unwrap();
    let network = model.build(&pretrained.root(), &options).unwrap();
    let tensors: StateDict = pretrained.variables().into_iter().collect();
    let path = folder.path().join("resnet18.pkl");
    backbone_weights::save(&path, model.family(), Naming::Detectron2, &tensors).unwrap();

    let config = resnet18("mask_rcnn_resnet50");
    let (detector, store) = build(&config);
    let report = read_backbone(&path, &store, &config, &LoadOptions::default()).unwrap();
    assert_eq!((report.naming, report.missing.len()), (Naming::Detectron2, 0));
    let x = FeatureMap::Grid(Tensor::rand([1, 3, 64, 64], (Kind::Float, Device::Cpu)));
    let run =
        |network: &dyn backbone::Backbone| network.forward(&x, &Mode::eval()).unwrap()[3].to_grid();
    assert!(run(detector.bottom_up()).equal(&run(network.as_ref())));
    // A detector read as one says what it lacks.
    let error = read_detector(&path, &store, &config, &ReadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("read it as the backbone's weights"), "{error}");
}
