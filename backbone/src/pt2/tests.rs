//! Archives made here, entry by entry.

use std::io::{Cursor, Write};
use std::path::Path;

use serde_json::{Value as Json, json};
use tch::{Kind, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

mod hostile;
mod read;
mod write;

/// The parts of an archive, to be changed before they are put together.
#[derive(Clone)]
struct Parts {
    model: Json,
    /// In order.
    weights: Vec<(String, Json)>,
    constants: Vec<(String, Json)>,
    /// The other entries, storages among them.
    entries: Vec<(String, Vec<u8>)>,
    method: CompressionMethod,
}

impl Parts {
    /// `relu(conv2d(x, weight, bias)) * shift + head`: a channels-last weight, a scalar buffer
    /// beside the state dict, a constant, and a head tied to the bias.
    fn small() -> Self {
        let weight: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let entries = [
            ("archive_format", b"pt2".to_vec()),
            ("archive_version", b"0".to_vec()),
            ("byteorder", b"little".to_vec()),
            (".data/version", b"6\n".to_vec()),
            (".data/serialization_id", b"0123".to_vec()),
            ("data/sample_inputs/model.pt", b"a pickle".to_vec()),
            ("extra/classes.txt", b"cat dog".to_vec()),
            ("data/weights/weight_0", floats(&weight)),
            ("data/weights/weight_1", floats(&[0.5, 1.5])),
            ("data/weights/weight_2", 7i64.to_le_bytes().to_vec()),
            ("data/constants/tensor_0", floats(&[2.0])),
            ("data/constants/tensor_1", vec![1, 0]),
        ];
        Self {
            model: model(),
            // 2×3×2×2 in channels-last order, two names of one storage, an integer.
            weights: vec![
                stored("conv.weight", "weight_0", true, meta(7, &[2, 3, 2, 2], &[12, 1, 6, 3])),
                stored("conv.bias", "weight_1", true, meta(7, &[2], &[1])),
                stored("head.bias", "weight_1", true, meta(7, &[2], &[1])),
                stored("count", "weight_2", false, meta(5, &[], &[])),
            ],
            constants: vec![
                stored("shift", "tensor_0", false, meta(7, &[], &[])),
                stored("flags", "tensor_1", false, meta(12, &[2], &[1])),
            ],
            entries: entries.map(|(name, bytes)| (name.to_owned(), bytes)).to_vec(),
            method: CompressionMethod::Stored,
        }
    }

    fn graph(&mut self) -> &mut Json {
        &mut self.model["graph_module"]["graph"]
    }

    fn node(&mut self, index: usize) -> &mut Json {
        &mut self.graph()["nodes"][index]
    }

    /// The bytes of the entry `name`.
    fn entry(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.entries.iter_mut().find(|(entry, _)| entry == name).unwrap().1
    }

    fn without(mut self, name: &str) -> Self {
        self.entries.retain(|(entry, _)| entry != name);
        self
    }

    /// Another tensor in the state dict, in a storage of its own.
    fn with(mut self, name: &str, meta: Json, bytes: Vec<u8>) -> Self {
        let path = format!("weight_of_{name}");
        self.weights.push(stored(name, &path, false, meta));
        self.entries.push((format!("data/weights/{path}"), bytes));
        self
    }

    fn all_entries(&self) -> Vec<(String, Vec<u8>)> {
        let json = [
            ("models/model.json", self.model.to_string()),
            ("data/weights/model_weights_config.json", config(&self.weights)),
            ("data/constants/model_constants_config.json", config(&self.constants)),
        ];
        let json = json.map(|(name, json)| (name.to_owned(), json.into_bytes()));
        [&json[..], &self.entries].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let entries = self.all_entries();
        zipped(entries.iter().map(|(name, bytes)| (format!("net/{name}"), &bytes[..])), self.method)
    }

    /// Reads it as a file, with all tensors.
    fn open(&self) -> crate::Result<Archive> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("net.pt2");
        std::fs::write(&path, self.bytes()).unwrap();
        Archive::open(&path)
    }

    /// What is said of it.
    fn refusal(&self) -> String {
        self.open().expect_err("it is wrong").to_string()
    }
}

