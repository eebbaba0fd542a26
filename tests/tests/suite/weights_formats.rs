//! Weight files and namings against the frameworks themselves: what torch,
//! numpy, timm and torchvision write is read, and what is written they read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use backbone::models::{BuildOptions, Family, MODELS};
use backbone::weights::{
    Candidate, Format, LoadOptions, Naming, StateDict, TimmConfig, WeightFile, export, inspect,
    load, read, write_pkl, write_pth, write_safetensors, write_timm_folder,
};
use spark_tests::run_python;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

mod odd;

/// The folder that `weights_foreign.py` fills; torch is imported once for all.
fn foreign() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            run_python("weights_foreign.py", &[folder.path()]);
            folder
        })
        .path()
}

fn file(name: &str) -> WeightFile {
    read(foreign().join(name)).unwrap_or_else(|error| panic!("{error}"))
}

fn assert_same(found: &StateDict, expected: &StateDict, what: &str) {
    let names = |tensors: &StateDict| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{what}");
    for (name, tensor) in expected {
        assert_eq!(found[name].kind(), tensor.kind(), "{what} {name}");
        assert_eq!(found[name].size(), tensor.size(), "{what} {name}");
        assert!(found[name].equal(tensor), "{what} {name}");
    }
}

fn with_prefix(prefix: &str, tensors: &StateDict) -> StateDict {
    tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t.shallow_clone())).collect()
}

#[test]
fn checkpoints_of_every_shape() {
    let expected = file("expected.safetensors").tensors;
    for (name, prefix, format) in [
        ("bare.pth", "", Format::TorchZip),
        ("model.pth", "", Format::TorchZip),
        ("state_dict.pth", "", Format::TorchZip),
        ("module.pth", "", Format::TorchZip),
        ("twice.pth", "", Format::TorchZip),
        ("protocol4.pth", "", Format::TorchZip),
        ("whole_model.pth", "", Format::TorchZip),
        ("ddp.pth", "module.", Format::TorchZip),
        ("lightning.ckpt", "model.backbone.", Format::TorchZip),
        ("legacy.pth", "", Format::TorchLegacy),
        ("protocol2.pkl", "", Format::Pickle),
        ("protocol3.pkl", "", Format::Pickle),
        ("protocol4.pkl", "", Format::Pickle),
        ("protocol5.pkl", "", Format::Pickle),
    ] {
        let file = file(name);
        assert_eq!(file.format, format, "{name}");
        assert_same(&file.tensors, &with_prefix(prefix, &expected), name);
    }
    let metadata = file("model.pth").metadata;
    for (key, value) in [("epoch", "3"), ("arch", "net"), ("wrapper", "model")] {
        assert_eq!(metadata.get(key).map(String::as_str), Some(value));
    }
    assert_eq!(file("protocol2.pkl").metadata["__author__"], "Model Zoo");
    assert_eq!(file("twice.pth").metadata["wrapper"], "state_dict.model");
}

#[test]
fn every_shape_loads_into_a_model() {
    let expected = file("expected.safetensors").tensors;
    for (name, prefix) in [
        ("module.pth", ""),
        ("ddp.pth", "module."),
        ("lightning.ckpt", "model.backbone."),
        ("ema.pth", "state_dict."),
        ("spark.pth", "sparse_encoder.sp_cnn."),
        ("protocol4.pkl", ""),
    ] {
        let target = zeros_like(&expected);
        let report = load(&target, Family::ResNet, &file(name), &LoadOptions::default()).unwrap();
        assert_eq!((report.prefix.as_str(), report.missing.len()), (prefix, 0), "{name}");
        assert_same(&target, &expected, name);
        assert_eq!(report.alternatives.len(), usize::from(name == "ema.pth"), "{name}");
    }
}

#[test]
fn inspection_tells_models_apart() {
    let candidates: Vec<Candidate> = MODELS
        .iter()
        .map(|model| {
            let shapes = canonical(model.family(), &model.name).into_iter().collect();
            (model.name.to_string(), model.family(), shapes)
        })
        .collect();
    for model in [
        "resnet50",
        "resnet101",
        "wide_resnet50_2",
        "convnext_tiny",
        "convnext_small",
        "regnety_032",
        "regnety_040",
    ] {
        let file = WeightFile::from_tensors("f.pth", zeros(&names("timm", model)));
        let found = inspect(&file, &candidates).model.unwrap();
        assert_eq!((found.name.as_str(), found.load.naming), (model, Naming::Timm));
        assert!(found.is_complete() && found.load.unused.is_empty(), "{found}");
    }
    assert!(inspect(&file("spark.pth"), &candidates).spark_decoder);
    assert!(!inspect(&file("bare.pth"), &candidates).spark_decoder);
}

