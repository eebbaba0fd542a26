//! Every command of the program on what a short run leaves behind, and runs
//! with other data, precisions, channels and sizes.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use backbone::models::MODELS;
use backbone::weights::{self, StateDict};
use common::{Finished, Workplace, read};
use engine::checkpoint::CheckpointFile;
use pretrain::saved::Saved;
use pretrain::train::TrainState;
use tch::Tensor;

/// Two epochs of two steps.
const SHORTER: &[&str] = &["--epochs", "2"];

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

fn tensors(work: &Workplace, name: &str) -> StateDict {
    weights::read(work.path(name)).unwrap().tensors
}

fn size_of_png(work: &Workplace, name: &str) -> (u32, u32) {
    image::load_from_memory(&read(work.path(name))).unwrap().to_rgb8().dimensions()
}

#[test]
fn what_a_run_leaves_can_be_used() {
    let work = Workplace::with_images(8);
    work.train("run", SHORTER).succeeded();
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
                "model: resnet18, complete, 11 176 512 parameters",
                "prefix \"sparse_encoder.sp_cnn.\"",
                "122 tensors match",
                "SparK decoder: yes",
                "a run of pretrain train with:",
                "input-size = 64",
            ],
        );
    }
    for (path, format) in [
        ("run/export/resnet18_spark.safetensors", "safetensors file: 122 tensors"),
        ("run/export/timm", "timm folder: 122 tensors"),
    ] {
        let said = inspect(path);
        assert_says(&said, &[path, format, "model: resnet18, complete", "122 tensors match"]);
        assert!(!said.contains("SparK decoder") && !said.contains("a run of"), "{said}");
    }
}

/// The run's encoder comes out of every format unchanged.
fn exports(work: &Workplace) {
    let encoder = |path: &str| Saved::open(&work.path(path)).unwrap().encoder(None).unwrap();
    let (_, own) = encoder("run");
    for (format, file, parts) in [
        ("timm", "resnet18_timm", ["timm folder: 122", "naming: timm"]),
        ("official", "resnet18_official.pth", ["PyTorch checkpoint: 122", "naming: "]),
        ("torchvision", "resnet18_torchvision.pth", ["PyTorch checkpoint: 122", "naming: "]),
        ("detectron2", "resnet18_detectron2.pkl", ["pickle of numpy", "naming: detectron2"]),
        ("mmdet", "resnet18_mmdet.pth", ["PyTorch checkpoint: 122", "prefix \"backbone.\""]),
    ] {
        let arguments = ["export", "--checkpoint", "run", "--format", format];
        // Beside the run, without a name; from a weight file to one of its own.
        let beside = format!("run/export/{file}");
        let told = work.run(&arguments).succeeded().out;
        assert_says(&told, &["122 tensors of resnet18", &beside]);
        let arguments = ["export", "--checkpoint", &beside, "--format", format];
        let again = format!("{format}/{file}");
        work.run(&[&arguments, ["--output", &again].as_slice()].concat()).succeeded();

        for path in [&beside, &again] {
            let said = work.run(&["inspect", path]).succeeded().out;
            assert_says(&said, &parts);
            assert_says(&said, &["model: resnet18, complete", "122 tensors match"]);
            let (model, found) = encoder(path);
            assert_eq!((model.name, found.len()), ("resnet18", own.len()), "{path}");
            assert!(own.iter().all(|(name, tensor)| found[name].equal(tensor)), "{path}");
        }
    }
}

/// `pretrain reconstruct` on two images; its tensors.
fn reconstruct(work: &Workplace, checkpoint: &str, more: &[&str]) -> (Finished, StateDict) {
    let arguments = ["reconstruct", "--checkpoint", checkpoint, "--output", "sheet.png"];
    let images = ["--tensors", "tensors", "images/class0/000.png", "images/class1/001.png"];
    let finished = work.run(&[&arguments, more, &images].concat()).succeeded();
    (finished, tensors(work, "tensors"))
}

