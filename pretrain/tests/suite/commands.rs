//! Every command of the program on what a short run leaves behind.

use std::path::Path;
use std::process::Command;

use crate::common::{
    Workplace, assert_says, check_reconstruction, read, reconstruct, section, shorter, with_images,
};
use backbone::models::{self, BuildOptions, MODELS};
use backbone::weights::{self, Naming, StateDict, WeightFile};
use pretrain::saved::LoadedWeights;
use tch::Device;
use tch::nn::VarStore;

fn size_of_png(work: &Workplace, name: &str) -> (u32, u32) {
    image::load_from_memory(&read(work.path(name))).unwrap().to_rgb8().dimensions()
}

#[test]
fn what_a_run_leaves_can_be_used() {
    let work = with_images(8);
    work.train("run", &shorter(&["--model", "resnet18"])).succeeded();
    inspects(&work);
    exports(&work);
    reconstructs(&work);
    reconstructs_with_foreign_weights(&work);
}

fn inspects(work: &Workplace) {
    let inspect = |path: &str| work.run(&["inspect", path]).succeeded().out;
    for path in ["run", "run/checkpoints/last.safetensors"] {
        assert_says(
            &inspect(path),
            &[
                "run/checkpoints/last.safetensors",
                "model: resnet18, complete, 11,176,512 parameters",
                "prefix \"sparse_encoder.sp_cnn.\"",
                "120 tensors match",
                "SparK decoder: yes",
                "a run of pretrain train with:",
                "input-size = 64",
            ],
        );
    }
    for (path, format) in [
        ("run/export/resnet18_spark.safetensors", "safetensors file: 120 tensors"),
        ("run/export/timm", "timm folder: 120 tensors"),
    ] {
        let said = inspect(path);
        assert_says(&said, &[path, format, "model: resnet18, complete", "120 tensors match"]);
        assert!(!said.contains("SparK decoder") && !said.contains("a run of"), "{said}");
    }
}

/// The run's encoder comes out of every format unchanged.
fn exports(work: &Workplace) {
    let encoder =
        |path: &str| LoadedWeights::open(&work.path(path)).unwrap().encoder(None).unwrap();
    let (_, own) = encoder("run");
    for (format, file, parts) in [
        ("timm", "resnet18_timm", ["timm folder: 120", "naming: timm"]),
        ("official", "resnet18_official.pth", ["PyTorch checkpoint: 120", "naming: "]),
        ("torchvision", "resnet18_torchvision.pth", ["PyTorch checkpoint: 120", "naming: "]),
        ("detectron2", "resnet18_detectron2.pkl", ["pickle of numpy", "naming: detectron2"]),
        ("mmdet", "resnet18_mmdet.pth", ["PyTorch checkpoint: 120", "prefix \"backbone.\""]),
    ] {
        let arguments = ["export", "--checkpoint", "run", "--format", format];
        // Beside the run, without a name; from a weight file to one of its own.
        let beside = format!("run/export/{file}");
        let told = work.run(&arguments).succeeded().out;
        assert_says(&told, &["120 tensors of resnet18", &beside]);
        let arguments = ["export", "--checkpoint", &beside, "--format", format];
        let again = format!("{format}/{file}");
        work.run(&[&arguments, ["--output", &again].as_slice()].concat()).succeeded();

        let said = work.run(&["inspect", &beside]).succeeded().out;
        assert_says(&said, &parts);
        assert_says(&said, &["model: resnet18, complete", "120 tensors match"]);
        let (model, found) = encoder(&again);
        assert_eq!((model.name.as_ref(), found.len()), ("resnet18", own.len()), "{again}");
        assert!(own.iter().all(|(name, tensor)| found[name].equal(tensor)), "{again}");
    }
}

