//! Weights in several files.

use std::path::PathBuf;

use super::*;

/// Two files and their index: `a` in the first, `b` and `c` in the second.
fn sharded(folder: &Path) -> PathBuf {
    let write = |name: &str, tensors: &[(&str, &[i64])], value: f64| {
        let tensors = filled(tensors, value, Kind::Float);
        write_safetensors(folder.join(name), &tensors, &BTreeMap::new()).unwrap();
    };
    write("model-1.safetensors", &[("a", &[2])], 1.0);
    write("model-2.safetensors", &[("b", &[3]), ("c", &[1])], 2.0);
    let index = folder.join("model.safetensors.index.json");
    let map = "\"a\": \"model-1.safetensors\", \"b\": \"model-2.safetensors\"";
    let text = format!(
        "{{\"metadata\": {{\"total_size\": 24}}, \"weight_map\": {{{map}, \"c\": \
         \"model-2.safetensors\"}}}}"
    );
    std::fs::write(&index, text).unwrap();
    index
}

#[test]
fn an_index_or_its_folder_gives_all_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    let expect = |path: &Path, format: Format| {
        let file = read(path).unwrap();
        assert_eq!(file.format, format);
        assert_eq!(file.tensors.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(file.tensors["a"].double_value(&[0]), 1.0);
        assert_eq!(file.metadata["total_size"], "24");
    };
    expect(&index, Format::Sharded);
    expect(folder.path(), Format::Sharded);
    // With a model's configuration it is timm's kind of folder.
    std::fs::write(folder.path().join("config.json"), "{\"architecture\": \"resnet18\"}").unwrap();
    expect(folder.path(), Format::TimmFolder);
}

#[test]
fn what_is_wrong_with_an_index_is_told() {
    type Change = fn(&Path, &str) -> String;
    let cases: [(Change, &[&str]); 9] = [
        (
            |folder, text| {
                std::fs::remove_file(folder.join("model-2.safetensors")).unwrap();
                text.into()
            },
            &["1 of the 2 files", "model-2.safetensors"],
        ),
        (
            |_, text| text.replace("model-1", "../model-1"),
            &["\"../model-1.safetensors\"", "folder"],
        ),
        (|_, text| text.replace("model-1", "/etc/model-1"), &["/etc/model-1"]),
        (|_, text| text.replace("\"a\"", "\"absent\""), &["model-1", "\"absent\""]),
        (|_, text| text.replace("\"model-1.safetensors\"", "7"), &["\"a\"", "7", "name a file"]),
        (|_, _| "{\"weight_map\": []}".into(), &["weight_map"]),
        (
            |_, text| text.replace("model-1.safetensors", "model.safetensors.index.json"),
            &["an index again"],
        ),
        (
            |folder, text| {
                std::fs::write(folder.join("model-1.safetensors"), "{}").unwrap();
                text.into()
            },
            &["model-1.safetensors", "JSON"],
        ),
        (|_, _| "{\"weight_map\": {}}".into(), &["holds no weights"]),
    ];
    for (number, (change, parts)) in cases.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let index = sharded(folder.path());
        let text = std::fs::read_to_string(&index).unwrap();
        std::fs::write(&index, change(folder.path(), &text)).unwrap();
        let message = read(&index).unwrap_err().to_string();
        for part in parts {
            assert!(message.contains(part), "{number}: {message:?} should mention {part:?}");
        }
    }
}

#[test]
fn a_tensor_in_two_files_is_taken_from_where_the_index_says() {
    let folder = tempfile::tempdir().unwrap();
    let index = sharded(folder.path());
    let both = filled(&[("a", &[2]), ("b", &[3])], 5.0, Kind::Float);
    write_safetensors(folder.path().join("model-1.safetensors"), &both, &BTreeMap::new()).unwrap();
    let file = read(&index).unwrap();
    assert_eq!(file.tensors["b"].double_value(&[0]), 2.0);
    assert!(file.left_out["model-1.safetensors: b"].contains("model-2"), "{:?}", file.left_out);
}