/// Names and shapes of every model in memory are timm's, but for a classifier.
#[test]
fn models_in_memory_are_called_like_timms() {
    for model in MODELS {
        let store = VarStore::new(Device::Cpu);
        let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
        let _network = model.build(&store.root(), &options).unwrap();
        // What was there in memory may be no numbers, which are not exported.
        let variables: StateDict = zeros_like(&store.variables().into_iter().collect());
        let exported = export(model.family(), Naming::Timm, &variables).unwrap();
        let mut expected = names("timm", &model.name);
        expected.retain(|name, _| !name.starts_with("fc.") && !name.starts_with("head.fc."));
        assert_eq!(shapes_of(&exported), expected, "{}", model.name);
    }
}

fn zeros_like(tensors: &StateDict) -> StateDict {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.zeros_like())).collect()
}

#[test]
fn types_and_layouts() {
    let expected = file("expected.safetensors").tensors;
    for (name, kind) in [("bf16.pth", Kind::BFloat16), ("half.pth", Kind::Half)] {
        let narrow = |(name, tensor): (&String, &Tensor)| {
            let kind = if tensor.kind() == Kind::Int64 { Kind::Int64 } else { kind };
            (name.clone(), tensor.to_kind(kind))
        };
        assert_same(&file(name).tensors, &expected.iter().map(narrow).collect(), name);
    }
    assert_same(&file("views.pth").tensors, &file("views.safetensors").tensors, "views");
    for name in ["layouts2.pkl", "layouts5.pkl"] {
        assert_same(&file(name).tensors, &file("layouts.safetensors").tensors, name);
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    for (name, part) in [
        ("script.pt", "TorchScript"),
        ("only_optimizer.pth", "no weights"),
        ("objects.pkl", "\"w\""),
        ("names.json", "JSON"),
    ] {
        let message = read(foreign().join(name)).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(part), "{message}");
    }
}

type Shapes = BTreeMap<String, Vec<i64>>;

/// A model of each family.
const FAMILIES: [(&str, Family); 3] = [
    ("resnet50", Family::ResNet),
    ("convnext_tiny", Family::ConvNeXt),
    ("regnety_016", Family::RegNet),
];

