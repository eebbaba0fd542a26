//! Round trips through every format, damage, and loading as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};

use super::*;
use crate::models::Family;

mod converted;
pub(crate) mod damage;
mod shards;

/// One tensor of each type, an empty one, a scalar, and one with odd strides.
fn every_type() -> StateDict {
    let numbers = Tensor::from_slice(&[0f64, 1.0, 2.5, 3.0, 100.0, 0.0]).reshape([2, 3]);
    let mut tensors: StateDict = dtype::KINDS
        .into_iter()
        .map(|kind| (format!("a.{}", dtype::kind_name(kind)), numbers.to_kind(kind)))
        .collect();
    tensors.insert("empty".into(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu)));
    tensors.insert("scalar".into(), Tensor::from(7i64));
    tensors.insert("strided".into(), numbers.to_kind(Kind::Float).transpose(0, 1));
    tensors.insert("ünïcode".into(), numbers.shallow_clone());
    tensors
}

fn assert_same(found: &StateDict, expected: &StateDict) {
    let names = |tensors: &StateDict| tensors.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected));
    for (name, tensor) in expected {
        assert_eq!(found[name].kind(), tensor.kind(), "{name}");
        assert_eq!(found[name].size(), tensor.size(), "{name}");
        assert!(found[name].equal(tensor), "{name}: {} and {tensor}", found[name]);
    }
}

type Write = fn(&Path, &StateDict) -> Result<()>;

/// Every writer of a single file, and what reading it back should find.
const WRITERS: [(&str, Write, Format); 3] = [
    ("w.safetensors", |p, t| write_safetensors(p, t, &BTreeMap::new()), Format::Safetensors),
    ("w.pth", |p, t| write_pth(p, t), Format::TorchZip),
    ("w.pkl", |p, t| write_pkl(p, t), Format::Pickle),
];

/// The file of every writer: its name, where it lies, and its bytes.
fn written(folder: &Path) -> impl Iterator<Item = (&'static str, PathBuf, Vec<u8>)> {
    WRITERS.into_iter().map(move |(name, write, _)| {
        let path = folder.join(name);
        write(&path, &every_type()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        (name, path, whole)
    })
}

#[test]
fn every_format_keeps_every_type() {
    let folder = tempfile::tempdir().unwrap();
    for (name, write, format) in WRITERS {
        let path = folder.path().join(name);
        let mut expected = every_type();
        write(&path, &expected).unwrap();
        let file = read(&path).unwrap();
        assert_eq!((file.format, &file.path), (format, &path));
        if format == Format::Pickle {
            // numpy has no bfloat16; float32 holds the same numbers.
            let wide = expected["a.bfloat16"].to_kind(Kind::Float);
            expected.insert("a.bfloat16".into(), wide);
        }
        assert_same(&file.tensors, &expected);
    }
}

#[test]
fn the_same_content_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let metadata: BTreeMap<String, String> =
        (0..20).map(|n| (format!("key{n}"), "value".into())).collect();
    let bytes = |name: &str| {
        let path = folder.path().join(name);
        write_safetensors(&path, &every_type(), &metadata).unwrap();
        assert_eq!(read(&path).unwrap().metadata, metadata);
        std::fs::read(path).unwrap()
    };
    assert_eq!(bytes("a"), bytes("b"));
}

/// torch maps a checkpoint into memory and uses the data where it lies.
#[test]
fn checkpoint_data_is_aligned_and_stored() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.pth");
    write_pth(&path, &every_type()).unwrap();
    let mut archive = zip::ZipArchive::new(std::fs::File::open(&path).unwrap()).unwrap();
    let mut seen = 0;
    for index in 0..archive.len() {
        let entry = archive.by_index(index).unwrap();
        assert_eq!(entry.compression(), zip::CompressionMethod::Stored);
        assert_eq!(entry.data_start().unwrap() % 64, 0, "{index}");
        seen += 1;
    }
    assert_eq!(seen, every_type().len() + 3);
}

