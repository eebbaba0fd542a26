//! Backbones loaded from shared libraries into a Rust program: ours, one
//! written with torch::nn, and libraries that break the interface.

use std::path::{Path, PathBuf};
use std::process::Command;

use backbone::models::{self, BuildOptions};
use backbone::plugin::{LIBTORCH_VERSION, Plugin, PluginBackbone};
use backbone::weights::{StateDict, write_safetensors};
use backbone::{Backbone, FeatureMap, Mode, PatchMask};
use tch::nn::{OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

/// The library that cargo built beside this test.
fn ours() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libspark_backbone.so")
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compiles with `program` into the shared library `name` in `folder`.
fn compile(program: &str, folder: &TempDir, name: &str, arguments: &[&str]) -> PathBuf {
    let library = folder.path().join(name);
    let output = Command::new(program)
        .args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-I"])
        .arg(here("include"))
        .args(arguments)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// A plugin that breaks the interface as `definitions` say.
fn faulty(folder: &TempDir, name: &str, definitions: &[&str]) -> PathBuf {
    let source = here("tests/plugins/faulty.c");
    let arguments = [&["-std=c11", source.to_str().unwrap()], definitions].concat();
    compile("cc", folder, name, &arguments)
}

/// A network built here, and its weights in a file.
fn rust_network(name: &str, file: &Path) -> (Box<dyn Backbone>, VarStore) {
    let store = VarStore::new(Device::Cpu);
    let model = models::find(name).unwrap();
    let network = model.build(&store.root(), &BuildOptions::default()).unwrap();
    let tensors: StateDict = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for (name, tensor) in &tensors {
            // A norm's weight of 0 would hide the block behind it.
            if name.ends_with("weight") && tensor.dim() == 1 {
                let _ = tensor.shallow_clone().uniform_(0.5, 1.5);
            }
        }
    });
    write_safetensors(file, &tensors, &Default::default()).unwrap();
    (network, store)
}

fn maps(network: &dyn Backbone, images: &Tensor, mode: &Mode) -> Vec<Tensor> {
    let maps = network.forward(&FeatureMap::Grid(images.shallow_clone()), mode).unwrap();
    maps.iter().map(FeatureMap::to_grid).collect()
}

fn sum_of_squares(maps: &[Tensor]) -> Tensor {
    let squares: Vec<Tensor> = maps.iter().map(|map| map.square().mean(Kind::Float)).collect();
    Tensor::stack(&squares, 0).sum(Kind::Float)
}

fn refusal(result: backbone::Result<impl std::fmt::Debug>) -> String {
    result.unwrap_err().to_string()
}

/// Every bit: the same operators run in the same order on the same numbers.
#[test]
fn features_and_gradients_are_those_of_the_network_itself() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = Plugin::open(ours()).unwrap();
    for name in ["resnet18", "convnext_tiny"] {
        let file = folder.path().join(format!("{name}.safetensors"));
        let (network, store) = rust_network(name, &file);
        let config = serde_json::json!({ "model": name, "weights": file }).to_string();
        let loaded = plugin.create(&config).unwrap();
        assert_eq!(loaded.stages(), network.stages());
        assert_eq!((loaded.in_chans(), loaded.total_stride()), (3, 32));

        let images = Tensor::randn([2, 3, 64, 96], CPU);
        for mode in [Mode::eval(), Mode::train(), Mode::train().with_norm_eval(true)] {
            let expected = maps(network.as_ref(), &images, &mode);
            let got = maps(&loaded, &images, &mode);
            assert_eq!((expected.len(), got.len()), (4, 4));
            assert!(expected.iter().zip(&got).all(|(a, b)| a.equal(b)), "{name} {mode:?}");
            sum_of_squares(&expected).backward();
            sum_of_squares(&got).backward();
        }
        let variables = store.variables();
        // No map depends on ConvNeXt's last norm.
        let kept = variables.keys().filter(|name| name.starts_with("norm.")).count();
        assert_eq!(loaded.parameters().len() + loaded.buffers().len() + kept, variables.len());
        for (name, tensor) in loaded.parameters() {
            assert!(
                tensor.is_contiguous() && variables[name].grad().equal(&tensor.grad()),
                "{name}"
            );
        }
        for (name, tensor) in loaded.buffers() {
            assert!(variables[name].equal(tensor), "{name}");
        }
    }
}

