//! Exported programs against PyTorch itself: what `torch.export.save` writes is read, and what is
//! written `torch.export.load` reads.

use std::path::{Path, PathBuf};

use backbone::pt2::{Archive, Source, Value};
use backbone::weights::{Format, StateDict, read, write_safetensors};
use spark_tests::run_python;
use tch::{Kind, Tensor};

const NETWORKS: [&str; 4] = ["resnet18", "odd", "dynamic", "eval"];

/// Values and, where tch has it, type of what safetensors say they are.
fn assert_same(found: &StateDict, expected: &StateDict, what: &str) {
    for (name, tensor) in expected {
        let found = found.get(name).unwrap_or_else(|| panic!("{what} lacks {name}"));
        // Narrow floats of weight files are widened.
        let alike = found.to_kind(tensor.kind());
        assert_eq!(found.size(), tensor.size(), "{what} {name}");
        assert!(alike.equal(tensor), "{what} {name}");
    }
}

/// Every float of the state dict but those that cannot change alone, one greater.
fn changed(state: &StateDict) -> StateDict {
    let change = |(name, tensor): (&String, &Tensor)| {
        let floats = matches!(tensor.kind(), Kind::Float | Kind::BFloat16);
        // `bits` are the same numbers as the rows beside it, as integers.
        let changes = floats && !name.starts_with("row");
        (name.clone(), if changes { tensor + 1.0 } else { tensor.shallow_clone() })
    };
    state.iter().map(change).collect()
}

#[test]
fn pytorch_and_this_crate_read_each_others_programs() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| -> PathBuf { folder.path().join(name) };
    run_python("pt2_archive.py", &[Path::new("export"), folder.path()]);
    for name in NETWORKS {
        let file = path(format!("{name}.pt2"));
        let archive = Archive::open(&file).unwrap_or_else(|error| panic!("{error}"));
        let state = read(path(format!("{name}.state.safetensors"))).unwrap().tensors;
        assert_same(archive.tensors(), &state, name);
        let constants = path(format!("{name}.constants.safetensors"));
        let has_constants = name == "odd" || name == "dynamic";
        if has_constants {
            assert_same(archive.tensors(), &read(constants).unwrap().tensors, name);
        }
        let mut names: Vec<&str> = archive.state_names().collect();
        names.sort_unstable();
        assert_eq!(names, state.keys().map(String::as_str).collect::<Vec<_>>(), "{name}");

        let weights = read(&file).unwrap();
        assert_eq!(weights.format, Format::ExportedProgram);
        assert_eq!(weights.tensors.len(), state.len(), "{name}");
        assert_same(&weights.tensors, &state, name);

        check_graph(&archive, name);
        write_again(&archive, &state, name, folder.path());
    }
    assert_eq!(run_python("pt2_archive.py", &[Path::new("check"), folder.path()]).trim(), "ok");
}

fn check_graph(archive: &Archive, name: &str) {
    let program = archive.program();
    let users = program.inputs.iter().filter(|input| input.source == Source::User);
    assert_eq!(users.count(), 1, "{name}");
    assert!(program.nodes.len() > 10, "{name}");
    let conv = program.nodes.iter().find(|node| node.target == "torch.ops.aten.conv2d.default");
    let conv = conv.unwrap();
    let module = if name == "eval" {
        "conv_stem"
    } else if name == "resnet18" {
        "conv1"
    } else {
        "conv"
    };
    assert_eq!(conv.module, module, "{name}");
    assert!(conv.class.ends_with(".Conv2d"), "{name}: {}", conv.class);
    let (place, text) = conv.location.as_ref().unwrap();
    let file = if has_own_file(name) { "pt2_archive.py:" } else { "timm/models/" };
    assert!(place.contains(file) && text.contains("self."), "{name}: {place} {text}");
    if name == "dynamic" {
        let half = program.nodes.iter().find(|node| node.target.contains("upsample_nearest2d"));
        let sizes = &half.unwrap().arguments.iter().find(|(name, _)| name == "output_size");
        assert_eq!(sizes.as_ref().unwrap().1, Value::Ints(vec![32, 48]));
    }
    if name == "resnet18" {
        let weight = &archive.tensors()["conv1.weight"];
        assert_eq!(weight.stride(), [147, 1, 21, 3], "channels-last");
    }
    if has_own_file(name) {
        let tensors = archive.tensors();
        assert_eq!(tensors["first.weight"].data_ptr(), tensors["second.weight"].data_ptr());
        let other = |value: &Value| matches!(value, Value::Other(what) if what == "graph");
        let region = program.nodes.iter().find(|node| node.target.ends_with("wrap_with_autocast"));
        assert!(region.unwrap().arguments.iter().any(|(_, value)| other(value)));
    }
}

fn has_own_file(name: &str) -> bool {
    matches!(name, "odd" | "dynamic")
}

/// Writes it with other weights: the archive itself, and a small one that lacks them.
fn write_again(archive: &Archive, state: &StateDict, name: &str, folder: &Path) {
    let own = state.keys().map(|name| (name.clone(), archive.tensors()[name].copy())).collect();
    let given = changed(&own);
    let beside = folder.join(format!("{name}.changed.safetensors"));
    write_safetensors(beside, &widened(&given), &Default::default()).unwrap();
    archive.write(&folder.join(format!("{name}_again.pt2")), &given).unwrap();
    let constants = |tensor: &str| !state.contains_key(tensor);
    let small = Archive::from_bytes(Path::new("small"), &archive.to_bytes(&constants).unwrap());
    small.unwrap().write(&folder.join(format!("{name}_small.pt2")), &given).unwrap();
}

/// With float8 as float32, which safetensors are written of.
fn widened(tensors: &StateDict) -> StateDict {
    let widen = |(name, tensor): (&String, &Tensor)| {
        let float8 = tensor.kind() == Kind::Float8e4m3fn;
        let kind = if float8 { Kind::Float } else { tensor.kind() };
        (name.clone(), tensor.to_kind(kind))
    };
    tensors.iter().map(widen).collect()
}