fn reconstructs(work: &Workplace) {
    let (finished, first) = reconstruct(work, "run", &[]);
    assert_says(&finished.out, &["on masked patches", "sheet.png", "tensors"]);
    // Of four patches, 0.6 masked leaves round(1.6).
    check_reconstruction(&first, [2, 3, 64, 64], 2);
    // Two rows of three images, each enlarged three times, and some margin.
    let (width, height) = size_of_png(work, "sheet.png");
    assert!((3 * 192..4 * 192).contains(&width), "{width}");
    assert!((2 * 192..3 * 192).contains(&height), "{height}");

    let picture = read(work.path("sheet.png"));
    let (_, again) = reconstruct(work, "run/checkpoints/last.safetensors", &[]);
    assert!(first.iter().all(|(name, tensor)| again[name].equal(tensor)), "same seed");
    assert_eq!(read(work.path("sheet.png")), picture);
    let (_, other) = reconstruct(work, "run", &["--seed", "3"]);
    assert!(
        !other["active"].equal(&first["active"]) && other["original"].equal(&first["original"])
    );
    let (_, other) = reconstruct(work, "run", &["--mask-ratio", "0.8", "--input-size", "96x64"]);
    check_reconstruction(&other, [2, 3, 96, 64], 1);

    let picture = read(work.path("sheet.png"));
    for (flags, message) in [
        ("sheet.png --mask-ratio 0.95", "mask-ratio is 0.95, but of 4 patches it would leave 0"),
        ("sheet.png --input-size 100", "input size is 100×100"),
        ("sheet.png --mean 0.5", "mean has 1 values, but the images have 3 channels"),
        ("nowhere/sheet.png", "nowhere/sheet.png"),
        ("sheet.png missing.png", "cannot read missing.png"),
        ("sheet.png run/config.toml", "run/config.toml"),
    ] {
        let arguments = ["reconstruct", "--checkpoint", "run", "images/class0/000.png", "--output"];
        let flags: Vec<&str> = flags.split(' ').collect();
        work.run(&[&arguments, flags.as_slice()].concat()).refused(&[message]);
        assert_eq!(read(work.path("sheet.png")), picture, "{flags:?} left the sheet alone");
    }
}

/// As the official code saves them: no settings, no counters of batches, names
/// under `module.`.
fn reconstructs_with_foreign_weights(work: &Workplace) {
    let (_, own) = reconstruct(work, "run", &[]);
    let foreign: StateDict = section(work, "run", "model")
        .into_iter()
        .filter(|(name, _)| !name.ends_with("num_batches_tracked"))
        .map(|(name, tensor)| (format!("module.{name}"), tensor))
        .collect();
    weights::write_pth(work.path("spark.pth"), &foreign).unwrap();
    let (_, found) = reconstruct(work, "spark.pth", &["--input-size", "64"]);
    assert!(own.iter().all(|(name, tensor)| found[name].equal(tensor)), "the run's own pixels");
    let (_, found) = reconstruct(work, "spark.pth", &[]);
    check_reconstruction(&found, [2, 3, 224, 224], 20);
}

#[test]
fn channels_are_found_in_every_naming() {
    for name in ["resnet18", "convnext_atto", "regnety_016"] {
        let model = models::find(name).unwrap();
        let options = BuildOptions { in_chans: 4, uninitialised: true, ..BuildOptions::default() };
        let store = VarStore::new(Device::Cpu);
        model.build(&store.root(), &options).unwrap();
        // What was there in memory may be no numbers, which are not exported.
        let zeros = store.variables().into_iter().map(|(name, t)| (name, t.zeros_like()));
        let encoder: StateDict = zeros.collect();
        for naming in Naming::ALL.into_iter().filter(|naming| naming.has(model.family())) {
            let exported = weights::export(model.family(), naming, &encoder).unwrap();
            for prefix in ["", "module.backbone."] {
                let named = |(name, tensor)| (format!("{prefix}{name}"), tensor);
                let tensors = exported.iter().map(|(n, t)| (n, t.shallow_clone())).map(named);
                let file = WeightFile::from_tensors("f.pth", tensors.collect());
                let saved = LoadedWeights { file, config: None, carried: None };
                assert_eq!(saved.in_chans(), 4, "{naming} {name}");
                // Every model is looked at, which takes a second.
                if prefix.is_empty() {
                    assert_eq!(saved.model(None).unwrap().name, name, "{naming}");
                }
            }
        }
    }
}

