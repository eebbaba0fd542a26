//! What is written.

use std::io::Read;

use super::*;
use crate::weights::StateDict;

/// The names and bytes in a zip file.
fn entries(bytes: &[u8]) -> Vec<(String, Vec<u8>, CompressionMethod)> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let count = zip.len();
    let read = |index: usize| {
        let mut entry = zip.by_index(index).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        (entry.name().unwrap().into_owned(), content, entry.compression())
    };
    (0..count).map(read).collect()
}

/// Writes `tensors` into the archive and reads the file again.
fn written(archive: &Archive, tensors: &StateDict) -> crate::Result<(Archive, Vec<u8>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trained.pt2");
    archive.write(&path, tensors)?;
    Ok((Archive::open(&path).unwrap(), std::fs::read(&path).unwrap()))
}

fn state(tensors: &[(&str, Tensor)]) -> StateDict {
    tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.shallow_clone())).collect()
}

#[test]
fn a_file_written_again_differs_in_its_weights_alone() {
    let parts = Parts::small();
    let archive = parts.open().unwrap();
    let weight = Tensor::arange(24, (Kind::Float, tch::Device::Cpu)).view([2, 3, 2, 2]);
    let given = state(&[("conv.weight", weight.shallow_clone()), ("count", Tensor::from(9i64))]);
    let (again, bytes) = written(&archive, &given).unwrap();
    assert!(again.tensors()["conv.weight"].equal(&weight));
    assert_eq!(again.tensors()["conv.weight"].stride(), [12, 1, 6, 3]);
    assert_eq!(again.tensors()["count"].int64_value(&[]), 9);
    assert_eq!(again.program().nodes, archive.program().nodes);

    let expected = parts.all_entries();
    let found = entries(&bytes);
    assert_eq!(found.len(), expected.len() - 1, "all but the hash");
    for (name, content, method) in found {
        assert_eq!(method, CompressionMethod::Stored, "{name}");
        let inner = name.strip_prefix("trained/").expect("the file's stem");
        let (_, before) = expected.iter().find(|(name, _)| name == inner).unwrap();
        let changed = matches!(inner, "data/weights/weight_0" | "data/weights/weight_2");
        assert_eq!(content != *before, changed, "{name}");
    }
    assert_eq!(values(&archive.tensors()["count"]), [7.0], "the archive is as it was");
}

#[test]
fn tied_tensors_are_given_once_or_alike() {
    let archive = Parts::small().open().unwrap();
    let (one, two) = (Tensor::from_slice(&[1f32, 2.0]), Tensor::from_slice(&[3f32, 4.0]));
    let (again, _) = written(&archive, &state(&[("head.bias", one.shallow_clone())])).unwrap();
    assert_eq!(values(&again.tensors()["conv.bias"]), [1.0, 2.0]);
    let alike = state(&[("head.bias", one.shallow_clone()), ("conv.bias", one.copy())]);
    written(&archive, &alike).unwrap();
    let differ = state(&[("head.bias", one), ("conv.bias", two)]);
    let message = written(&archive, &differ).unwrap_err().to_string();
    assert!(message.contains("tied") && message.contains(".bias"), "{message}");
}

#[test]
fn what_does_not_fit_is_refused() {
    let archive = Parts::small().with("u", meta(28, &[1], &[1]), vec![0; 2]).open().unwrap();
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, tch::Device::Cpu));
    for (name, tensor, part) in [
        ("fc.weight", zeros(&[2], Kind::Float), "none such"),
        ("conv.bias", zeros(&[3], Kind::Float), "[2]"),
        ("conv.bias", zeros(&[2], Kind::Int64), "Float"),
        ("count", zeros(&[], Kind::Float), "Int64"),
        ("u", zeros(&[1], Kind::Int), "uint16"),
    ] {
        let message = written(&archive, &state(&[(name, tensor)])).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(part), "{message}");
    }
}

#[test]
fn the_archives_types_stay() {
    let mut expanded = meta(7, &[3], &[0]);
    expanded["storage_offset"] = json!({"as_int": 1});
    let parts = Parts::small().with("half", meta(6, &[2], &[1]), vec![0; 4]).with(
        "expanded",
        expanded,
        floats(&[0.0, 1.0]),
    );
    let archive = parts.open().unwrap();
    let given = state(&[
        ("half", Tensor::from_slice(&[1.5f32, -2.0]).set_requires_grad(true)),
        ("expanded", Tensor::from_slice(&[4f32, 4.0, 4.0])),
    ]);
    let (again, _) = written(&archive, &given).unwrap();
    assert_eq!(again.tensors()["half"].kind(), Kind::Half);
    assert_eq!(values(&again.tensors()["half"]), [1.5, -2.0]);
    assert_eq!(values(&again.tensors()["expanded"]), [4.0; 3]);
    let uneven = state(&[("expanded", Tensor::from_slice(&[4f32, 5.0, 4.0]))]);
    assert!(written(&archive, &uneven).is_err());
}

#[test]
fn a_small_archive_has_the_tensors_asked_for() {
    let mut archive = Parts::small().open().unwrap();
    archive.set_note("stages", "layer1 layer2");
    let bytes = archive.to_bytes(&|name| matches!(name, "shift" | "head.bias")).unwrap();
    let names: Vec<String> = entries(&bytes).into_iter().map(|(name, ..)| name).collect();
    assert!(names.iter().all(|name| !name.contains("sample_inputs")), "{names:?}");
    let mut small = from_bytes(&bytes).unwrap();
    assert_eq!(small.program().nodes, archive.program().nodes);
    assert_eq!(small.note("stages"), Some("layer1 layer2"));
    let names: Vec<&String> = small.tensors().keys().collect();
    assert_eq!(names, ["conv.bias", "head.bias", "shift"], "of a shared storage, all");
    assert_eq!(small.meta("conv.weight"), archive.meta("conv.weight"));
    assert!(small.state_names().eq(archive.state_names()));

    small.set_note("stages", "layer3");
    let again = from_bytes(&small.to_bytes(&|_| true).unwrap()).unwrap();
    assert_eq!((again.note("stages"), again.tensors().len()), (Some("layer3"), 3));
    let whole = from_bytes(&archive.to_bytes(&|_| true).unwrap()).unwrap();
    assert_eq!(whole.tensors().len(), 6);
    let stored = from_bytes(&Parts::small().bytes()).unwrap();
    assert_eq!((stored.tensors().len(), stored.note("stages")), (6, None));
}

#[test]
fn a_small_archive_is_written_with_what_it_lacks() {
    let archive = Parts::small().open().unwrap();
    let small = from_bytes(&archive.to_bytes(&|name| name == "shift").unwrap()).unwrap();
    let mut given: StateDict = archive
        .tensors()
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "conv.weight" | "conv.bias" | "count"))
        .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
        .collect();
    let message = written(&small, &given).unwrap_err().to_string();
    assert!(message.contains("\"flags\" is neither given"), "{message}");
    given.insert("flags".into(), Tensor::from_slice(&[true, false]));
    let (again, bytes) = written(&small, &given).unwrap();
    for (name, tensor) in archive.tensors() {
        assert!(again.tensors()[name].equal(tensor), "{name}");
        assert_eq!(again.tensors()[name].stride(), tensor.stride(), "{name}");
    }
    let entries = entries(&bytes);
    let inputs = entries.iter().find(|(name, ..)| name.ends_with("sample_inputs/model.pt"));
    assert_eq!(inputs.unwrap().1, b"", "torch.export.load asks for the entry");
}
