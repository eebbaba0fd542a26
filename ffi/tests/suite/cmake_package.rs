//! The installed tree through CMake and pkg-config, and the examples built and
//! run against it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use backbone::plugin::LIBTORCH_VERSION;

use crate::common::{cc, exists, folder, output, root, said, scratch, succeed};

/// CMake of this machine, or else the one that comes with the Python packages
/// of the tests.
fn cmake() -> Command {
    if exists("cmake") {
        return Command::new("cmake");
    }
    let python = std::env::var_os("SPARK_PYTHON")
        .expect("no cmake here: install one, or run `cargo xtask test`, which brings its own");
    let mut command = Command::new(python);
    command.args(["-m", "cmake"]);
    command
}

/// The tree, moved away from where it was installed: it must not know that
/// place.
fn moved_tree() -> &'static Path {
    static MOVED: OnceLock<PathBuf> = OnceLock::new();
    MOVED.get_or_init(|| {
        let moved = folder("moved tree"); // with a space, as folders have
        let copy = moved.join("spark");
        succeed(Command::new("cp").arg("-r").arg(crate::common::tree()).arg(&copy));
        copy
    })
}

/// The examples' build folder; they are built once.
fn examples() -> &'static Path {
    static EXAMPLES: OnceLock<PathBuf> = OnceLock::new();
    EXAMPLES.get_or_init(|| {
        let build = folder("examples");
        let mut configure = cmake();
        configure.arg("-S").arg(root().join("ffi/examples/cpp")).arg("-B").arg(&build);
        configure.arg(prefix_path(&[moved_tree()]));
        succeed(&mut configure);
        succeed(cmake().arg("--build").arg(&build).args(["--parallel", "2"]));
        build
    })
}

fn prefix_path(folders: &[&Path]) -> String {
    let folders: Vec<_> = folders.iter().map(|folder| folder.to_str().unwrap()).collect();
    format!("-DCMAKE_PREFIX_PATH={}", folders.join(";"))
}

fn example(name: &str) -> Command {
    let mut command = Command::new(examples().join(name));
    command.current_dir(examples());
    command
}

/// Weights of resnet18 as a host saves them.
fn weights() -> PathBuf {
    let path = scratch().join("example_weights.safetensors");
    let store = tch::nn::VarStore::new(tch::Device::Cpu);
    let model = backbone::models::find("resnet18").unwrap();
    model.build(&store.root(), &Default::default()).unwrap();
    let tensors = store.variables().into_iter().collect();
    backbone::weights::write_safetensors(&path, &tensors, &Default::default()).unwrap();
    path
}

#[test]
fn the_pyramid_example_prints_every_level_of_an_image() {
    let image = scratch().join("image.ppm");
    let mut bytes = b"P6\n# 80 x 64\n80 64\n255\n".to_vec();
    bytes.extend((0..80 * 64 * 3).map(|index| (index * 7 % 256) as u8));
    fs::write(&image, &bytes).unwrap();
    let weights = weights();
    let said = succeed(example("pyramid").arg("resnet18").arg(&weights).arg(&image));
    let shapes: Vec<Vec<i64>> = said
        .lines()
        .skip(1)
        .map(|line| {
            let words = line.split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        })
        .collect();
    let expected = [[0, 4, 64, 16, 20], [1, 8, 128, 8, 10], [2, 16, 256, 4, 5], [3, 32, 512, 2, 3]];
    assert_eq!(shapes, expected, "{said}");

    // An image cut short, and weights that are not there.
    fs::write(&image, &bytes[..1000]).unwrap();
    let cut = output(example("pyramid").arg("resnet18").arg(&weights).arg(&image));
    assert_eq!(cut.status.code(), Some(1));
    assert!(crate::common::said(&cut).contains("image.ppm ends before its last pixel"));
    let missing = output(example("pyramid").args(["resnet18", "/nowhere/w.pth", "i.ppm"]));
    assert_eq!(missing.status.code(), Some(1));
    assert!(crate::common::said(&missing).contains("/nowhere/w.pth"));
}

#[test]
fn the_finetuning_example_learns_and_saves() {
    let said = succeed(&mut example("finetune"));
    assert!(said.contains("loaded again, equal scores"), "{said}");
}

