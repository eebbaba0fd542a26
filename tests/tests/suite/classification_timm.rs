//! Fine-tuning against timm, live: training steps in float64, the logits of
//! photographs both ways, and the probes against other implementations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backbone::Mode;
use backbone::models;
use backbone::weights::{self, Naming, StateDict};
use classification::classifier::{Classifier, ClassifierOptions};
use classification::data::ImageSettings;
use classification::saved::{LoadSpec, LoadedModel};
use classification::train::{CropMode, TrainConfig, optimizer};
use data::rng::Rng;
use data::{Interpolation, MixParams, Transform, decode};
use engine::export::ExportFormat;
use engine::optim::OptimizerKind;
use engine::precision::Precision;
use engine::probe::{FeatureBank, Knn, LinearProbe};
use engine::settings::{OptimSettings, TrainSettings as _};
use serde_json::{Value, json};
use spark_tests::difference::Difference;
use spark_tests::{python, rule, run_python};
use tch::{Device, Kind, Tensor};

/// Float64 through a network, its gradients and two optimizer steps, summed in
/// another order, as a share of a tensor's largest value.
const STEP: f64 = 1e-9;
/// Float32 through a network on the same pixels, as a share of the largest logit:
/// 1e-3 is asked for.
const SAME_PIXELS: f64 = 2e-5;
/// What the rounding of decoders and resizes (`Difference::is_rounding_of_a_resize`)
/// makes of the logits of untrained networks, as a share of the largest: 7.4e-3 was
/// seen.
const FROM_FILES: f64 = 1e-2;
/// Classes of the training steps' heads.
const CLASSES: i64 = 7;
/// Side of their images in pixels.
const SIDE: i64 = 64;

/// A model, what it is trained with, and the blocks of its second and third stage
/// that share a layer, with their numbers.
struct Case {
    model: &'static str,
    optimizer: OptimizerKind,
    chunks: [usize; 4],
}

const CASES: [Case; 2] = [
    Case { model: "resnet34", optimizer: OptimizerKind::Lamb, chunks: [2, 3, 4, 6] },
    Case { model: "convnext_tiny", optimizer: OptimizerKind::Adamw, chunks: [1000, 3, 3, 9] },
];

/// Weight, and the box's centre for CutMix, of each step.
const MIXES: [(f64, Option<(usize, usize)>); 2] = [(0.3, None), (0.45, Some((50, 13)))];

impl Case {
    fn config(&self) -> TrainConfig {
        let mut config = TrainConfig {
            data: "d".into(),
            model: self.model.into(),
            layer_decay: 0.7,
            ..TrainConfig::default()
        };
        config.run.output = "o".into();
        config.optim = OptimSettings {
            optimizer: self.optimizer,
            weight_decay: 0.05,
            base_lr: 3e-3,
            batch_size: 256,
            ema: 0.9,
            ..config.optim
        };
        config.resolve().unwrap()
    }

    fn json(&self) -> Value {
        let config = self.config();
        let mixes = MIXES.map(|(lam, centre)| json!({ "lam": lam, "centre": centre }));
        json!({
            "name": self.model,
            "model": self.model,
            "classes": CLASSES,
            "optimizer": self.optimizer,
            "chunks": self.chunks,
            "lr": config.peak_lr(),
            "layer_decay": config.layer_decay,
            "weight_decay": config.optim.weight_decay,
            "ema": config.optim.ema,
            "mixes": mixes,
        })
    }

    /// The classifier in float64, its weights by rule.
    fn classifier(&self) -> Classifier {
        let mut classifier = classifier(self.model, CLASSES);
        classifier.double();
        classifier
    }
}

fn classifier(model: &str, classes: i64) -> Classifier {
    let options = ClassifierOptions { uninitialised: true, ..ClassifierOptions::new(classes) };
    let classifier =
        Classifier::build(&models::find(model).unwrap(), &options, Device::Cpu).unwrap();
    rule::fill(classifier.variables());
    classifier
}

fn timms(model: &str, tensors: &StateDict) -> StateDict {
    weights::export(models::find(model).unwrap().family(), Naming::Timm, tensors).unwrap()
}

fn write(path: PathBuf, tensors: &StateDict) {
    weights::write_safetensors(path, tensors, &Default::default()).unwrap();
}

/// Largest difference as a share of the largest expected value.
fn difference(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!((got.size(), got.kind()), (expected.size(), expected.kind()));
    let scale = expected.abs().max().double_value(&[]).max(1e-3);
    (got - expected).abs().max().double_value(&[]) / scale
}