#[test]
fn extensions_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    for (_, write, format) in WRITERS {
        let path = folder.path().join("weights.dat");
        write(&path, &every_type()).unwrap();
        assert_eq!(read(&path).unwrap().format, format);
    }
}

#[test]
fn cut_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, path, whole) in written(folder.path()) {
        for part in 0..16 {
            std::fs::write(&path, &whole[..whole.len() * part / 16]).unwrap();
            let message = read(&path).unwrap_err().to_string();
            assert!(message.contains(name), "{message}");
        }
    }
}

#[test]
fn damage_anywhere_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    for (_, path, whole) in written(folder.path()) {
        for at in (0..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            std::fs::write(&path, damaged).unwrap();
            let _ = read(&path);
        }
    }
}

#[test]
fn what_is_no_weight_file_is_called_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("download.pth");
    std::fs::write(&path, "<!DOCTYPE html><html>404</html>").unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("download.pth") && message.contains("web page"), "{message}");
    let message = read(folder.path()).unwrap_err().to_string();
    assert!(message.contains("config.json"), "{message}");
    let message = read(folder.path().join("absent.pth")).unwrap_err().to_string();
    assert!(message.contains("absent.pth"), "{message}");
    write_pth(&path, &StateDict::new()).unwrap();
    let message = read(&path).unwrap_err().to_string();
    assert!(message.contains("no weights"), "{message}");
}

fn filled(names: &[(&str, &[i64])], value: f64, kind: Kind) -> StateDict {
    let tensor = |shape: &[i64]| Tensor::full(shape, value, (kind, Device::Cpu));
    names.iter().map(|(name, shape)| (name.to_string(), tensor(shape))).collect()
}

const MODEL: [(&str, &[i64]); 4] = [
    ("downsample_layers.0.0.weight", &[4, 3, 4, 4]),
    ("stages.0.0.gamma", &[4]),
    ("stages.0.0.pwconv1.weight", &[16, 4]),
    ("norm.weight", &[4]),
];

fn as_file(tensors: StateDict) -> WeightFile {
    WeightFile::from_tensors("given.pth", tensors)
}

fn sum(tensors: &StateDict) -> f64 {
    tensors.values().map(|tensor| tensor.sum(Kind::Double).double_value(&[])).sum()
}

#[test]
fn every_naming_loads_back_under_any_prefix() {
    let source = filled(&MODEL, 1.5, Kind::Float);
    for naming in Naming::ALL.into_iter().filter(|naming| naming.has(Family::ConvNeXt)) {
        let exported = export(Family::ConvNeXt, naming, &source).unwrap();
        let prefixed = exported.into_iter().map(|(k, v)| (format!("model.encoder.{k}"), v));
        let target = filled(&MODEL, 0.0, Kind::Double);
        let file = as_file(prefixed.collect());
        let report = load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap();
        assert_eq!((report.naming, report.prefix.as_str()), (naming, "model.encoder."));
        assert_eq!(report.matched.len(), 4);
        for (name, tensor) in &target {
            assert_eq!(tensor.kind(), Kind::Double, "the model's type stays");
            assert!(tensor.eq(1.5).all().int64_value(&[]) == 1, "{naming} {name}");
        }
    }
}

#[test]
fn loading_reaches_parameters_that_require_gradients() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let parameters: Vec<Tensor> =
        target.values().map(|tensor| tensor.shallow_clone().set_requires_grad(true)).collect();
    let file = as_file(filled(&MODEL, 2.0, Kind::Half));
    load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap();
    for parameter in parameters {
        assert!(parameter.requires_grad() && parameter.is_leaf());
        assert_eq!(parameter.mean(Kind::Double).double_value(&[]), 2.0);
    }
}

