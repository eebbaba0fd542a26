//! What is read.

use super::*;

#[test]
fn the_graph_is_read() {
    let archive = Parts::small().open().unwrap();
    let program = archive.program();
    assert_eq!(program.torch_version, "2.13.0");
    let input = |name: &str, source| Input { name: name.into(), source };
    assert_eq!(
        program.inputs,
        [
            input("p_weight", Source::Parameter("conv.weight".into())),
            input("p_bias", Source::Parameter("conv.bias".into())),
            input("b_shift", Source::Buffer("shift".into())),
            input("c_flags", Source::Constant("flags".into())),
            input("x", Source::User),
        ]
    );
    assert_eq!(program.nodes.len(), 3);
    let argument = |name: &str, tensor: &str| (name.into(), Value::Tensor(tensor.into()));
    let mut conv = program.nodes[0].clone();
    conv.arguments.sort_by_key(|(name, _)| name.clone());
    assert_eq!(
        conv,
        Node {
            target: "torch.ops.aten.conv2d.default".into(),
            arguments: vec![
                argument("bias", "p_bias"),
                argument("input", "x"),
                argument("weight", "p_weight"),
            ],
            outputs: vec![Output::Tensor("conv2d".into())],
            module: "conv".into(),
            class: "torch.nn.modules.conv.Conv2d".into(),
            location: Some(("net.py:7".into(), "x = self.conv(x)".into())),
        }
    );
    assert_eq!(program.outputs, [Value::Tensor("mul".into())]);
    let size = vec![1, 2, 3, 3];
    assert_eq!(program.tensors["relu"], TensorMeta { kind: Some(Kind::Float), size });
}

#[test]
fn tensors_have_the_files_strides_and_aliases() {
    let archive = Parts::small().open().unwrap();
    let names: Vec<&String> = archive.tensors().keys().collect();
    assert_eq!(names, ["conv.bias", "conv.weight", "count", "flags", "head.bias", "shift"]);
    assert_eq!(
        archive.state_names().collect::<Vec<_>>(),
        ["conv.weight", "conv.bias", "head.bias", "count"]
    );
    let weight = &archive.tensors()["conv.weight"];
    assert_eq!((weight.size(), weight.stride()), (vec![2, 3, 2, 2], vec![12, 1, 6, 3]));
    assert_eq!(weight.double_value(&[1, 2, 0, 1]), 12.0 + 2.0 + 3.0);
    assert_eq!(archive.tensors()["count"].int64_value(&[]), 7);
    assert_eq!(archive.tensors()["flags"].kind(), Kind::Bool);
    let _ = archive.tensors()["head.bias"].shallow_clone().fill_(3.0);
    assert_eq!(values(&archive.tensors()["conv.bias"]), [3.0, 3.0]);
    for (name, parameter) in [("conv.weight", true), ("count", false), ("flags", false)] {
        assert_eq!(archive.is_parameter(name), parameter, "{name}");
    }
    let meta = TensorMeta { kind: Some(Kind::Int64), size: vec![] };
    assert_eq!((archive.meta("count"), archive.meta("fc")), (Some(meta), None));
}

#[test]
fn views_begin_and_step_where_they_say() {
    let mut parts = Parts::small();
    let row: Vec<f32> = (0..8).map(|i| i as f32).collect();
    for (name, offset, sizes, strides) in [
        ("row", 4, &[4][..], &[1][..]),
        ("turned", 0, &[4, 2], &[1, 4]),
        ("spread", 3, &[2, 3], &[0, 2]),
        ("empty", 9, &[0, 3], &[3, 1]),
    ] {
        let mut meta = meta(7, sizes, strides);
        meta["storage_offset"] = json!({"as_int": offset});
        parts = parts.with(name, meta, floats(&row));
    }
    let archive = parts.open().unwrap();
    let read = |name: &str| values(&archive.tensors()[name]);
    assert_eq!(read("row"), [4.0, 5.0, 6.0, 7.0]);
    assert_eq!(read("turned"), [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]);
    assert_eq!(read("spread"), [3.0, 5.0, 7.0, 3.0, 5.0, 7.0]);
    assert_eq!(archive.tensors()["empty"].size(), [0, 3]);
}