#[test]
fn a_registered_plugin_is_trained_by_the_hosts_optimizer() {
    let plugin = Plugin::open(ours()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let weights = folder.path().join("weights.safetensors");
    rust_network("resnet18", &weights);
    let config =
        serde_json::json!({ "model": "resnet18", "weights": weights, "out_indices": [1, 3] });
    let network = plugin.create(&config.to_string()).unwrap();
    assert_eq!(network.stages().iter().map(|s| s.stride).collect::<Vec<_>>(), [8, 32]);
    network.freeze(2).unwrap();

    let store = VarStore::new(Device::Cpu);
    network.register(&(store.root() / "backbone")).unwrap();
    let variables = store.variables();
    let frozen = |name: &str| {
        name.starts_with("conv1") || name.starts_with("bn1") || name.starts_with("layer1")
    };
    for (name, tensor) in network.parameters() {
        let registered = &variables[&format!("backbone.{name}")];
        assert_eq!(registered.requires_grad(), !frozen(name), "{name}");
        assert_eq!(registered.data_ptr(), tensor.data_ptr(), "{name}");
    }
    let before: Vec<Tensor> = network.parameters().iter().map(|(_, t)| t.copy()).collect();
    let images = Tensor::randn([2, 3, 64, 64], CPU);
    let mut optimizer = tch::nn::Sgd::default().build(&store, 0.1).unwrap();
    optimizer.backward_step(&sum_of_squares(&maps(&network, &images, &Mode::train())));
    for ((name, tensor), before) in network.parameters().iter().zip(before) {
        assert_eq!(tensor.equal(&before), frozen(name), "{name}");
    }
    // Frozen batch norms keep their statistics.
    for (name, tensor) in network.buffers() {
        let fresh = if name.ends_with("running_var") { 1.0 } else { 0.0 };
        let kept = tensor.eq(fresh).all().int64_value(&[]) == 1;
        assert_eq!(kept, frozen(name), "{name}");
    }
}

#[test]
fn a_network_of_ones_own_is_loaded_like_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (include, lib) = (env!("SPARK_LIBTORCH_INCLUDE"), env!("SPARK_LIBTORCH_LIB"));
    let source = here("examples/plugin/own_backbone.cpp");
    let api = format!("{include}/torch/csrc/api/include");
    let library = compile(
        "c++",
        &folder,
        "libown_backbone.so",
        &[
            "-std=c++17",
            "-O1",
            "-fvisibility=hidden",
            source.to_str().unwrap(),
            "-isystem",
            include,
            "-isystem",
            &api,
            "-L",
            lib,
            "-ltorch_cpu",
            "-lc10",
        ],
    );
    let plugin = Plugin::open(&library).unwrap();
    let error = refusal(plugin.create("resnet50"));
    assert!(error.contains("libown_backbone.so") && error.contains("\"own\""), "{error}");

    let network = plugin.create("own").unwrap();
    assert_eq!(network.stages().iter().map(|s| s.channels).collect::<Vec<_>>(), [16, 32]);
    let images = Tensor::randn([2, 3, 32, 32], CPU);
    let got = maps(&network, &images, &Mode::train());
    assert_eq!(got[1].size(), [2, 32, 8, 8]);
    sum_of_squares(&got).backward();
    assert!(network.parameters().iter().all(|(_, tensor)| tensor.grad().defined()));
    let statistics = |network: &PluginBackbone| network.buffers()[0].1.copy();
    let trained = statistics(&network);
    maps(&network, &images, &Mode::eval());
    assert!(statistics(&network).equal(&trained), "evaluation leaves the statistics");

    let error = refusal(network.freeze(1));
    assert!(error.contains("nothing can be frozen"), "{error}");
    let thin = FeatureMap::Grid(Tensor::randn([2, 4, 32, 32], CPU));
    let error = refusal(network.forward(&thin, &Mode::eval()));
    assert!(error.contains("to have 3 channels, but got 4"), "{error}");
}