#[test]
fn the_mask_stays_under_sparse_convolution_only() {
    let work = with_images(0);
    for model in ["resnet18", "convnext_tiny"] {
        let arguments = ["mask-pattern", "--model", model, "--output", "pattern.png"];
        let out = work.run(&arguments).succeeded().out;
        let shares: Vec<(f64, f64)> = out
            .lines()
            .filter_map(|line| {
                let (dense, sparse) = line.split_once(" dense ")?.1.split_once(" %   sparse ")?;
                Some((
                    dense.trim().parse().unwrap(),
                    sparse.trim_end_matches(" %").trim().parse().unwrap(),
                ))
            })
            .collect();
        assert!(shares.len() >= 9 + 5, "eight convolutions, four stages, two inputs:\n{out}");
        let expected = 100.0 * 20.0 / 49.0;
        assert!(shares.iter().all(|(_, sparse)| (sparse - expected).abs() <= 0.05), "{out}");
        assert_eq!(shares.last().unwrap().0, 100.0, "{out}");
        assert!(shares[0].0 < 41.0 && shares[8].0 > 90.0, "eight convolutions reach far:\n{out}");
        let (width, height) = size_of_png(&work, "pattern.png");
        assert!(width > 400 && height > 200, "{width}×{height}");
    }
    for (flags, message) in [
        ("p.png --model vit", "model is \"vit\", but it must be one of resnet18"),
        ("p.png --input-size 100", "input-size is 100, but its sides must be multiples of 32"),
        ("p.png --mask-ratio 1", "mask-ratio is 1, but of 49 patches it would leave 0 visible"),
        ("nowhere/p.png --model resnet18", "nowhere/p.png"),
    ] {
        let flags: Vec<&str> = flags.split(' ').collect();
        work.run(&[&["mask-pattern", "--output"], flags.as_slice()].concat()).refused(&[message]);
        assert!(!work.path("p.png").exists(), "{flags:?}");
    }
}

#[test]
fn the_list_of_models() {
    let work = with_images(0);
    let out = work.run(&["models"]).succeeded().out;
    for (name, params, flops) in [
        ("resnet18", "11.7", "1.8"),
        ("resnet50", "25.6", "4.1"),
        ("resnet200", "64.7", "15.0"),
        ("resnext101_32x8d", "88.8", "16.4"),
        ("convnext_tiny", "28.6", "4.5"),
        ("convnext_base", "88.6", "15.4"),
        ("regnety_040", "20.6", "4.0"),
    ] {
        let line = out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, [name, params, "M", "parameters", flops, "G", "FLOPs"], "{out}");
    }
    assert_eq!(out.lines().filter(|line| line.contains(" G FLOPs")).count(), MODELS.len());
    let names = work.run(&["models", "--names"]).succeeded().out;
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        MODELS.iter().map(|m| m.name.as_ref()).collect::<Vec<_>>()
    );
}

#[test]
fn help_has_examples() {
    let work = with_images(0);
    work.explains_its_commands("pretrain", 12);
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    use std::process::Stdio;
    let work = with_images(0);
    let mut command = work.command(&["models"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// libtorch's half for CUDA takes longer to load than all the rest.
#[test]
fn what_libtorch_has_for_cuda_is_loaded_beside_a_driver() {
    let lib = Path::new(env!("SPARK_LIBTORCH_LIB")).join("libtorch_cuda.so");
    if !lib.exists() {
        return println!("skipped: a libtorch for processors alone");
    }
    let folder = tempfile::tempdir().unwrap();
    let loads_cuda = || {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pretrain"));
        // The dynamic loader tells of each file that it opens.
        program.arg("--version").env("LD_DEBUG", "files").env("LD_LIBRARY_PATH", folder.path());
        let output = program.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).contains("libtorch_cuda.so")
    };
    if loads_cuda() {
        return println!("skipped: there is a driver here");
    }
    // A driver by its name alone: enough for libtorch to find no device.
    let driver = folder.path().join("libcuda.so.1");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(driver);
    assert!(cc.status().unwrap().success());
    assert!(loads_cuda());
}