/// Visible pixels are the original's, masked ones are not.
fn check_reconstruction(found: &StateDict, size: [i64; 4], visible: i64) {
    let (original, active) = (&found["original"], &found["active"]);
    let [_, _, height, width] = size;
    assert_eq!(original.size(), size);
    assert_eq!(active.size(), [size[0], 1, height / 32, width / 32]);
    let per_image = active.sum_dim_intlist([1i64, 2, 3].as_slice(), false, tch::Kind::Int64);
    assert_eq!(Vec::<i64>::try_from(per_image).unwrap(), vec![visible; size[0] as usize]);
    let pixels = active.repeat_interleave_self_int(32, 2, None);
    let pixels = pixels.repeat_interleave_self_int(32, 3, None).expand_as(original);
    let differs = found["reconstruction"].ne_tensor(original);
    assert_eq!(differs.logical_and(&pixels).any().int64_value(&[]), 0, "copied exactly");
    let share = differs.sum(tch::Kind::Double) / pixels.logical_not().sum(tch::Kind::Double);
    assert!(share.double_value(&[]) > 0.99, "predicted, not copied");
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
        ("--mask-ratio 0.95", "mask-ratio is 0.95, but of 4 patches it would leave 0 visible"),
        ("--input-size 100", "input size is 100×100"),
        ("--mean 0.5", "mean has 1 values, but the images have 3 channels"),
        ("--output nowhere/sheet.png", "nowhere/sheet.png"),
        ("missing.png", "cannot read missing.png"),
        ("run/config.toml", "run/config.toml"),
    ] {
        let arguments = ["reconstruct", "--checkpoint", "run", "images/class0/000.png"];
        let flags: Vec<&str> =
            ["--output", "sheet.png"].into_iter().chain(flags.split(' ')).collect();
        let flags = if message.starts_with("nowhere") { &flags[2..] } else { &flags };
        work.run(&[&arguments, flags].concat()).refused(&[message]);
        assert_eq!(read(work.path("sheet.png")), picture, "{flags:?} left the sheet alone");
    }
}

/// As the official code saves them: no settings, no counters of batches, names
/// under `module.`.
fn reconstructs_with_foreign_weights(work: &Workplace) {
    let (_, own) = reconstruct(work, "run", &[]);
    let checkpoint = CheckpointFile::open(&work.path("run/checkpoints/last.safetensors")).unwrap();
    let foreign: StateDict = checkpoint
        .section("model")
        .unwrap()
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
fn the_mask_stays_under_sparse_convolution_only() {
    let work = Workplace::with_images(0);
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
    let refuse = |flags: &[&str], message| {
        work.run(&[&["mask-pattern", "--output", "p.png"], flags].concat()).refused(&[message]);
        assert!(!work.path("p.png").exists());
    };
    refuse(&["--model", "vit"], "model is \"vit\", but it must be one of resnet18");
    refuse(&["--input-size", "100"], "input-size is 100, but its sides must be multiples of 32");
    refuse(&["--mask-ratio", "1"], "mask-ratio is 1, but of 49 patches it would leave 0 visible");
    refuse(&["--output", "nowhere/p.png", "--model", "resnet18"], "nowhere/p.png");
}

#[test]
fn the_list_of_models() {
    let work = Workplace::with_images(0);
    let out = work.run(&["models"]).succeeded().out;
    for (name, params, flops) in [
        ("resnet18", "11.7", "1.8"),
        ("resnet50", "25.6", "4.1"),
        ("resnet200", "64.7", "15.0"),
        ("resnext101_32x8d", "88.8", "16.4"),
        ("convnext_tiny", "28.6", "4.5"),
        ("convnext_base", "88.6", "15.4"),
    ] {
        let line = out.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words, [name, params, "M", "parameters", flops, "G", "FLOPs"], "{out}");
    }
    assert_eq!(out.lines().filter(|line| line.contains(" G FLOPs")).count(), 14);
    let names = work.run(&["models", "--names"]).succeeded().out;
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        MODELS.iter().map(|m| m.name).collect::<Vec<_>>()
    );
}

