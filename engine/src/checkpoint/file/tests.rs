//! Checkpoint files: what is written is read, and what is broken is named.

use std::fs;

use serde_json::json;

use super::*;

fn tensors() -> BTreeMap<String, Tensor> {
    let numbers = Tensor::arange(24, (Kind::Float, Device::Cpu)).reshape([2, 3, 2, 2]);
    let mut tensors: BTreeMap<String, Tensor> =
        TYPES.iter().map(|(kind, _)| (format!("layer.{kind:?}"), numbers.to_kind(*kind))).collect();
    tensors.insert("scalar".into(), Tensor::from(7i64));
    tensors.insert("empty".into(), Tensor::zeros([0, 4], (Kind::Float, Device::Cpu)));
    // Not contiguous: written in logical order.
    tensors.insert("turned".into(), numbers.permute([0, 2, 3, 1]));
    tensors
}

fn saved(folder: &Path) -> PathBuf {
    let path = folder.join("a.safetensors");
    let optimizer = BTreeMap::from([("step".to_owned(), Tensor::from(3i64))]);
    let state = json!({ "epoch": 3, "best": 0.25, "scaler": 65536.0 });
    write_checkpoint(&path, &[("model", &tensors()), ("optimizer", &optimizer)], &state).unwrap();
    path
}

#[test]
fn every_kind_of_tensor_comes_back_in_its_section() {
    let folder = tempfile::tempdir().unwrap();
    let file = CheckpointFile::open(&saved(folder.path())).unwrap();
    assert_eq!(file.sections().into_iter().collect::<Vec<_>>(), ["model", "optimizer"]);
    let (wanted, found) = (tensors(), file.section("model").unwrap());
    assert_eq!(wanted.keys().collect::<Vec<_>>(), found.keys().collect::<Vec<_>>());
    for (name, tensor) in &wanted {
        assert_eq!(tensor.kind(), found[name].kind(), "{name}");
        assert!(tensor.equal(&found[name]), "{name}");
    }
    assert_eq!(file.section("optimizer").unwrap()["step"].int64_value(&[]), 3);
    let state: serde_json::Value = file.state().unwrap();
    assert_eq!(state["best"], 0.25);
}

/// The reader that tch brings is another version of the format's library.
#[test]
fn another_reader_finds_the_same_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let found: BTreeMap<String, Tensor> =
        Tensor::read_safetensors(saved(folder.path())).unwrap().into_iter().collect();
    assert_eq!(found.len(), tensors().len() + 1);
    for (name, tensor) in tensors() {
        assert!(tensor.equal(&found[&format!("model.{name}")]), "{name}");
    }
}

#[test]
fn equal_states_give_equal_files() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(fs::read(saved(a.path())).unwrap() == fs::read(saved(b.path())).unwrap());
}

#[test]
fn a_missing_section_or_another_state_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = CheckpointFile::open(&saved(folder.path())).unwrap();
    let message = file.section("decoder").unwrap_err().to_string();
    assert!(message.contains("no section decoder; it has: model, optimizer"), "{message}");
    assert!(message.contains("a.safetensors"), "{message}");
    #[derive(Debug, Deserialize)]
    struct Other {
        #[allow(dead_code)]
        learning_rate: f64,
    }
    let message = file.state::<Other>().unwrap_err().to_string();
    assert!(message.contains("missing field `learning_rate`"), "{message}");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(saved(folder.path())).unwrap();
    let path = folder.path().join("cut.safetensors");
    for length in [0, 5, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).unwrap();
        let message = CheckpointFile::open(&path).unwrap_err().to_string();
        assert!(message.contains("cut.safetensors: cut off"), "{length}: {message}");
    }
    fs::write(&path, [bytes.as_slice(), b"more"].concat()).unwrap();
    assert!(CheckpointFile::open(&path).unwrap_err().to_string().contains("describes"));
}

#[test]
fn other_formats_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let message = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        CheckpointFile::open(&path).unwrap_err().to_string()
    };
    assert!(message(b"PK\x03\x04 and so on").contains("a zip file (.pth?)"));
    assert!(message(b"\x89PNG\r\n\x1a\n and so on").contains("no safetensors file"));
    assert!(message(b"\x02\0\0\0\0\0\0\0[]").contains("header is malformed"));
    let newer =
        json!({ "__metadata__": { ENTRY: "{\"version\": 9, \"state\": null}" } }).to_string();
    let newer = [&(newer.len() as u64).to_le_bytes(), newer.as_bytes()].concat();
    assert!(message(&newer).contains("of layout 9, but this program reads 1"));

    Tensor::write_safetensors(&[("weight", Tensor::from(1f32))], &path).unwrap();
    let error = CheckpointFile::open(&path).unwrap_err().to_string();
    assert!(error.contains("weights without a training state"), "{error}");
    let error = CheckpointFile::open(&folder.path().join("absent")).unwrap_err().to_string();
    assert!(error.contains("absent: No such file"), "{error}");
}

#[test]
fn tensors_and_sections_that_cannot_be_stored_are_named_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let complex = Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu));
    let tensors = BTreeMap::from([("a".to_owned(), complex)]);
    let error = write_checkpoint(&path, &[("model", &tensors)], &()).unwrap_err().to_string();
    assert!(error.contains("model.a is ComplexFloat"), "{error}");
    let error = write_checkpoint(&path, &[("a.b", &BTreeMap::new())], &()).unwrap_err().to_string();
    assert!(error.contains("section is a.b"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