fn compare_steps(case: &Case, batch: &StateDict, python: &StateDict) {
    let (config, classifier) = (case.config(), case.classifier());
    let mut optimizer = optimizer(&config, &classifier).unwrap();
    let mut ema = config.optim.build_ema(&classifier.variables()).unwrap().unwrap();
    let labels = Vec::<i64>::try_from(&batch["labels"]).unwrap();
    let side = SIDE as usize;
    for (number, (lam, centre)) in MIXES.into_iter().enumerate() {
        let mix = match centre {
            None => MixParams::mixup(lam),
            Some(centre) => MixParams::cutmix(lam, centre, (side, side)),
        };
        let smoothing = config.label_smoothing;
        let (images, targets) =
            mix.apply(&batch["images"], &labels, CLASSES as usize, smoothing).unwrap();
        let logits = classifier.forward(&images, &Mode::train()).unwrap();
        let loss = config.loss().of(&logits, &targets);
        optimizer.zero_grad();
        loss.backward();
        optimizer.step(config.peak_lr(), config.optim.weight_decay);
        ema.update(&classifier.variables(), number as u64 + 1);
        let expected = &python[&format!("{}/loss.{number}", case.model)];
        let off = difference(&loss.detach(), expected);
        assert!(off < STEP, "{} loss {number}: off by {off:e}", case.model);
    }
    for (kind, ours) in [("model", classifier.variables()), ("ema", shared(ema.averages()))] {
        for (name, ours) in timms(case.model, &ours) {
            let key = format!("{}/{kind}.{name}", case.model);
            let expected = &python[&key];
            if ours.is_floating_point() {
                let off = difference(&ours.detach(), expected);
                assert!(off < STEP, "{key}: off by {off:e}");
            } else {
                assert!(ours.equal(expected), "{key}: {ours:?} is not {expected:?}");
            }
        }
    }
}

fn shared(tensors: &BTreeMap<String, Tensor>) -> StateDict {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect()
}

/// Names of the exported models' classes.
fn names(classes: i64) -> Vec<String> {
    (0..classes).map(|class| format!("class, \"{class}\"")).collect()
}

/// Exports a classifier as the program does.
fn export(folder: &Path, model: &str, classes: i64) -> LoadedModel {
    let images = ImageSettings {
        size: if model == "resnet18" { 96 } else { 128 },
        crop: if model == "resnet18" { 0.875 } else { 1.0 },
        crop_mode: if model == "resnet18" { CropMode::Center } else { CropMode::Squash },
        interpolation: Interpolation::Bicubic,
        mean: [0.5, 0.4, 0.3],
        std: [0.2, 0.25, 0.3],
    };
    let loaded = LoadedModel {
        classifier: classifier(model, classes),
        images,
        classes: Some(names(classes)),
        trained_on: None,
        precision: Precision::Float32,
        config: None,
        accuracy: None,
    };
    let (registered, tensors) = (loaded.classifier.model(), loaded.classifier.variables());
    // As smooth as trained networks are: rounded pixels are not to be blown up.
    tch::no_grad(|| {
        for (_, gamma) in tensors.iter().filter(|(name, _)| name.ends_with("gamma")) {
            let _ = gamma.shallow_clone().g_mul_scalar_(0.05);
        }
    });
    let config = loaded.timm_config();
    let path = folder.join("exported").join(model);
    std::fs::create_dir_all(&path).unwrap();
    ExportFormat::Timm.write(&path, registered, &tensors, Some(config)).unwrap();
    loaded
}

/// A photograph as the classifier is fed it.
fn transformed(photo: &Path, images: &ImageSettings) -> Tensor {
    let image = decode(photo, &std::fs::read(photo).unwrap(), 3).unwrap();
    let mut pixels = vec![0f32; 3 * images.size * images.size];
    images.transform().unwrap().apply(&image, &mut Rng::new(0, &[]), &mut pixels).unwrap();
    let side = images.size as i64;
    Tensor::from_slice(&pixels).view([3, side, side])
}

fn logits(loaded: &LoadedModel, image: &Tensor) -> Tensor {
    let batch = image.unsqueeze(0);
    tch::no_grad(|| loaded.classifier.forward(&batch, &Mode::eval())).unwrap().squeeze_dim(0)
}

/// The photographs' logits here and there: of the very same pixels, and from file
/// to logits.
fn compare_logits(loaded: &LoadedModel, folder: &Path, name: &str, python: &StateDict) {
    let mut compared = 0;
    for photo in std::fs::read_dir(folder.join("photos")).unwrap() {
        let photo = photo.unwrap().path();
        let key = format!("{name}/{}", photo.file_name().unwrap().to_str().unwrap());
        let expected = &python[&key];
        let (ours, theirs) =
            (transformed(&photo, &loaded.images), &python[&format!("{key}/image")]);
        let off = difference(&logits(loaded, theirs), expected);
        assert!(off < SAME_PIXELS, "{key}: same pixels, logits off by {off:e}");

        let deviation = Tensor::from_slice(&loaded.images.std).view([3, 1, 1]);
        let levels = |image: &Tensor| {
            let levels = (image * &deviation * 255.0).to_kind(Kind::Double).contiguous().view([-1]);
            Vec::<f64>::try_from(levels).unwrap()
        };
        let pixels = Difference::of(&levels(&ours), &levels(theirs));
        assert!(pixels.is_rounding_of_a_resize(loaded.images.interpolation), "{key}: {pixels:?}");
        let logits = logits(loaded, &ours);
        let off = difference(&logits, expected);
        println!("{key}: pixels {pixels:?}, logits off by {off:.1e}");
        assert_eq!(logits.argmax(0, false), expected.argmax(0, false), "{key}: top-1");
        assert!(off < FROM_FILES, "{key}: logits off by {off:e}");
        compared += 1;
    }
    assert_eq!(compared, PHOTOS.len());
}