#[test]
fn help_has_examples() {
    let work = Workplace::with_images(0);
    let help = work.run(&["--help"]).succeeded().out;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert_eq!(commands.len(), 7, "{help}");
    for command in commands {
        let help = work.run(&[command, "--help"]).succeeded().out;
        assert_says(&help, &["Example", &format!("  pretrain {command} ")]);
    }
}

/// Records of steps in metrics.jsonl.
fn steps(work: &Workplace, run: &str) -> Vec<serde_json::Value> {
    let text = String::from_utf8(read(work.path(run).join("metrics.jsonl"))).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    records.filter(|record: &serde_json::Value| record.get("lr").is_some()).collect()
}

fn losses(work: &Workplace, run: &str) -> Vec<f64> {
    steps(work, run).iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

#[test]
fn reduced_precision() {
    let work = Workplace::with_images(8);
    work.train("float32", SHORTER).succeeded();
    let full = losses(&work, "float32");
    for precision in ["bfloat16", "float16"] {
        let flags = ["--precision", precision, "--epochs", "2"];
        work.train(precision, &flags).succeeded();
        let reduced = losses(&work, precision);
        assert_eq!(reduced.len(), full.len());
        // The same batch, masks and weights: only rounding differs, 2⁻⁸ in
        // bfloat16, through eighteen layers.
        assert!((reduced[0] - full[0]).abs() < 0.05 * full[0], "{reduced:?} for {full:?}");
        assert!(reduced.iter().all(|loss| loss.is_finite()) && reduced != full, "{reduced:?}");
    }
}

/// Gradients of a loss scaled by 2¹⁶ overflow float16 at first: such a step is
/// left out, and the scale halved until they fit.
#[test]
fn float16_leaves_out_steps_that_overflow() {
    let work = Workplace::with_images(8);
    let flags = ["--precision", "float16", "--epochs", "6", "--checkpoint-steps", "1"];
    work.train("run", &flags).succeeded();
    let skipped = steps(&work, "run").iter().filter(|r| r.get("grad_norm").is_none()).count();
    let path = work.path("run/checkpoints/last.safetensors");
    let state: TrainState = CheckpointFile::open(&path).unwrap().state().unwrap();
    let factor = state.scaler.unwrap().factor();
    assert!(skipped > 0 && skipped < 12, "{skipped} of 12 steps skipped");
    assert_eq!(factor, 65536.0 / f64::from(1 << skipped));
}

/// A `.npy` array `[height, width, channels]` of float32 in 0–1.
fn write_npy(path: &Path, (height, width, channels): (usize, usize, usize), seed: usize) {
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({height}, {width}, {channels}), }}"
    );
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    // The data begins at a multiple of 64.
    let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{header:<width$}\n", width = length - 1).as_bytes());
    for index in 0..height * width * channels {
        let (y, rest) = (index / (width * channels), index % (width * channels));
        let wave = (y * (seed + 1)) as f32 * 0.1 + (rest / channels) as f32 * 0.07;
        bytes.extend((0.5 + 0.5 * (wave + (rest % channels) as f32).sin()).to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn other_than_three_channels() {
    let work = Workplace::with_images(4);
    work.train("grey", &["--in-chans", "1", "--epochs", "2"]).succeeded();
    let (_, found) = reconstruct(&work, "grey", &[]);
    check_reconstruction(&found, [2, 1, 64, 64], 2);

    std::fs::create_dir(work.path("arrays")).unwrap();
    for number in 0..4 {
        write_npy(&work.path(&format!("arrays/{number}.npy")), (70, 90, 5), number);
    }
    let statistics = ["--mean", "0.5,0.5,0.5,0.5,0.5", "--std", "0.3,0.3,0.3,0.3,0.3"];
    let flags = ["--data", "arrays", "--in-chans", "5", "--epochs", "2"];
    work.train("five", &[flags.as_slice(), &statistics].concat()).succeeded();
    let arguments = ["--output", "s.png", "--tensors", "tensors", "arrays/0.npy"];
    let five = ["reconstruct", "--checkpoint", "five"];
    work.run(&[five.as_slice(), &arguments].concat()).succeeded();
    let of_run = tensors(&work, "tensors");
    check_reconstruction(&of_run, [1, 5, 64, 64], 2);

    for (run, channels) in [("grey", 1), ("five", 5)] {
        let said = work.run(&["inspect", &format!("{run}/export/timm")]).succeeded().out;
        assert_says(&said, &["model: resnet18, complete"]);
        let config = String::from_utf8(read(work.path(run).join("export/timm/config.json")));
        let config: serde_json::Value = serde_json::from_str(&config.unwrap()).unwrap();
        let config = &config["pretrained_cfg"];
        assert_eq!(config["input_size"], serde_json::json!([channels, 64, 64]));
        assert_eq!(config["std"].as_array().unwrap().len(), channels);
    }

    // Without settings, statistics come from the command line.
    let checkpoint = CheckpointFile::open(&work.path("five/checkpoints/last.safetensors")).unwrap();
    weights::write_pth(work.path("five.pth"), &checkpoint.section("model").unwrap()).unwrap();
    let foreign = ["reconstruct", "--checkpoint", "five.pth", "--input-size", "64"];
    work.run(&[foreign.as_slice(), &arguments].concat()).refused(&["give --mean and --std"]);
    work.run(&[foreign.as_slice(), &statistics, &arguments].concat()).succeeded();
    let found = tensors(&work, "tensors");
    assert!(of_run.iter().all(|(name, tensor): (&String, &Tensor)| found[name].equal(tensor)));
}

#[test]
fn images_that_are_not_square() {
    let work = Workplace::with_images(4);
    work.train("run", &["--input-size", "64x96", "--epochs", "2"]).succeeded();
    let (_, found) = reconstruct(&work, "run", &[]);
    check_reconstruction(&found, [2, 3, 64, 96], 2);
    assert_says(&work.run(&["inspect", "run"]).succeeded().out, &["input-size = \"64x96\""]);
}

/// The same images in the same order: the same losses.
#[test]
fn lists_and_tar_shards() {
    let work = Workplace::with_images(6);
    let mut files: Vec<String> = (0..6).map(|n| format!("class{}/{n:03}.png", n % 2)).collect();
    files.sort();
    let list = files.iter().map(|file| format!("images/{file}\n")).collect::<String>();
    std::fs::write(work.path("list.txt"), format!("# two classes\n{list}")).unwrap();
    for (number, files) in files.chunks(3).enumerate() {
        let shard = std::fs::File::create(work.path(&format!("shard-{number:03}.tar"))).unwrap();
        let mut shard = tar::Builder::new(shard);
        for file in files {
            let member = file.replace('/', "-");
            shard.append_path_with_name(work.path("images").join(file), &member).unwrap();
            // WebDataset keeps labels beside the images.
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            let label = member.replace(".png", ".cls");
            shard.append_data(&mut header, label, b"0".as_slice()).unwrap();
        }
        shard.finish().unwrap();
    }
    let mut found = BTreeMap::new();
    for (run, data) in
        [("folder", "images"), ("list", "list.txt"), ("shards", "shard-{000..001}.tar")]
    {
        let finished = work.train(run, &["--data", data, "--epochs", "2"]).succeeded();
        assert_says(&finished.err, &[&format!("images   6 in {data}")]);
        found.insert(run, losses(&work, run));
    }
    assert_eq!(found["folder"].len(), 4);
    assert_eq!(found["list"], found["folder"]);
    assert_eq!(found["shards"], found["folder"]);
}
