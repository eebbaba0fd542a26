//! Archives with anything in them: no panic, and no memory beyond the file's.

use proptest::prelude::*;

use super::*;
use crate::weights::tests::damage::Damage;
use crate::weights::walk::budget;

/// Reads `bytes` in every way; whatever comes of it, tensors are no larger than the file allows.
fn survive(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.pt2");
    std::fs::write(&path, bytes).unwrap();
    for archive in [Archive::open(&path), Archive::from_bytes(&path, bytes)] {
        match archive {
            Ok(archive) => {
                let bytes_of = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
                let total: usize = archive.tensors().values().map(bytes_of).sum();
                assert!(total <= budget(bytes.len()), "{total} bytes");
                let small = archive.to_bytes(&|_| true).unwrap();
                let _ = from_bytes(&small);
                let _ = archive.write(&folder.path().join("again.pt2"), archive.tensors());
            }
            Err(error) => assert!(error.to_string().contains("hostile.pt2"), "{error}"),
        }
    }
    let _ = crate::weights::read(&path);
}

type Case<'c> = (&'c str, &'c dyn Fn(&mut Parts));

/// Each is what a valid archive becomes by `change`, and a part of what is said of it.
fn refused(cases: &[Case]) {
    for (part, change) in cases {
        let mut parts = Parts::small();
        change(&mut parts);
        let message = parts.refusal();
        assert!(message.contains("net.pt2: ") && message.contains(part), "{part}: {message}");
        survive(&parts.bytes());
    }
}

#[test]
fn other_releases_and_programs_say_what_to_do() {
    refused(&[
        ("schema 9.1, and only 8", &|p| {
            p.model["schema_version"] = json!({"major": 9, "minor": 1});
        }),
        ("no exported program", &|p| p.model = json!({"graph": []})),
        ("PyTorch 2.8", &|p| p.entries.push(("data/weights/model.pt".into(), vec![1]))),
        ("schema 9.0", &|p| {
            // Whatever else is new in it.
            p.model = json!({"schema_version": {"major": 9, "minor": 0}, "graph_module": 1});
            p.weights.clear();
        }),
        ("several networks", &|p| p.entries.push(("models/b.json".into(), vec![]))),
        ("\"big\"", &|p| *p.entry("byteorder") = b"big".to_vec()),
        ("\"1\", and only \"0\"", &|p| *p.entry("archive_version") = b"1".to_vec()),
        ("does not say pt2", &|p| *p.entry("archive_format") = b"pt1".to_vec()),
        ("pickles are not read", &|p| p.weights[0].1["use_pickle"] = json!(true)),
        ("has layout 1", &|p| p.weights[0].1["tensor_meta"]["layout"] = json!(1)),
    ]);
    let old = zipped(
        [("serialized_exported_program.json".to_owned(), &b"{}"[..])].into_iter(),
        CompressionMethod::Stored,
    );
    let message = from_bytes(&old).unwrap_err().to_string();
    assert!(message.contains("before 2.8"), "{message}");
    let compiled = [("net/archive_format", &b"pt2"[..]), ("net/data/aotinductor/model/a.so", b"")];
    let compiled = compiled.map(|(name, bytes)| (name.to_owned(), bytes));
    let compiled = zipped(compiled.into_iter(), CompressionMethod::Stored);
    let message = from_bytes(&compiled).unwrap_err().to_string();
    assert!(message.contains("compiled code"), "{message}");
}

#[test]
fn missing_entries_are_named() {
    for (name, _) in Parts::small().all_entries() {
        let parts = Parts::small();
        let entries = parts.all_entries().into_iter().filter(|(entry, _)| *entry != name);
        let entries: Vec<_> = entries.collect();
        let entries = entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..]));
        let bytes = zipped(entries, parts.method);
        survive(&bytes);
        let optional = ["version", "byteorder", "sample_inputs", "extra", "serialization_id"];
        if optional.iter().any(|part| name.contains(part)) {
            assert!(from_bytes(&bytes).is_ok(), "{name}");
        } else if !name.contains("weight_") && !name.contains("tensor_") {
            let message = from_bytes(&bytes).unwrap_err().to_string();
            assert!(message.contains(&name) || message.contains("no network"), "{message}");
        }
    }
    let message = Parts::small().without("data/weights/weight_1").refusal();
    assert!(message.contains("\"data/weights/weight_1\": it is missing"), "{message}");
}