#[test]
fn what_the_interface_cannot_express_is_refused() {
    let network = Plugin::open(ours()).unwrap().create("resnet18").unwrap();
    let images = Tensor::randn([1, 3, 64, 64], CPU);
    let grid = FeatureMap::Grid(images.shallow_clone());
    let mask = PatchMask::all_visible(1, (2, 2), Device::Cpu).unwrap();
    let patches = FeatureMap::patches(&images, &mask).unwrap();
    for (map, mode, expected) in [
        (&patches, Mode::eval(), "input is masked, but a plugin runs on whole grids only"),
        (&grid, Mode::eval().with_compute(Kind::BFloat16), "compute is set, but a plugin"),
        (&grid, Mode::train().with_freeze_at(2), "is frozen at 0: call its freeze()"),
    ] {
        let error = refusal(network.forward(map, &mode));
        assert!(error.contains(expected), "{error}");
    }
    let error =
        refusal(network.forward(&FeatureMap::Grid(images.to_kind(Kind::Double)), &Mode::eval()));
    let expected = "input's type is float64, but the backbone's type is float32";
    assert!(error.contains("libspark_backbone.so") && error.contains(expected), "{error}");
    let error = refusal(network.load("/nowhere/r18.pth", true));
    assert!(error.contains("/nowhere/r18.pth"), "{error}");
    let error = refusal(network.freeze(7));
    assert!(error.contains("freeze_at is 7"), "{error}");
}

#[test]
fn a_library_that_cannot_be_used_is_refused_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.so");
    std::fs::write(&text, "not a library").unwrap();
    let compile = |name, definitions: &[&str]| faulty(&folder, name, definitions);
    for (path, expected) in [
        (folder.path().join("none.so"), "there is no such file"),
        (text, "it cannot be loaded"),
        (
            compile("abi.so", &["-DABI=2"]),
            "it has version 2 of the interface, but this program speaks version 1",
        ),
        (
            compile("torch.so", &["-DLIBTORCH=\"2.7.1\""]),
            &format!(
                "it is built against libtorch 2.7.1, but this program against {LIBTORCH_VERSION}"
            ),
        ),
        (
            compile("symbol.so", &["-DWITHOUT_TRAINING"]),
            "it has no function spark_backbone_set_training",
        ),
    ] {
        let error = refusal(Plugin::open(&path));
        assert!(error.starts_with(&path.display().to_string()), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_library_that_breaks_its_promises_is_found_out() {
    let folder = tempfile::tempdir().unwrap();
    let open =
        |name, definitions: &[&str]| Plugin::open(faulty(&folder, name, definitions)).unwrap();
    let sound = open("sound.so", &[]);
    assert!(refusal(sound.create("loud")).ends_with("sound.so: no, says the plugin"));
    assert!(refusal(sound.create("silent")).ends_with("status 6, no text"));
    let error = refusal(open("levels.so", &["-DSTRIDE=0"]).create("any"));
    assert!(error.contains("stride: 0") && error.contains("ascending strides"), "{error}");
    let error = refusal(open("config.so", &["-DCONFIG=\"{\""]).create("any"));
    assert!(error.contains("its settings are no JSON"), "{error}");

    let network = sound.create("any").unwrap();
    let images = FeatureMap::Grid(Tensor::zeros([1, 3, 8, 8], CPU));
    let error = refusal(network.forward(&images, &Mode::eval()));
    assert!(error.ends_with("a call succeeded, but handed out no tensor"), "{error}");
}

/// libtorch would end the process when the same class is registered twice.
#[test]
fn a_second_copy_is_refused() {
    let first = Plugin::open(ours()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.so");
    std::fs::copy(ours(), &copy).unwrap();
    let error = refusal(Plugin::open(&copy).and_then(|second| second.create("resnet18")));
    assert!(error.contains("copy.so: libspark_backbone is loaded twice"), "{error}");
    first.create("resnet18").unwrap();
    Plugin::open(ours()).unwrap().create("resnet18").unwrap();
}
