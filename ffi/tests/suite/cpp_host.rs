//! The shared library in a C++ program on libtorch, through
//! `spark/backbone.hpp`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::common::{cc, compile, cxx, folder, read_floats, said, succeed, write_floats};
use backbone::models::{self, BuildOptions};
use backbone::weights::{StateDict, write_safetensors};
use backbone::{FeatureMap, Mode};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use test_hub::{File, Hub, Side};

/// The program in C++17, linked by GNU ld; compiled once. In C++20 CMake builds the examples.
fn host() -> &'static Path {
    static HOST: OnceLock<PathBuf> = OnceLock::new();
    HOST.get_or_init(|| compile(cxx(), &["-std=c++17", "-fuse-ld=bfd"], "host.cpp", "host_cpp17"))
}

/// One thread for each forward: how libtorch splits sums among threads, and so
/// the last bits, depends on how many it has.
fn run(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("OMP_NUM_THREADS", "1");
    command
}

#[test]
fn it_is_a_module_like_any_other() {
    succeed(run(host()).arg("module").arg(folder("cpp_module")));
}

#[cfg(torch_writes_pt2)]
#[test]
fn a_network_from_its_file_is_a_module() {
    let folder = folder("cpp_graph");
    let file = exported(&folder);
    succeed(run(host()).arg("graph").arg(file).arg(&folder));
}

/// timm's resnet18 as torch.export writes it.
#[cfg(torch_writes_pt2)]
fn exported(folder: &Path) -> PathBuf {
    let file = folder.join("resnet18_exported.pt2");
    test_support::run_python("timm_pt2.py", &[Path::new("resnet18"), &file]);
    file
}

#[test]
fn every_bad_input_throws_an_error_with_its_sentence() {
    let said = succeed(run(host()).arg("errors").arg(folder("cpp_errors")));
    for (what, sentence) in [
        ("three dimensions", "input is [3, 32, 32], but the backbone takes [N, 3, H, W]"),
        ("other device", "input's device is meta, but the backbone is on cpu"),
        ("missing file", "/nowhere/w.pth: No such file or directory"),
    ] {
        assert!(said.contains(&format!("{what}: {sentence}")), "{said}");
    }
    assert_eq!(said.lines().count(), 29, "{said}");
}

#[test]
fn eight_threads_compute_what_one_does() {
    succeed(run(host()).arg("threads"));
}

/// A backbone made and run here; its weights and input as files in `folder`.
struct Reference {
    weights: PathBuf,
    input: PathBuf,
    maps: Vec<Tensor>,
}

/// An image's side; no multiple of the strides, so that edges count.
const SIDE: i64 = 75;

fn reference(model: &str, folder: &Path) -> Reference {
    let store = VarStore::new(Device::Cpu);
    let network = models::find(model).unwrap().build(&store.root(), &BuildOptions::default());
    let network = network.unwrap();
    let tensors: StateDict = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for (name, tensor) in &tensors {
            // A norm's weight of 0, or a layer scale of 1e-6, would hide the
            // block behind it.
            if tensor.dim() == 1 && (name.ends_with("weight") || name.ends_with("gamma")) {
                let _ = tensor.shallow_clone().uniform_(0.5, 1.5);
            }
        }
    });
    let images = Tensor::randn([1, 3, SIDE, SIDE], (Kind::Float, Device::Cpu));
    let name = models::short_name(model);
    let (weights, input) = (folder.join(format!("{name}.safetensors")), folder.join(name));
    write_safetensors(&weights, &tensors, &Default::default()).unwrap();
    write_floats(&input, &numbers(&images));
    let images = FeatureMap::Grid(images);
    let maps = tch::no_grad(|| network.forward(&images, &Mode::eval()).unwrap());
    Reference { weights, input, maps: maps.iter().map(FeatureMap::to_grid).collect() }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.contiguous().view(-1).try_into().unwrap()
}