#[test]
fn the_detector_example_learns_to_find_shapes() {
    let picture = scratch().join("detector.png");
    let _ = fs::remove_file(&picture);
    // It fails by itself if its loss is not halved or its boxes are not right.
    let said = succeed(example("detector").arg("--output").arg(&picture));
    println!("{said}");
    assert!(said.contains("fresh images: found "), "{said}");
    // Two lines of four images of 96 pixels, drawn three times as large.
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(&picture).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (4 * 288, 2 * 288));
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    // The true boxes are drawn in white, which no scene has in such amounts.
    let white = pixels.chunks_exact(3).filter(|pixel| pixel == &[255; 3]).count();
    assert!(white > 1000, "{white} white pixels");
}

/// A project of one line besides the usual, configured against the tree.
fn configure(name: &str, languages: &str, line: &str, prefixes: &[&Path]) -> std::process::Output {
    let project = folder(name);
    let text =
        format!("cmake_minimum_required(VERSION 3.16)\nproject(p LANGUAGES {languages})\n{line}\n");
    fs::write(project.join("CMakeLists.txt"), text).unwrap();
    let mut command = cmake();
    command.arg("-S").arg(&project).arg("-B").arg(project.join("build"));
    output(command.arg(prefix_path(prefixes)))
}

/// What CMake wrote, its line breaks undone.
fn text(output: &std::process::Output) -> String {
    said(output).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn another_libtorch_is_refused_by_cmake_with_a_sentence() {
    let torch = folder("other_torch");
    let package = torch.join("share/cmake/Torch");
    fs::create_dir_all(&package).unwrap();
    fs::write(package.join("TorchConfig.cmake"), "add_library(torch INTERFACE IMPORTED)\n")
        .unwrap();
    fs::write(
        package.join("TorchConfigVersion.cmake"),
        "set(PACKAGE_VERSION \"2.7.1\")\nset(PACKAGE_VERSION_COMPATIBLE TRUE)\n",
    )
    .unwrap();

    let find = "find_package(SparkBackbone REQUIRED)";
    let expected = "libtorch 2.7.1 was found";
    let refused = configure("cmake_other", "CXX", find, &[moved_tree(), &torch]);
    assert!(!refused.status.success() && text(&refused).contains(expected), "{}", text(&refused));
    assert!(
        text(&refused).contains(&format!("built against {LIBTORCH_VERSION}")),
        "{}",
        text(&refused)
    );

    // Found by the project itself before.
    let both = format!("find_package(Torch REQUIRED)\n{find}");
    let refused = configure("cmake_given", "CXX", &both, &[moved_tree(), &torch]);
    assert!(!refused.status.success() && text(&refused).contains(expected), "{}", text(&refused));

    // Plain C does not care.
    let c = "find_package(SparkBackbone 0.1 REQUIRED COMPONENTS C)";
    let found = configure("cmake_c", "C", c, &[moved_tree(), &torch]);
    assert!(found.status.success(), "{}", text(&found));
}

#[test]
fn cmake_refuses_what_the_package_is_not() {
    let part = "find_package(SparkBackbone REQUIRED COMPONENTS Fortran)";
    let refused = configure("cmake_part", "CXX", part, &[moved_tree()]);
    assert!(!refused.status.success());
    assert!(text(&refused).contains("the component is Fortran, but it must be C or CXX"));

    for version in ["0.2", "1.0", "0.1.99"] {
        let find = format!("find_package(SparkBackbone {version} REQUIRED)");
        let refused = configure("cmake_version", "CXX", &find, &[moved_tree()]);
        assert!(!refused.status.success(), "{version}");
        assert!(text(&refused).contains("version: 0.1.0"), "{}", text(&refused));
    }
}

#[test]
fn pkg_config_has_the_flags_of_a_c_program() {
    if !exists("pkg-config") {
        println!("skipped: no pkg-config here");
        return;
    }
    let ask = |arguments: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.env("PKG_CONFIG_PATH", crate::common::tree().join("lib/pkgconfig"));
        succeed(command.args(arguments).arg("spark_backbone")).trim().to_owned()
    };
    assert_eq!(ask(&["--modversion"]), env!("CARGO_PKG_VERSION"));
    assert_eq!(ask(&["--variable=libtorch_version"]), LIBTORCH_VERSION);
    let program = scratch().join("pkg_config_program");
    let mut compile = Command::new(cc());
    compile.arg(root().join("ffi/tests/programs/versions.c")).arg("-o").arg(&program);
    compile.args(ask(&["--cflags", "--libs"]).split_whitespace());
    compile.arg(format!("-Wl,-rpath,{}", ask(&["--variable=libdir"])));
    succeed(&mut compile);
    assert_eq!(
        succeed(&mut Command::new(&program)),
        format!("0.1.0 on libtorch {LIBTORCH_VERSION}\n")
    );
}
