//! The Python package: its wheel, built and installed as a user does, against
//! the crate and against timm.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use backbone::models::{self, BuildOptions};
use backbone::plugin::LIBTORCH_VERSION;
use backbone::weights::{StateDict, write_safetensors};
use backbone::{FeatureMap, Mode};
use spark_tests::{python, rule};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use test_hub::{File, Hub};

/// Stands for a program: prints its arguments and where it would look for libraries.
const PROGRAM: &str = "#!/bin/sh\nIFS=,\necho \"$*,$LD_LIBRARY_PATH\"\n";

/// What the tests here share, in cargo's folder for tests' files: other tests
/// find the TorchScript file there.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("python_package")
}

/// The folder that the wheel is installed into, built on the first call.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let (wheels, site) = (folder().join("wheels"), folder().join("site"));
        for old in [&wheels, &site] {
            let _ = fs::remove_dir_all(old);
        }
        let mut xtask = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        xtask.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
        // The library that cargo built beside this test, and a program beside that.
        let built = folder().join("built");
        fs::create_dir_all(&built).unwrap();
        let library = built.join("libspark_backbone.so");
        fs::copy(env::current_exe().unwrap().with_file_name("libspark_backbone.so"), &library)
            .unwrap();
        fs::write(built.join("pretrain"), PROGRAM).unwrap();
        xtask.args(["xtask", "wheel", "--library"]).arg(library).arg("--output").arg(&wheels);
        succeed(&mut xtask);
        let wheel = fs::read_dir(&wheels).unwrap().next().expect("a wheel").unwrap().path();
        let name = wheel.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name.starts_with("spark_backbone-") && name.contains("-py3-none-manylinux_2_"),
            "{name}"
        );
        let mut pip = Command::new(python());
        pip.args(["-I", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]);
        succeed(pip.arg(&site).arg(&wheel));
        site
    })
}

/// Where the wheel has what is built for the torch in use.
fn carried() -> PathBuf {
    let series = LIBTORCH_VERSION.rsplit_once('.').unwrap().0;
    installed().join(format!("spark_backbone/torch-{series}"))
}

/// Python with the package, and nothing in its environment that could help it to
/// find libtorch.
fn python_with_package() -> Command {
    let mut command = Command::new(python());
    command.env("PYTHONPATH", installed()).env_remove("LD_LIBRARY_PATH").current_dir("/");
    command.env("OMP_NUM_THREADS", "1").env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(name)
}

/// Runs a command to its good end; what it printed.
fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{printed}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Weights of `name` by rule into `folder`, and its features of `images`.
fn reference(name: &str, images: &Tensor, folder: &Path, features: &mut StateDict) {
    let store = VarStore::new(Device::Cpu);
    let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
    let network = models::find(name).unwrap().build(&store.root(), &options).unwrap();
    rule::fill(store.variables());
    let tensors: StateDict = store.variables().into_iter().collect();
    tch::no_grad(|| {
        let maps =
            network.forward(&FeatureMap::Grid(images.shallow_clone()), &Mode::eval()).unwrap();
        for (level, map) in maps.iter().enumerate() {
            features.insert(format!("{name}/{level}"), map.to_grid().contiguous());
        }
    });
    write_safetensors(folder.join(format!("{name}.safetensors")), &tensors, &BTreeMap::new())
        .unwrap();
}

#[test]
fn the_module_is_rusts_and_behaves_as_pytorchs() {
    // As many as the Python side has: sums split among threads round otherwise.
    tch::set_num_threads(1);
    let folder = folder().join("checks");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let images = Tensor::randn([2, 3, 64, 96], (Kind::Float, Device::Cpu));
    let mut features = StateDict::from([("images".to_owned(), images.shallow_clone())]);
    for name in ["resnet50", "convnext_tiny"] {
        reference(name, &images, &folder, &mut features);
    }
    write_safetensors(folder.join("features.safetensors"), &features, &BTreeMap::new()).unwrap();

    let printed = succeed(python_with_package().arg(script("package_check.py")).arg(&folder));
    println!("{printed}");
    for check in [
        "features_equal_rusts_bit_for_bit",
        "gradients_equal_timms",
        "torchscript_saves_and_loads",
        "bad_images_are_refused",
        "conversions_keep_sharing",
        "copies_of_a_network_need_no_file",
    ] {
        assert!(printed.contains(&format!("ok  {check}")), "{check} did not run:\n{printed}");
    }
    assert!(folder.join("scripted.pt").is_file());
}

#[test]
fn weights_come_from_a_hub() {
    let (folder, hub) = (tempfile::tempdir().unwrap(), Hub::start());
    let images = Tensor::randn([1, 3, 64, 64], (Kind::Float, Device::Cpu));
    reference("resnet18", &images, folder.path(), &mut StateDict::new());
    let file = folder.path().join("resnet18.safetensors");
    hub.change("me/net", |repo| {
        repo.commit("main", &[("model.safetensors", File::large(fs::read(&file).unwrap()))]);
    });
    let mut command = python_with_package();
    command.arg(script("package_hub.py")).arg(&file);
    hub.show_to(&mut command, &folder.path().join("home"));
    let output = run(&mut command);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && error.is_empty(), "{error}");
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    for check in ["module", "TorchScript", "load_weights", "refusal", "export", "huggingface_hub"] {
        assert!(printed.contains(&format!("ok  {check}\n")), "{printed}");
    }
}

#[test]
fn the_wheel_knows_nothing_of_its_builder() {
    let library = fs::read(carried().join("libspark_backbone.so")).unwrap();
    let holds = |text: &str| library.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("\0$ORIGIN/../../torch/lib\0"));
    assert!(!holds(env!("SPARK_LIBTORCH_LIB")));
}