#[test]
fn every_type_is_read_or_said_to_be_left_out() {
    let one: [(i64, Vec<u8>, Kind); 14] = [
        (1, vec![1], Kind::Uint8),
        (2, vec![1], Kind::Int8),
        (3, 1i16.to_le_bytes().into(), Kind::Int16),
        (4, 1i32.to_le_bytes().into(), Kind::Int),
        (5, 1i64.to_le_bytes().into(), Kind::Int64),
        (6, vec![0, 0x3c], Kind::Half),
        (7, 1f32.to_le_bytes().into(), Kind::Float),
        (8, 1f64.to_le_bytes().into(), Kind::Double),
        (12, vec![1], Kind::Bool),
        (13, vec![0x80, 0x3f], Kind::BFloat16),
        (29, vec![0x38], Kind::Float8e4m3fn),
        (30, vec![0x3c], Kind::Float8e5m2),
        (31, vec![0x40], Kind::Float8e4m3fnuz),
        (32, vec![0x40], Kind::Float8e5m2fnuz),
    ];
    let mut parts = Parts::small();
    for (number, bytes, _) in &one {
        parts = parts.with(&format!("type {number}"), meta(*number, &[1], &[1]), bytes.clone());
    }
    let lacking =
        [(28, 2, "uint16"), (33, 1, "float8_e8m0fnu"), (34, 4, "uint32"), (35, 8, "uint64")];
    for (number, width, _) in lacking {
        parts = parts.with(&format!("type {number}"), meta(number, &[1], &[1]), vec![0; width]);
    }
    parts = parts.with("type 10", meta(10, &[1], &[1]), floats(&[1.0, 2.0]));
    let archive = parts.open().unwrap();
    for (number, _, kind) in one {
        let tensor = &archive.tensors()[&format!("type {number}")];
        assert_eq!((tensor.kind(), tensor.to_kind(Kind::Float).double_value(&[0])), (kind, 1.0));
    }
    assert_eq!(archive.tensors()["type 10"].kind(), Kind::ComplexFloat);
    for (number, _, name) in lacking {
        let why = &archive.left_out()[&format!("type {number}")];
        assert!(why.contains(name), "{why}");
    }
}

#[test]
fn arguments_of_every_type() {
    let symbol = |hint: Json| json!({"as_expr": {"expr_str": "s0", "hint": hint}});
    let mut parts = Parts::small();
    parts.graph()["sym_int_values"] = json!({
        "height": symbol(json!({"as_int": 64})), "items": symbol(Json::Null),
        "fixed": {"as_int": 3},
    });
    parts.graph()["sym_float_values"] = json!({"scale": symbol(json!({"as_float": 0.5}))});
    parts.graph()["sym_bool_values"] = json!({"wide": symbol(json!({"as_bool": true}))});
    parts.graph()["tensor_values"]["x"]["sizes"][2] = symbol(json!({"as_int": 4}));
    parts.graph()["tensor_values"]["conv2d"]["sizes"][2] = symbol(Json::Null);
    let cases = [
        (json!({"as_none": true}), Value::None),
        (tensor("x"), Value::Tensor("x".into())),
        (json!({"as_tensors": [{"name": "x"}]}), Value::Tensors(vec![Some("x".into())])),
        (
            json!({"as_optional_tensors": [{"as_none": true}, tensor("x")]}),
            Value::Tensors(vec![None, Some("x".into())]),
        ),
        (json!({"as_optional_tensor": tensor("x")}), Value::Tensor("x".into())),
        (json!({"as_optional_tensor": {"as_none": true}}), Value::None),
        (json!({"as_int": i64::MAX}), Value::Int(i64::MAX)),
        (json!({"as_ints": [1, -2]}), Value::Ints(vec![1, -2])),
        (json!({"as_float": 1e-5}), Value::Float(1e-5)),
        (json!({"as_float": "-Infinity"}), Value::Float(f64::NEG_INFINITY)),
        (json!({"as_floats": [1, "Infinity"]}), Value::Floats(vec![1.0, f64::INFINITY])),
        (json!({"as_bool": false}), Value::Bool(false)),
        (json!({"as_bools": [true]}), Value::Bools(vec![true])),
        (json!({"as_string": "none"}), Value::Text("none".into())),
        (json!({"as_sym_int": {"as_name": "height"}}), Value::Int(64)),
        (json!({"as_sym_ints": [{"as_name": "fixed"}, {"as_int": 2}]}), Value::Ints(vec![3, 2])),
        (json!({"as_sym_float": {"as_name": "scale"}}), Value::Float(0.5)),
        (json!({"as_sym_bool": {"as_name": "wide"}}), Value::Bool(true)),
        (json!({"as_scalar_type": 13}), Value::Kind(Some(Kind::BFloat16))),
        (json!({"as_scalar_type": 35}), Value::Kind(None)),
        (json!({"as_device": {"type": "cpu", "index": null}}), Value::Placement),
        (json!({"as_memory_format": 2}), Value::Placement),
        (json!({"as_layout": 7}), Value::Placement),
        (json!({"as_graph": {"name": "sub", "graph": {}}}), Value::Other("graph".into())),
        (json!({"as_something_new": [{}]}), Value::Other("something_new".into())),
        (
            json!({"as_sym_ints": [{"as_int": 2}, {"as_name": "items"}]}),
            Value::Other("number that depends on the data".into()),
        ),
    ];
    for (argument, _) in &cases {
        let argument = json!({"name": "a", "arg": argument});
        parts.node(0)["inputs"].as_array_mut().unwrap().push(argument);
    }
    let results = json!([{"as_sym_int": {"as_name": "height"}}, {"as_none": true}, tensor("conv2d"),
        {"as_tensors": [{"name": "a"}, {"name": "b"}]}]);
    parts.node(0)["outputs"] = results;
    let archive = parts.open().unwrap();
    let node = &archive.program().nodes[0];
    for ((argument, expected), (_, found)) in cases.iter().zip(&node.arguments[3..]) {
        assert_eq!(found, expected, "{argument}");
    }
    let names = Output::Tensors(vec!["a".into(), "b".into()]);
    let conv = Output::Tensor("conv2d".into());
    assert_eq!(node.outputs, [Output::Scalar("height".into()), Output::None, conv, names]);
    assert_eq!(archive.program().tensors["x"].size, [1, 3, 4, 4]);
    assert!(!archive.program().tensors.contains_key("conv2d"), "its shape depends on the data");
}