#[test]
fn a_strict_load_is_all_or_nothing() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let mut tensors = filled(&MODEL, 1.0, Kind::Float);
    tensors.remove("stages.0.0.pwconv1.weight");
    tensors.insert("stages.0.0.gamma".into(), Tensor::ones([5], (Kind::Float, Device::Cpu)));
    let file = as_file(tensors);
    let message =
        load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap_err().to_string();
    for part in ["given.pth", "pwconv1", "[5]", "[4]"] {
        assert!(message.contains(part), "{message:?} should mention {part:?}");
    }
    // Programs have no such setting.
    assert!(!message.contains("strict"), "{message}");
    assert_eq!(sum(&target), 0.0);

    let options = LoadOptions { strict: false, ..LoadOptions::default() };
    let report = load(&target, Family::ConvNeXt, &file, &options).unwrap();
    assert_eq!(report.matched, ["downsample_layers.0.0.weight", "norm.weight"]);
    assert_eq!(report.missing, ["stages.0.0.pwconv1.weight"]);
    assert_eq!(report.unused, ["stages.0.0.gamma"]);
    assert_eq!(report.mismatched[0].found, [5]);
    assert_eq!(sum(&target), 4.0 * 3.0 * 16.0 + 4.0);
    let text = report.to_string();
    assert!(text.contains("2 tensors loaded (official naming)"), "{text}");
    assert!(text.contains("1 missing: stages.0.0.pwconv1.weight"), "{text}");
}

#[test]
fn integers_for_weights_are_refused_before_anything_is_written() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let mut tensors = filled(&MODEL, 1.0, Kind::Float);
    tensors.insert("stages.0.0.gamma".into(), Tensor::ones([4], (Kind::Int8, Device::Cpu)));
    let options = LoadOptions { strict: false, ..LoadOptions::default() };
    let message =
        load(&target, Family::ConvNeXt, &as_file(tensors), &options).unwrap_err().to_string();
    assert!(message.contains("int8") && message.contains("gamma"), "{message}");
    assert_eq!(sum(&target), 0.0);
}

#[test]
fn a_missing_final_norm_is_no_hindrance() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let mut tensors = filled(&MODEL, 1.0, Kind::Float);
    tensors.remove("norm.weight");
    let report =
        load(&target, Family::ConvNeXt, &as_file(tensors), &LoadOptions::default()).unwrap();
    assert_eq!(report.missing, ["norm.weight"]);
}

#[test]
fn a_foreign_file_says_what_it_has() {
    let target = filled(&MODEL, 0.0, Kind::Float);
    let file = as_file(filled(&[("bert.embeddings.weight", &[2])], 1.0, Kind::Float));
    let message =
        load(&target, Family::ConvNeXt, &file, &LoadOptions::default()).unwrap_err().to_string();
    for part in ["nothing in given.pth", "bert.embeddings.weight", "downsample_layers.0.0.weight"] {
        assert!(message.contains(part), "{message:?} should mention {part:?}");
    }
    let options = LoadOptions { prefix: Some("no.such.".into()), ..LoadOptions::default() };
    let file = as_file(filled(&MODEL, 1.0, Kind::Float));
    let message = load(&target, Family::ConvNeXt, &file, &options).unwrap_err().to_string();
    assert!(message.contains("no.such."), "{message}");
}

#[test]
fn a_prefix_may_be_chosen() {
    let mut tensors = StateDict::new();
    for (prefix, value) in [("model.", 1.0), ("ema.", 3.0)] {
        for (name, tensor) in filled(&MODEL, value, Kind::Float) {
            tensors.insert(format!("{prefix}{name}"), tensor);
        }
    }
    let file = as_file(tensors);
    for (prefix, taken, value) in [(None, "model.", 1.0), (Some("ema.".to_owned()), "ema.", 3.0)] {
        let target = filled(&MODEL, 0.0, Kind::Float);
        let options = LoadOptions { prefix, ..LoadOptions::default() };
        let report = load(&target, Family::ConvNeXt, &file, &options).unwrap();
        assert_eq!(report.prefix, taken);
        assert_eq!(target["norm.weight"].double_value(&[0]), value);
    }
}

