//! A detector trained on the backbone of the shared library, as `detect
//! --backbone-plugin` does.

use std::path::{Path, PathBuf};

use clap::Parser;
use detection::cli::Cli;
use detection::evaluation::Report;
use engine::checkpoint::CheckpointFile;
use image::{Rgb, RgbImage};

/// Settings of a run of seconds.
const SHORT: &str = include_str!("../../../detection/tests/suite/common/short.toml");

/// The shared library, which cargo builds beside the tests.
fn library() -> PathBuf {
    let library = std::env::current_exe().unwrap().with_file_name("libspark_backbone.so");
    assert!(library.exists(), "{}", library.display());
    library
}

fn detect(arguments: &[&str]) -> anyhow::Result<()> {
    Cli::try_parse_from([&["detect"], arguments].concat())?.run().map(drop)
}

fn report(path: &Path) -> Report {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// One test: a process can hold one copy of the library, and watch for interrupts once.
#[test]
fn a_plugins_backbone_is_trained_saved_and_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("photos")).unwrap();
    let waves = |x: u32, y: u32| Rgb([(x + 2 * y) as u8, (2 * x + y) as u8, (3 * x + 3 * y) as u8]);
    RgbImage::from_fn(320, 240, waves).save(path("photos/0.png")).unwrap();
    std::fs::write(path("short.toml"), SHORT.replace("tiny.pt2", "resnet18")).unwrap();
    let (photos, data, short) = (path("photos"), path("demo"), path("short.toml"));
    let size = ["--train", "4", "--val", "3", "--size", "64", "--classes", "2", "--objects", "2"];
    detect(&[["make-demo", "--photos", &photos, "--output", &data].as_slice(), &size].concat())
        .unwrap();

    let library = library();
    let plugin = ["--backbone-plugin", library.to_str().unwrap()];
    let train = |output: &str, more: &[&str]| {
        let begin = ["train", "--data", &data, "--output", output, "--config", &short];
        let preset = ["--preset", "mask_rcnn_resnet50_1x"];
        detect(&[&begin[..], &preset, &plugin, more].concat())
    };
    let message = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
    let refused = message(train(&path("b"), &["--precision", "bfloat16"]));
    assert!(refused.contains("a plugin computes in its parameters' float32"), "{refused}");

    for flags in [["--drop-path", "0.1"], ["--norm-eval", "true"]] {
        let refused = message(train(&path("b"), &flags));
        assert!(refused.contains("but a plugin has its own"), "{refused}");
    }
    let run = path("run");
    train(&run, &["--epochs", "2", "--freeze", "1"]).unwrap();
    let checkpoint = |name: &str| {
        let file = Path::new(&run).join("checkpoints").join(name);
        CheckpointFile::open(&file).unwrap().section("model").unwrap()
    };
    let model = checkpoint("last.safetensors");
    // The backbone's tensors are the detector's, by their own names.
    let stem = &model["backbone.bottom_up.conv1.weight"];
    assert_eq!(stem.size(), [64, 3, 7, 7]);
    assert!(model.contains_key("backbone.bottom_up.layer4.1.bn2.running_var"));
    let exported = std::fs::read_dir(Path::new(&run).join("export")).unwrap().count();
    assert_eq!(exported, 0, "its names are nobody else's");

    // What was trained is what is loaded: the run's last figures again.
    let scores = path("scores");
    detect(&["evaluate", "--weights", &run, "--output", &scores, "--device", "cpu"]).unwrap();
    let (first, again) =
        (Path::new(&run).join("report.json"), Path::new(&scores).join("report.json"));
    assert_eq!(report(&again), report(&first));
    let double = ["--batch", "none", "--out", "none", "--dtype", "float64", "--device", "cpu"];
    let refused = message(detect(&[["forward", "--weights", &run].as_slice(), &double].concat()));
    assert!(refused.contains("none"), "{refused}");
}
