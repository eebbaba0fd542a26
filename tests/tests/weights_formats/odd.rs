//! Checkpoints with whatever people's programs leave in them, against what PyTorch
//! reads from the same files.

use std::collections::{BTreeMap, BTreeSet};

use backbone::weights::{Format, read};
use spark_tests::run_python;

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