/// Runs the command that the wheel installs for the program.
fn command(python_path: &OsStr) -> Command {
    let mut command = Command::new(installed().join("bin/pretrain"));
    command.args(["train", "--data", "my photos"]).env("PYTHONPATH", python_path);
    command.env_remove("LD_LIBRARY_PATH");
    command
}

#[test]
fn programs_are_commands_that_find_torch_wherever_it_lies() {
    let printed = succeed(&mut command(installed().as_os_str()));
    // Torch is in the environment, the package is not.
    assert_eq!(printed, format!("train,--data,my photos,{}\n", env!("SPARK_LIBTORCH_LIB")));

    let scratch = tempfile::tempdir().unwrap();
    let info = scratch.path().join("torch-2.7.1.dist-info");
    fs::create_dir(&info).unwrap();
    fs::write(info.join("METADATA"), "Name: torch\nVersion: 2.7.1\n").unwrap();
    let path = env::join_paths([scratch.path(), installed()]).unwrap();
    let output = run(&mut command(&path));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("pretrain: torch 2.7.1 is installed, but"), "{said}");
}

#[test]
fn programs_load_their_own_libtorch_whatever_the_environment_says() {
    // A program that loads one of these does not start.
    let others = tempfile::tempdir().unwrap();
    for library in ["libtorch.so", "libtorch_cpu.so", "libtorch_cuda.so", "libc10.so"] {
        fs::write(others.path().join(library), "not a library").unwrap();
    }
    // This program is linked as all of ours are.
    let mut command = Command::new(env::current_exe().unwrap());
    let listed = succeed(command.arg("--list").env("LD_LIBRARY_PATH", others.path()));
    assert!(listed.contains("programs_load_their_own_libtorch"), "{listed}");
}

#[test]
fn two_processes_train_as_one() {
    let printed = succeed(python_with_package().arg(script("package_parallel.py")));
    for rank in 0..2 {
        assert!(printed.contains(&format!("ok  rank {rank}: ")), "{printed}");
    }
}

#[test]
fn autocast_runs_in_bfloat16() {
    let mut command = python_with_package();
    if env::var_os("ONEDNN_MAX_CPU_ISA").is_none() {
        // Some virtual machines announce AMX and stop programs that use it.
        command.env("ONEDNN_MAX_CPU_ISA", "AVX10_1_512");
    }
    let printed = succeed(command.arg(script("package_autocast.py")));
    assert!(printed.contains("ok  autocast"), "{printed}");
}

/// What a Python that cannot import the package says.
fn import_error(command: &mut Command) -> String {
    let output = run(command.args(["-c", "import spark_backbone"]));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn an_import_that_cannot_work_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let torch = scratch.path().join("torch");
    fs::create_dir(&torch).unwrap();
    let path = env::join_paths([scratch.path(), installed()]).unwrap();

    fs::write(torch.join("__init__.py"), "__version__ = '2.7.1+cpu'\n").unwrap();
    let said = import_error(python_with_package().env("PYTHONPATH", &path));
    let built = format!("built against torch {LIBTORCH_VERSION}");
    for part in ["ImportError: torch 2.7.1+cpu is installed", &built] {
        assert!(said.contains(part), "{said}");
    }

    fs::write(torch.join("__init__.py"), "raise ImportError('libcudart is missing')\n").unwrap();
    let said = import_error(python_with_package().env("PYTHONPATH", &path));
    assert!(
        said.contains("ImportError: spark_backbone needs torch") && said.contains("libcudart"),
        "{said}"
    );
}

#[test]
fn a_package_without_its_library_says_so() {
    let scratch = tempfile::tempdir().unwrap();
    let package = scratch.path().join("spark_backbone");
    fs::create_dir(&package).unwrap();
    for entry in fs::read_dir(installed().join("spark_backbone")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "py") {
            fs::copy(&path, package.join(path.file_name().unwrap())).unwrap();
        }
    }
    let without = |command: &mut Command| import_error(command.env("PYTHONPATH", scratch.path()));
    let said = without(&mut python_with_package());
    assert!(said.contains("libspark_backbone.so is missing"), "{said}");

    let folder = package.join(carried().file_name().unwrap());
    fs::create_dir(&folder).unwrap();
    for broken in ["not a library", ""] {
        fs::write(folder.join("libspark_backbone.so"), broken).unwrap();
        let said = without(&mut python_with_package());
        assert!(said.contains("libspark_backbone.so cannot be loaded"), "{said}");
    }

    // One of another release is not even loaded.
    let other = "spark_backbone for libtorch 2.7.1\0";
    fs::write(folder.join("libspark_backbone.so"), other).unwrap();
    let said = without(&mut python_with_package());
    assert!(said.contains("is built against torch 2.7.1"), "{said}");
}

#[test]
fn the_torchvision_example_learns() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../ffi/examples/python/torchvision_mask_rcnn.py")
        .canonicalize()
        .unwrap();
    let picture = folder().join("mask_rcnn.png");
    let _ = fs::remove_file(&picture);
    let mut command = python_with_package();
    command.args([&example, Path::new("--output"), &picture]);
    command.args(["--steps", "16", "--batch", "2", "--side", "96"]);
    // It fails by itself unless its loss falls by 30 %.
    let printed = succeed(&mut command);
    println!("{printed}");
    let png = fs::read(&picture).unwrap();
    assert!(png.starts_with(b"\x89PNG"), "no PNG: {printed}");
}