/// Photographs that Python packages carry.
const PHOTOS: [&str; 4] = [
    "skimage/data/chelsea.png",
    "skimage/data/coffee.png",
    "sklearn/datasets/images/china.jpg",
    "sklearn/datasets/images/flower.jpg",
];

/// The folder that Python's packages lie in.
fn packages() -> PathBuf {
    let program = "import timm, pathlib; print(pathlib.Path(timm.__file__).parent.parent)";
    let output = std::process::Command::new(python()).args(["-c", program]).output().unwrap();
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

fn labelled(rows: &Tensor, classes: &Tensor) -> FeatureBank {
    let classes = Vec::<i64>::try_from(classes).unwrap();
    FeatureBank::new(rows.shallow_clone(), &classes, 5).unwrap()
}

/// Five overlapping clouds.
fn probe_data() -> StateDict {
    tch::manual_seed(11);
    let double = (Kind::Double, Device::Cpu);
    let centres = Tensor::randn([5, 24], double);
    let draw = |count: i64| {
        let classes = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(5);
        let rows = centres.index_select(0, &classes) + Tensor::randn([count, 24], double) * 2.0;
        (rows, classes)
    };
    let ((bank, classes), (queries, _)) = (draw(400), draw(150));
    [("bank", bank), ("classes", classes), ("queries", queries)]
        .map(|(name, tensor)| (name.to_owned(), tensor))
        .into()
}

fn compare_probes(data: &StateDict, python: &Value) {
    let bank = labelled(&data["bank"], &data["classes"]);
    let found = Knn::default().predict(&bank, &data["queries"]).unwrap();
    let found = Vec::<i64>::try_from(found).unwrap();
    assert_eq!(json!(found), python["knn"]);
    let probe = LinearProbe { l2: Some(1e-3), iterations: 2000 };
    let loss = probe.fit(&bank).unwrap().loss;
    let expected = python["loss"].as_f64().unwrap();
    // Both stop within their gradients' tolerance of the one minimum.
    assert!((loss / expected - 1.0).abs() < 1e-9, "{loss} is not {expected}");
}

#[test]
fn steps_logits_and_probes_are_those_of_timm() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    tch::manual_seed(5);
    let labels = Tensor::from_slice(&[3i64, 0, 6, 6, 1, 2]);
    let images = Tensor::randn([6, 3, SIDE, SIDE], (Kind::Double, Device::Cpu));
    let batch: StateDict = [("images".into(), images), ("labels".into(), labels)].into();
    write(path("batch.safetensors"), &batch);
    let cases: Vec<Value> = CASES.iter().map(Case::json).collect();
    std::fs::write(path("cases.json"), json!(cases).to_string()).unwrap();
    for case in &CASES {
        let tensors = timms(case.model, &case.classifier().variables());
        write(path(&format!("{}.safetensors", case.model)), &tensors);
    }
    std::fs::create_dir(path("photos")).unwrap();
    let packages = packages();
    for photo in PHOTOS {
        let name = Path::new(photo).file_name().unwrap();
        std::fs::copy(packages.join(photo), path("photos").join(name)).unwrap();
    }
    let own = [export(folder.path(), "resnet18", 11), export(folder.path(), "convnext_tiny", 5)];
    let data = probe_data();
    write(path("probe.safetensors"), &data);

    run_python("classification_reference.py", &[folder.path()]);

    let read = |name: &str| weights::read(path(name)).unwrap().tensors;
    let told = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
    };
    let steps = read("steps.safetensors");
    CASES.iter().for_each(|case| compare_steps(case, &batch, &steps));

    let (photos, exported) = (read("photos.safetensors"), told("exported.json"));
    for loaded in &own {
        let name = loaded.classifier.model().name.as_ref();
        compare_logits(loaded, folder.path(), name, &photos);
        let side = loaded.images.size;
        let crop_mode = match loaded.images.crop_mode {
            CropMode::Squash => "squash",
            CropMode::Center => "center",
        };
        let expected = json!({
            "classes": loaded.classifier.num_classes(),
            "label_names": names(loaded.classifier.num_classes()),
            "input_size": [3, side, side],
            "crop_pct": loaded.images.crop,
            "crop_mode": crop_mode,
            "interpolation": "bicubic",
        });
        assert_eq!(exported[name], expected);
    }

    let foreign = read("foreign.safetensors");
    for name in ["resnet18", "convnext_tiny"] {
        let folder_of = path("foreign").join(name);
        let loaded = LoadSpec::new(&folder_of, Device::Cpu, Kind::Float).load().unwrap();
        assert_eq!(loaded.classifier.model().name, name);
        assert_eq!(loaded.classes.as_ref().unwrap()[999], "thing 999");
        let bilinear = loaded.images.interpolation == Interpolation::Bilinear;
        assert_eq!(bilinear, name == "resnet18");
        compare_logits(&loaded, folder.path(), name, &foreign);
    }
    compare_probes(&data, &told("knn.json"));
}