fn candidate(name: &str, tensors: &[(&str, &[i64])]) -> Candidate {
    let shapes = tensors.iter().map(|(name, shape)| (name.to_string(), shape.to_vec())).collect();
    (name.into(), Family::ConvNeXt, shapes)
}

#[test]
fn inspection_finds_the_model_neither_larger_nor_smaller() {
    let mut larger = MODEL.to_vec();
    larger.push(("stages.0.1.gamma", &[4]));
    let wider: Vec<(&str, &[i64])> = MODEL.iter().map(|(name, _)| (*name, &[8][..])).collect();
    let candidates = [
        candidate("larger", &larger),
        candidate("smaller", &MODEL[..2]),
        candidate("wider", &wider),
        candidate("right", &MODEL),
    ];
    let mut tensors = StateDict::new();
    for (name, tensor) in filled(&MODEL, 1.0, Kind::Half) {
        tensors.insert(format!("sparse_encoder.sp_cnn.{name}"), tensor);
    }
    tensors.insert("dense_decoder.proj.bias".into(), Tensor::from(1f32));
    tensors.insert("mask_tokens.0".into(), Tensor::from(1f32));
    let inspection = inspect(&as_file(tensors), &candidates);
    let model = inspection.model.as_ref().unwrap();
    assert_eq!(model.name, "right");
    assert_eq!(model.load.prefix, "sparse_encoder.sp_cnn.");
    assert!(model.is_complete() && inspection.spark_decoder);
    assert_eq!(model.parameters, 4 * 3 * 16 + 4 + 64 + 4);
    assert_eq!(inspection.dtypes, BTreeMap::from([("float16", 4), ("float32", 2)]));
    let text = inspection.to_string();
    for part in ["right, complete, 264 parameters", "SparK decoder: yes", "2 unused"] {
        assert!(text.contains(part), "{text:?} should mention {part:?}");
    }
}

#[test]
fn a_timm_folder_comes_back_with_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let model =
        filled(&[("conv1.weight", &[4, 2, 7, 7]), ("fc.weight", &[10, 4])], 1.0, Kind::Float);
    let config = TimmConfig {
        in_chans: 2,
        mean: vec![0.1, 0.2],
        std: vec![1.0, 2.0],
        interpolation: "bilinear".into(),
        ..TimmConfig::imagenet("resnet18")
    };
    write_timm_folder(folder.path().join("new/out"), &config, &model).unwrap();
    let file = read(folder.path().join("new/out")).unwrap();
    assert_same(&file.tensors, &model);
    assert_eq!(file.format, Format::TimmFolder);
    assert_eq!(file.metadata["architecture"], "resnet18");
    assert_eq!(file.metadata["mean"], "[0.1,0.2]");
    assert_eq!(file.metadata["interpolation"], "\"bilinear\"");
}

#[test]
fn a_timm_folder_that_timm_would_refuse_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let resnet = filled(&[("conv1.weight", &[4, 3, 7, 7])], 1.0, Kind::Float);
    let convnext = filled(&[("stem.0.weight", &[4, 3, 4, 4])], 1.0, Kind::Float);
    let plain = TimmConfig::imagenet("resnet18");
    let four = vec![0.5; 4];
    for (config, tensors, part) in [
        (TimmConfig { std: vec![1.0], ..plain.clone() }, &resnet, "std"),
        (
            TimmConfig { in_chans: 4, mean: four.clone(), std: four, ..plain.clone() },
            &resnet,
            "in_chans",
        ),
        (plain, &convnext, "conv1.weight"),
        (TimmConfig::imagenet("convnext_tiny"), &convnext, "head.norm.weight"),
    ] {
        let message = write_timm_folder(&out, &config, tensors).unwrap_err().to_string();
        assert!(message.contains(part), "{message:?} should mention {part:?}");
        assert!(!out.exists());
    }
}