#[test]
fn inputs_that_are_no_tensors_were_fixed() {
    let mut parts = Parts::small();
    let graph = parts.graph();
    graph["inputs"].as_array_mut().unwrap().extend([
        json!({"as_int": 3}),
        json!({"as_custom_obj": {"name": "o", "class_fqn": "C"}}),
        json!({"as_sym_int": {"as_name": "n"}}),
    ]);
    graph["sym_int_values"]["n"] = json!({"as_expr": {"expr_str": "n", "hint": {"as_int": 2}}});
    let specs = parts.model["graph_module"]["signature"]["input_specs"].as_array_mut().unwrap();
    specs.extend([
        json!({"constant_input": {"name": "k", "value": {"as_int": 3}}}),
        json!({"custom_obj": {"arg": {"name": "o", "class_fqn": "C"}, "custom_obj_name": "o"}}),
        json!({"user_input": {"arg": {"as_sym_int": {"as_name": "n"}}}}),
    ]);
    let archive = parts.open().unwrap();
    let user = archive.program().inputs.iter().filter(|input| input.source == Source::User);
    assert_eq!(user.map(|input| input.name.as_str()).collect::<Vec<_>>(), ["x", "n"]);
}

#[test]
fn other_folders_do_not_matter() {
    let entries = Parts::small().all_entries();
    let ours = entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..]));
    let theirs = ["__MACOSX/net/._data", "__MACOSX/", "net/", "note.txt"];
    let all = theirs.iter().map(|name| ((*name).to_owned(), &b""[..])).chain(ours);
    let archive = from_bytes(&zipped(all, CompressionMethod::Deflated)).unwrap();
    assert_eq!(archive.tensors().len(), 6);
    let small = archive.to_bytes(&|_| true).unwrap();
    assert_eq!(from_bytes(&small).unwrap().tensors().len(), 6);
}

#[test]
fn a_state_dict_is_a_weight_file() {
    let parts = Parts::small().with("f8", meta(29, &[1], &[1]), vec![0x38]).with(
        "c",
        meta(10, &[1], &[1]),
        vec![0; 8],
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.bin");
    std::fs::write(&path, parts.bytes()).unwrap();
    let file = crate::weights::read(&path).unwrap();
    assert_eq!(file.format, crate::weights::Format::ExportedProgram);
    let names: Vec<&String> = file.tensors.keys().collect();
    assert_eq!(names, ["conv.bias", "conv.weight", "count", "f8", "head.bias"]);
    assert_eq!(file.tensors["conv.weight"].double_value(&[1, 2, 0, 1]), 17.0);
    assert_eq!(file.tensors["f8"].kind(), Kind::Float);
    assert!(file.left_out["c"].contains("complex64"));
    assert_eq!(file.metadata["torch_version"], "2.13.0");
    assert_eq!(file.metadata["schema_version"], "8.20");
}