fn zipped<'b>(
    entries: impl Iterator<Item = (String, &'b [u8])>,
    method: CompressionMethod,
) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(method);
        zip.start_file(name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn numbers(values: &[i64]) -> Json {
    values.iter().map(|value| json!({"as_int": value})).collect()
}

fn meta(dtype: i64, sizes: &[i64], strides: &[i64]) -> Json {
    json!({
        "dtype": dtype, "sizes": numbers(sizes), "strides": numbers(strides),
        "storage_offset": {"as_int": 0}, "layout": 7, "requires_grad": false,
        "device": {"type": "cpu", "index": null},
    })
}

fn stored(name: &str, path: &str, is_param: bool, meta: Json) -> (String, Json) {
    let json =
        json!({"path_name": path, "is_param": is_param, "use_pickle": false, "tensor_meta": meta});
    (name.to_owned(), json)
}

/// The list of tensors in their order, which [`Json`] would not keep.
fn config(tensors: &[(String, Json)]) -> String {
    let entries: Vec<String> =
        tensors.iter().map(|(name, meta)| format!("{}:{meta}", json!(name))).collect();
    format!("{{\"config\":{{{}}}}}", entries.join(","))
}

fn tensor(name: &str) -> Json {
    json!({"as_tensor": {"name": name}})
}

fn node(target: &str, inputs: Json, output: &str) -> Json {
    let inputs: Vec<Json> = inputs
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, arg)| json!({"name": name, "arg": arg, "kind": 1}))
        .collect();
    json!({"target": target, "inputs": inputs, "outputs": [tensor(output)], "metadata": {
        "nn_module_stack": "L__self__,,net.Net;L__self__conv,conv,torch.nn.modules.conv.Conv2d",
        "stack_trace": "File \"net.py\", line 7, in forward\n    x = self.conv(x)",
    }})
}

fn model() -> Json {
    let inputs = ["p_weight", "p_bias", "b_shift", "c_flags", "x"];
    let map = || meta(7, &[1, 2, 3, 3], &[18, 9, 3, 1]);
    json!({
        "graph_module": {
            "graph": {
                "inputs": inputs.map(tensor),
                "outputs": [tensor("mul")],
                "nodes": [
                    node("torch.ops.aten.conv2d.default", json!({
                        "input": tensor("x"), "weight": tensor("p_weight"),
                        "bias": tensor("p_bias"),
                    }), "conv2d"),
                    node("torch.ops.aten.relu.default", json!({"self": tensor("conv2d")}), "relu"),
                    node("torch.ops.aten.mul.Tensor", json!({
                        "self": tensor("relu"), "other": tensor("b_shift"),
                    }), "mul"),
                ],
                "tensor_values": {
                    "p_weight": meta(7, &[2, 3, 2, 2], &[12, 1, 6, 3]),
                    "p_bias": meta(7, &[2], &[1]),
                    "b_shift": meta(7, &[], &[]),
                    "c_flags": meta(12, &[2], &[1]),
                    "x": meta(7, &[1, 3, 4, 4], &[48, 16, 4, 1]),
                    "conv2d": map(), "relu": map(), "mul": map(),
                },
                "sym_int_values": {}, "sym_bool_values": {}, "a_new_field": [1],
            },
            "signature": {
                "input_specs": [
                    {"parameter": {"arg": {"name": "p_weight"}, "parameter_name": "conv.weight"}},
                    {"parameter": {"arg": {"name": "p_bias"}, "parameter_name": "conv.bias"}},
                    {"buffer": {"arg": {"name": "b_shift"}, "buffer_name": "shift",
                                "persistent": false}},
                    {"tensor_constant": {"arg": {"name": "c_flags"},
                                         "tensor_constant_name": "flags"}},
                    {"user_input": {"arg": tensor("x")}},
                ],
                "output_specs": [],
            },
        },
        "opset_version": {"aten": 10},
        "schema_version": {"major": 8, "minor": 20},
        "torch_version": "2.13.0",
    })
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

fn from_bytes(bytes: &[u8]) -> crate::Result<Archive> {
    Archive::from_bytes(Path::new("bytes"), bytes)
}
