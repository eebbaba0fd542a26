//! Checkpoints with whatever people's programs leave in them, against what PyTorch
//! reads from the same files; other input channels against timm; models that were
//! taken apart.

use std::collections::{BTreeMap, BTreeSet};

use backbone::models::Family;
use backbone::weights::{Format, LoadOptions, Naming, StateDict, WeightFile, load, read};
use spark_tests::run_python;
use tch::{Device, Kind, Tensor};

#[test]
fn files_are_read_as_pytorch_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    run_python("weights_odd.py", &[folder.path()]);
    let text = std::fs::read_to_string(folder.path().join("expected.json")).unwrap();
    let expected: BTreeMap<String, BTreeSet<String>> = serde_json::from_str(&text).unwrap();
    assert!(expected.len() > 35);
    for (name, left_out) in expected {
        let file = read(folder.path().join(&name)).unwrap_or_else(|error| panic!("{error}"));
        let place = folder.path().join("expected").join(format!("{name}.safetensors"));
        let whole = |name: &String| match file.metadata.get("wrapper") {
            Some(wrapper) => format!("{wrapper}.{name}"),
            None => name.clone(),
        };
        let found = file.tensors.iter().map(|(name, t)| (whole(name), t.shallow_clone()));
        super::assert_same(&found.collect(), &read(place).unwrap().tensors, &name);
        for found in file.left_out.keys() {
            let known = left_out.contains(found) || left_out.contains(&whole(found));
            assert!(known, "{name}: {found} is left out: {}", file.left_out[found]);
        }
        assert_eq!(file.left_out.len(), left_out.len(), "{name}: {:?}", file.left_out);
        let tar = name == "tables.pth";
        assert_eq!(file.format == Format::TorchTar, tar, "{name} is a {}", file.format);
    }
    assert!(!folder.path().join("executed").exists(), "a pickle was executed");
}

#[test]
fn first_convolutions_are_converted_as_timm_does() {
    let adapted = super::file("adapted.safetensors").tensors;
    let stems = [
        (Family::ResNet, "conv1.weight", "conv1.weight"),
        (Family::ConvNeXt, "downsample_layers.0.0.weight", "encoder.stem.0.weight"),
    ];
    let mut seen = 0;
    for (key, into) in adapted.iter().filter_map(|(key, t)| Some((key.strip_suffix(" into")?, t))) {
        for (family, canonical, foreign) in stems {
            let from = adapted[&format!("{key} from")].shallow_clone();
            let file = WeightFile::from_tensors("f.pth", [(foreign.into(), from)].into());
            let target = StateDict::from([(
                canonical.into(),
                Tensor::zeros(into.size(), (Kind::Float, Device::Cpu)),
            )]);
            let report = load(&target, family, &file, &LoadOptions::default()).unwrap();
            assert!(target[canonical].equal(&into.to_kind(Kind::Float)), "{key}");
            let told = report.to_string();
            let same = file.tensors[foreign].size()[1] == into.size()[1];
            assert_eq!(told.contains("as timm does"), !same, "{key}: {told}");
            seen += 1;
        }
    }
    assert_eq!(seen, 26);
}

#[test]
fn models_that_were_taken_apart_have_the_same_tensors() {
    let text = std::fs::read_to_string(super::foreign().join("names.json")).unwrap();
    let all: BTreeMap<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for (case, names) in all {
        let Some(library) = case.strip_prefix("children of ") else { continue };
        let family = if case.contains("resnet") { Family::ResNet } else { Family::ConvNeXt };
        let naming = match (family, library.starts_with("timm")) {
            (Family::ConvNeXt, true) => Naming::Timm,
            _ => Naming::Torchvision,
        };
        let names: BTreeMap<String, String> = serde_json::from_value(names).unwrap();
        assert!(names.len() > 100, "{case}");
        for (apart, whole) in names {
            let canonical = naming.from(family, &apart);
            assert!(canonical.is_some(), "{case}: {apart} is unknown");
            assert_eq!(canonical, naming.from(family, &whole), "{case}: {apart}");
            seen += 1;
        }
    }
    assert_eq!(seen, 794);
}