#[test]
fn features_through_c_and_cpp_are_rusts_bit_for_bit() {
    tch::set_num_threads(1);
    let c = compile(cc(), &["-std=c11"], "host.c", "host_c_features");
    let folder = folder("cpp_features");
    let mut models = vec!["resnet18".to_owned(), "convnext_tiny".to_owned()];
    #[cfg(torch_writes_pt2)]
    models.push(exported(&folder).display().to_string());
    for model in &models {
        let reference = reference(model, &folder);
        for (language, program) in [("c", c.as_path()), ("cpp", host())] {
            let output = folder.join(format!("{}_{language}", models::short_name(model)));
            let mut command = run(program);
            command.args(["features", model]).arg(&reference.weights).arg(&reference.input);
            succeed(command.arg(SIDE.to_string()).arg(&output));
            for (level, map) in reference.maps.iter().enumerate() {
                let found = read_floats(&output.with_added_extension(level.to_string()));
                // Every bit: the same operators run on the same numbers.
                let expected = numbers(map);
                let differing = found.iter().zip(&expected).filter(|(a, b)| a != b);
                let largest = differing.clone().map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                let scale = expected.iter().fold(0.0f32, |most, value| most.max(value.abs()));
                assert!(
                    found == expected,
                    "{language}, {model}, level {level}: {} of {} numbers differ, by up to \
                     {largest:e} among {scale:e}",
                    differing.count(),
                    expected.len()
                );
            }
            assert_eq!(reference.maps.len(), 4);
        }
    }
}

#[test]
fn weights_come_from_a_hub_without_a_word() {
    tch::set_num_threads(1);
    let c = compile(cc(), &["-std=c11"], "host.c", "host_c_hub");
    let (folder, hub) = (folder("cpp_hub"), Hub::start());
    let reference = reference("resnet18", &folder);
    let weights = std::fs::read(&reference.weights).unwrap();
    hub.change("me/net", |repo| {
        repo.commit("main", &[("model.safetensors", File::large(weights))]);
    });
    let cache = tempfile::tempdir().unwrap();
    for program in [c.as_path(), host()] {
        let output = folder.join("maps");
        let of = |name: &str| {
            let mut command = run(program);
            command.args(["features", "resnet18", name]).arg(&reference.input);
            command.arg(SIDE.to_string()).arg(&output);
            hub.show_to(&mut command, cache.path());
            command
        };
        let ended = crate::common::output(&mut of("hf:me/net"));
        assert!(ended.status.success() && ended.stderr.is_empty(), "{}", said(&ended));
        for (level, map) in reference.maps.iter().enumerate() {
            let found = read_floats(&output.with_added_extension(level.to_string()));
            assert!(found == numbers(map), "level {level}");
        }
        let refused = crate::common::output(&mut of("hf:me/none"));
        assert!(!refused.status.success());
        assert!(said(&refused).contains("hf:me/none: there is no such repository"));
    }
    let fetched = hub.requests().iter().filter(|request| request.side == Side::Cdn).count();
    assert_eq!(fetched, 1);
}

/// Bytes that the last three quarters of `rounds` rounds of create, forward and
/// destroy leave: allocated, and resident.
fn growth(rounds: usize, name: &str) -> [i64; 2] {
    let reference = reference("resnet18", &folder(name));
    let mut command = run(host());
    // Tensors get pages of their own, which go back to the system at once. By
    // default glibc raises this limit as it sees large blocks come and go, and
    // how much it then keeps for later depends on chance.
    command.env("MALLOC_MMAP_THRESHOLD_", "65536").env("MALLOC_ARENA_MAX", "1");
    let said = succeed(command.arg("rounds").arg(&reference.weights).arg(rounds.to_string()));
    let grown: Vec<i64> = said.split_whitespace().map(|word| word.parse().unwrap()).collect();
    println!("{rounds} rounds: {} bytes more allocated, {} resident", grown[0], grown[1]);
    [grown[0], grown[1]]
}

fn assert_flat(rounds: usize, name: &str) {
    let [allocated, resident] = growth(rounds, name);
    // A fifteenth of the smallest thing that 45 rounds could leave behind and that matters, the
    // first layer's weights; caches of libtorch still grow by a few bytes.
    assert!(allocated < 100_000, "{allocated} bytes allocated");
    // A tenth of one backbone: the allocator's slack.
    assert!(resident < 4_500_000, "{resident} bytes resident");
}

#[test]
fn rounds_of_create_forward_destroy_leave_memory_flat() {
    assert_flat(60, "cpp_rounds");
}

#[test]
#[ignore = "minutes long: cargo xtask test -p spark-ffi --test suite cpp_host -- --ignored --nocapture"]
fn ten_thousand_rounds_leave_memory_flat() {
    assert_flat(10_000, "cpp_many_rounds");
}