#[test]
fn shapes_that_lie_are_refused() {
    let weight = |sizes: &[i64], strides: &[i64], offset: i64| {
        let mut meta = meta(7, sizes, strides);
        meta["storage_offset"] = json!({"as_int": offset});
        let (sizes, strides) = (sizes.to_vec(), strides.to_vec());
        move |parts: &mut Parts| {
            parts.weights[0].1["tensor_meta"] = meta.clone();
            let value = &mut parts.graph()["tensor_values"]["p_weight"];
            (value["sizes"], value["strides"]) = (numbers(&sizes), numbers(&strides));
        }
    };
    refused(&[
        ("beyond its storage", &weight(&[25], &[1], 0)),
        ("beyond its storage", &weight(&[24], &[1], 1)),
        ("beyond its storage", &weight(&[2, 2], &[23, 1], 0)),
        ("beyond its storage", &weight(&[1 << 20], &[1 << 40], 0)),
        ("more memory than the file", &weight(&[1 << 40], &[1], 0)),
        ("more memory than the file", &weight(&[1 << 40], &[0], 0)),
        ("can't be", &weight(&[i64::MAX, i64::MAX], &[0, 0], 0)),
        ("can't be", &weight(&[i64::MAX, 0, i64::MAX], &[i64::MAX, 1, i64::MAX], 0)),
        ("can't be", &weight(&[2], &[i64::MAX], i64::MAX)),
        ("can't be", &weight(&[-1], &[1], 0)),
        ("can't be", &weight(&[2], &[-1], 1)),
        ("can't be", &weight(&[2], &[1], -1)),
        ("can't be", &weight(&[2, 2], &[1], 0)),
        ("type 99", &|p| p.weights[0].1["tensor_meta"]["dtype"] = json!(99)),
        ("shape is open", &|p| {
            let open = json!({"as_expr": {"expr_str": "s", "hint": null}});
            p.weights[0].1["tensor_meta"]["sizes"][0] = open;
        }),
        ("neither type nor shape", &|p| p.weights[0].1["tensor_meta"] = Json::Null),
        ("other than 0 and 1", &|p| *p.entry("data/constants/tensor_1") = vec![1, 2]),
        ("no values", &|p| p.entry("data/weights/weight_0").clear()),
        ("but stored as", &|p| p.graph()["tensor_values"]["p_bias"]["dtype"] = json!(6)),
        ("but stored as", &|p| {
            p.graph()["tensor_values"]["p_bias"]["sizes"] = numbers(&[1, 2]);
        }),
        ("can't be", &|p| p.graph()["tensor_values"]["relu"]["sizes"][0] = json!({"as_int": -1})),
        ("can't be", &|p| {
            p.graph()["tensor_values"]["relu"]["sizes"] = numbers(&[i64::MAX, 3]);
        }),
        ("not in the folder", &|p| p.weights[0].1["path_name"] = json!("../../etc/passwd")),
        ("as its storage", &|p| p.weights[0].1["path_name"] = json!("model_weights_config.json")),
        ("twice", &|p| p.weights.push(p.weights[0].clone())),
        ("both in the state dict", &|p| p.constants[0].0 = "count".into()),
    ]);
}

#[test]
fn graphs_that_do_not_hold_together_are_refused() {
    refused(&[
        ("\"relu\", which nothing before", &|p| p.node(0)["inputs"][0]["arg"] = tensor("relu")),
        ("\"mul\", which nothing before", &|p| p.node(2)["inputs"][0]["arg"] = tensor("mul")),
        ("its result uses \"y\"", &|p| p.graph()["outputs"][0] = tensor("y")),
        ("\"relu\" a second time", &|p| p.node(2)["outputs"][0] = tensor("relu")),
        ("\"x\" a second time", &|p| p.node(2)["outputs"][0] = tensor("x")),
        ("\"n\" is not defined", &|p| {
            p.node(0)["inputs"][0]["arg"] = json!({"as_sym_int": {"as_name": "n"}});
        }),
        ("is empty", &|p| p.node(0)["inputs"][0]["arg"] = json!({})),
        ("is both", &|p| {
            p.node(0)["inputs"][0]["arg"] = json!({"as_int": 1, "as_ints": [1]});
        }),
        ("neither a value", &|p| p.node(0)["inputs"][0]["arg"] = json!({"as_sym_int": {}})),
        ("\"y\" is from is not said", &|p| {
            p.graph()["inputs"].as_array_mut().unwrap().push(tensor("y"));
        }),
        ("the graph has none", &|p| {
            p.graph()["inputs"].as_array_mut().unwrap().pop();
            p.node(0)["inputs"][1]["arg"] = tensor("p_bias");
        }),
        ("specified twice", &|p| {
            let specs = &mut p.model["graph_module"]["signature"]["input_specs"];
            specs[1]["parameter"]["arg"]["name"] = json!("p_weight");
        }),
        ("asks for the tensor \"fc\"", &|p| {
            let specs = &mut p.model["graph_module"]["signature"]["input_specs"];
            specs[1]["parameter"]["parameter_name"] = json!("fc");
        }),
        ("missing field", &|p| drop(p.graph().as_object_mut().unwrap().remove("nodes"))),
        ("no float", &|p| p.node(0)["inputs"][0]["arg"] = json!({"as_float": "much"})),
    ]);
}

