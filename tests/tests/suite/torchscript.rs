//! A backbone inside a TorchScript module: scripted and saved by Python, loaded
//! and trained by a C++ program that has no header of ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use backbone::models::{self, BuildOptions};
use backbone::weights::{StateDict, write_safetensors};
use backbone::{FeatureMap, Mode};
use spark_tests::run_python;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Compiles `tests/cpp/scripted.cpp`.
fn compile(program: &Path) {
    let (include, lib) = (env!("SPARK_LIBTORCH_INCLUDE"), env!("SPARK_LIBTORCH_LIB"));
    let output = Command::new("c++")
        .args(["-std=c++20", "-O0", "-isystem", include])
        .args(["-isystem", &format!("{include}/torch/csrc/api/include")])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("cpp/scripted.cpp"))
        .args(["-L", lib, "-ltorch", "-ltorch_cpu", "-lc10", &format!("-Wl,-rpath,{lib}")])
        .arg("-o")
        .arg(program)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Whether the file at `path` holds exactly the values of `expected`.
fn holds(path: &Path, expected: &Tensor) -> bool {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let values = bytes.chunks_exact(4).map(|v| f32::from_ne_bytes([v[0], v[1], v[2], v[3]]));
    let values: Vec<f32> = values.collect();
    Tensor::from_slice(&values).equal(&expected.flatten(0, -1))
}

#[test]
fn a_scripted_backbone_runs_in_a_plain_cpp_program() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let store = VarStore::new(Device::Cpu);
    let model = models::find("resnet18").unwrap();
    let network = model.build(&store.root(), &BuildOptions::default()).unwrap();
    let variables: StateDict = store.variables().into_iter().collect();
    write_safetensors(path("weights.safetensors"), &variables, &Default::default()).unwrap();
    let images = Tensor::randn([2, 3, 64, 64], (Kind::Float, Device::Cpu));
    let batch = StateDict::from([("images".to_owned(), images.shallow_clone())]);
    write_safetensors(path("images.safetensors"), &batch, &Default::default()).unwrap();

    let library = std::env::current_exe().unwrap().with_file_name("libspark_backbone.so");
    let inputs = [path("weights.safetensors"), path("images.safetensors")];
    run_python("scripted_module.py", &[&library, &inputs[0], &inputs[1], folder.path()]);
    compile(&path("scripted"));
    let output = Command::new(path("scripted"))
        .args([library.as_path(), &path("module.pt"), &path("images.pkl"), folder.path()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let refusal = String::from_utf8_lossy(&output.stdout);
    let expected = "input is [3, 64, 64], but the backbone takes [N, 3, H, W]";
    assert!(refusal.contains(expected), "{refusal}");

    // Every bit: the same operators in the same order.
    let images = FeatureMap::Grid(images);
    let maps = network.forward(&images, &Mode::eval()).unwrap();
    for (level, map) in maps.iter().enumerate() {
        assert!(holds(&path(&format!("eval{level}")), map.tensor()), "level {level}");
    }
    let maps = network.forward(&images, &Mode::train()).unwrap();
    maps[3].tensor().square().mean(Kind::Float).backward();
    let mut compared = 0;
    for (name, tensor) in variables.iter().filter(|(_, tensor)| tensor.requires_grad()) {
        assert!(holds(&path(&format!("grad.{name}")), &tensor.grad()), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 60);
}