fn names(library: &str, model: &str) -> Shapes {
    let text = std::fs::read_to_string(foreign().join("names.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(json[library][model].clone()).unwrap()
}

/// The canonical names and shapes of a model, from timm's.
fn canonical(family: Family, model: &str) -> Shapes {
    let translated = names("timm", model).into_iter().map(|(name, shape)| {
        let canonical = Naming::Timm.from(family, &name);
        (canonical.unwrap_or_else(|| panic!("{model}: timm's {name} is unknown")), shape)
    });
    translated.collect()
}

fn zeros(shapes: &Shapes) -> StateDict {
    let tensor = |(name, shape): (&String, &Vec<i64>)| {
        let kind = if shape.is_empty() { Kind::Int64 } else { Kind::Float };
        (name.clone(), Tensor::zeros(shape.as_slice(), (kind, Device::Cpu)))
    };
    shapes.iter().map(tensor).collect()
}

fn shapes_of(tensors: &StateDict) -> Shapes {
    tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect()
}

#[test]
fn names_and_shapes_are_those_of_the_libraries() {
    for model in MODELS {
        let (family, model) = (model.family(), model.name.as_ref());
        let there = canonical(family, model).into_iter().map(|(name, shape)| {
            (Naming::Timm.to(family, &name).unwrap_or_else(|| panic!("{model} {name}")), shape)
        });
        assert_eq!(there.collect::<Shapes>(), names("timm", model), "timm {model}");
    }
    for (model, family) in FAMILIES {
        let ours = zeros(&canonical(family, model));
        let exported = export(family, Naming::Torchvision, &ours).unwrap();
        assert_eq!(shapes_of(&exported), names("torchvision", model), "torchvision {model}");
    }
}

#[test]
fn every_name_goes_there_and_back_in_every_naming() {
    for model in MODELS {
        let (family, model) = (model.family(), model.name.as_ref());
        let names: Vec<String> = canonical(family, model).into_keys().collect();
        for naming in Naming::ALL.into_iter().filter(|naming| naming.has(family)) {
            let mut there: Vec<String> =
                names.iter().filter_map(|name| naming.to(family, name)).collect();
            let back: Vec<Option<String>> =
                there.iter().map(|name| naming.from(family, name)).collect();
            let expected: Vec<Option<String>> = names.iter().cloned().map(Some).collect();
            assert_eq!(back, expected, "{naming} {model}");
            there.sort();
            there.dedup();
            assert_eq!(there.len(), names.len(), "{naming} {model}");
        }
    }
}

#[test]
fn a_resnet50_has_detectron2s_318_keys() {
    let mut shapes = canonical(Family::ResNet, "resnet50");
    shapes.retain(|name, _| !name.starts_with("fc.") && !name.ends_with("num_batches_tracked"));
    let exported = export(Family::ResNet, Naming::Detectron2, &zeros(&shapes)).unwrap();
    assert_eq!(exported.len(), 318);
    assert!(exported.keys().all(|name| name.starts_with("stem.") || name.starts_with("res")));
}

#[test]
fn feature_extractors_load_too() {
    for (model, family) in FAMILIES {
        let mut shapes = canonical(family, model);
        let file = WeightFile::from_tensors("f.pth", zeros(&names("timm_features", model)));
        let report = load(&zeros(&shapes), family, &file, &LoadOptions::default()).unwrap();
        assert_eq!(report.naming, Naming::Timm, "{model}");
        assert_eq!(report.unused, [""; 0], "{model}");
        shapes
            .retain(|name, _| !backbone::weights::default_optional(name) || name.contains("num_b"));
        assert_eq!(report.matched.len(), shapes.len(), "{model}");
    }
}

/// What `weights_check.py` expects.
fn every_type() -> StateDict {
    let table = Tensor::from_slice(&[0f64, 1.0, 2.5, 3.0, 100.0, -1.0]).reshape([2, 3]);
    let mut tensors = StateDict::from([
        ("a_float64".into(), table),
        ("b_empty".into(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu))),
        ("c_scalar".into(), Tensor::from(1i64 << 40)),
    ]);
    let row = Tensor::from_slice(&[0f32, 1.0, 2.5]);
    let names = ["float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"];
    let floats = [Kind::Float, Kind::Half, Kind::BFloat16];
    let others = [Kind::Int64, Kind::Int, Kind::Uint8, Kind::Bool];
    for (name, kind) in names.into_iter().zip(floats.into_iter().chain(others)) {
        tensors.insert(format!("d_{name}"), row.to_kind(kind));
    }
    tensors
}

/// Random tensors of a published model under canonical names.
fn random(family: Family, model: &str) -> StateDict {
    let shapes = canonical(family, model);
    let tensor = |(name, shape): (String, Vec<i64>)| {
        let tensor = if shape.is_empty() {
            Tensor::from(17i64)
        } else {
            Tensor::rand(shape.as_slice(), (Kind::Float, Device::Cpu))
        };
        (name, tensor)
    };
    shapes.into_iter().map(tensor).collect()
}

/// Writes timm folders: without classifier, with one of ten classes, and with
/// four input channels.
fn write_timm_folders(folder: &Path) {
    let write = |name: &str, family, model: &str, in_chans: i64, tensors: &StateDict| {
        let config = TimmConfig {
            in_chans,
            mean: vec![0.25; in_chans as usize],
            std: vec![0.5; in_chans as usize],
            ..TimmConfig::imagenet(model)
        };
        let exported = export(family, Naming::Timm, tensors).unwrap();
        write_timm_folder(folder.join(name), &config, &exported).unwrap();
    };
    let mut resnet = random(Family::ResNet, "resnet18");
    resnet.insert("fc.weight".into(), Tensor::rand([10, 512], (Kind::Float, Device::Cpu)));
    resnet.insert("fc.bias".into(), Tensor::rand([10], (Kind::Float, Device::Cpu)));
    write("resnet18_classes", Family::ResNet, "resnet18", 3, &resnet);
    resnet.retain(|name, _| !name.starts_with("fc."));
    write("resnet18", Family::ResNet, "resnet18", 3, &resnet);
    let mut convnext = random(Family::ConvNeXt, "convnext_tiny");
    convnext.retain(|name, _| !name.starts_with("head."));
    write("convnext_tiny", Family::ConvNeXt, "convnext_tiny", 3, &convnext);
    let stem = Tensor::rand([96, 4, 4, 4], (Kind::Float, Device::Cpu));
    convnext.insert("downsample_layers.0.0.weight".into(), stem);
    write("convnext_tiny_four", Family::ConvNeXt, "convnext_tiny", 4, &convnext);
    let mut regnet = random(Family::RegNet, "regnety_016");
    regnet.retain(|name, _| !name.starts_with("head."));
    write("regnety_016", Family::RegNet, "regnety_016", 3, &regnet);
}

#[test]
fn the_frameworks_read_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    write_pth(path("ours.pth"), &every_type()).unwrap();
    write_pkl(path("ours.pkl"), &every_type()).unwrap();
    write_safetensors(path("ours.safetensors"), &every_type(), &BTreeMap::new()).unwrap();
    write_timm_folders(folder.path());
    for (model, family) in FAMILIES {
        let exported = export(family, Naming::Torchvision, &random(family, model)).unwrap();
        write_pth(path(&format!("torchvision_{model}.pth")), &exported).unwrap();
    }
    assert_eq!(run_python("weights_check.py", &[folder.path()]).trim(), "ok");
}