#[test]
fn deep_and_broken_json_is_refused() {
    let depth = 1_000_000;
    let deep = ["{\"as_string_to_argument\":", "[", "{\"graph_module\":", "{\"config\":{\"a\":"];
    for opening in deep {
        let mut parts = Parts::small();
        for name in
            ["models/model.json", "data/weights/model_weights_config.json", super::archive::NOTES]
        {
            let text = opening.repeat(depth).into_bytes();
            parts.method = CompressionMethod::Stored;
            let mut entries = parts.all_entries();
            entries.retain(|(entry, _)| entry != name);
            entries.push((name.to_owned(), text));
            let entries = entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..]));
            let bytes = zipped(entries, parts.method);
            assert!(from_bytes(&bytes).unwrap_err().to_string().contains(name));
        }
    }
    let mut parts = Parts::small();
    parts.node(0)["inputs"][0]["arg"] = json!({"as_deep": null});
    let json = parts.model.to_string();
    let nested = "[".repeat(depth) + &"]".repeat(depth);
    let json = json.replace("\"as_deep\":null", &format!("\"as_deep\":{nested}"));
    let mut entries = parts.all_entries();
    entries[0].1 = json.into_bytes();
    let entries = entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..]));
    survive(&zipped(entries, CompressionMethod::Stored));
}

/// Every place of `needle` in `bytes` becomes `new`, of the same length.
fn replaced(bytes: &[u8], needle: &str, new: &str) -> Vec<u8> {
    assert_eq!(needle.len(), new.len());
    let mut bytes = bytes.to_vec();
    let places: Vec<usize> =
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(needle.as_bytes())).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + new.len()].copy_from_slice(new.as_bytes());
    }
    bytes
}

#[test]
fn zip_files_that_play_tricks_are_refused() {
    let valid = Parts::small().bytes();
    let said = |bytes: &[u8], part: &str| {
        let message = from_bytes(bytes).expect_err(part).to_string();
        assert!(message.contains(part), "{part}: {message}");
        survive(bytes);
    };
    said(&replaced(&valid, "net/data/weights/weight_1", "net/data/weights/weight_0"), "same name");
    said(&replaced(&valid, "net/extra/classes.txt", "net/../../classes.txt"), "outside its folder");
    said(
        &replaced(&valid, "net/extra/classes.txt", "net/extra\\classes.txt"),
        "outside its folder",
    );
    said(&replaced(&valid, "net/extra/classes.txt", "/etc/extra/classes.tx"), "outside its folder");
    said(&valid[..valid.len() / 2], "cut short");
    said(b"", "damaged");
    said(b"PK\x05\x06", "damaged");

    let mut bomb = Parts::small().with("zeros", meta(1, &[1 << 26], &[1]), vec![0; 1 << 26]);
    bomb.method = CompressionMethod::Deflated;
    said(&bomb.bytes(), "more memory than the file accounts for");

    // The directory's offset of the last entry becomes that of the first.
    let mut overlapping = valid.clone();
    let central = (0..valid.len()).rfind(|&at| valid[at..].starts_with(b"PK\x01\x02"));
    overlapping[central.unwrap() + 42..][..4].fill(0);
    said(&overlapping, "over each other");
    for field in [20, 24] {
        let mut huge = valid.clone();
        huge[central.unwrap() + field..][..4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        said(&huge, "");
    }
}

/// JSON that a change of a few characters made, in an archive that is otherwise whole.
fn with_text(which: usize, change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut entries = Parts::small().all_entries();
    change(&mut entries[which].1);
    let entries = entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..]));
    zipped(entries, CompressionMethod::Stored)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive(&bytes);
        survive(&[b"PK\x03\x04", bytes.as_slice()].concat());
    }

    #[test]
    fn any_change_of_a_valid_file_is_survived(
        small in any::<bool>(),
        damage in Damage::any(),
    ) {
        let mut bytes = Parts::small().bytes();
        if small {
            bytes = from_bytes(&bytes).unwrap().to_bytes(&|name| name != "conv.weight").unwrap();
        }
        damage.apply(&mut bytes);
        survive(&bytes);
    }

    #[test]
    fn any_change_of_the_json_is_survived(
        which in 0..3usize,
        at in any::<prop::sample::Index>(),
        length in 0..4usize,
        text in "[-0-9a-z\\{\\}\\[\\]\":,]{0,4}",
    ) {
        survive(&with_text(which, |json| {
            let start = at.index(json.len());
            json.splice(start..(start + length).min(json.len()), text.bytes());
        }));
    }

    #[test]
    fn any_numbers_in_a_layout_are_survived(
        sizes in proptest::collection::vec(number(), 0..4),
        strides in proptest::collection::vec(number(), 0..4),
        offset in number(),
        dtype in 0..40i64,
    ) {
        let mut parts = Parts::small();
        let mut meta = meta(dtype, &sizes, &strides);
        meta["storage_offset"] = json!({"as_int": offset});
        parts.weights[3].1["tensor_meta"] = meta;
        survive(&parts.bytes());
    }
}

/// Small, huge and negative numbers.
fn number() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..4i64, 1 => any::<i64>(), 1 => (0..63u32).prop_map(|bit| 1 << bit)]
}
