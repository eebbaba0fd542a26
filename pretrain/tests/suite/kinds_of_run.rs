//! Runs in other precisions, on other channels and sizes, and from every kind
//! of data set.

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::{
    SHORTER, Workplace, assert_says, check_reconstruction, labelled, reconstruct, records, section,
    shorter, tensors, with_images,
};
use backbone::weights;
use pretrain::train::TrainState;

/// Records of steps in metrics.jsonl.
fn steps(work: &Workplace, run: &str) -> Vec<serde_json::Value> {
    records(&work.path(run)).into_iter().filter(|record| record.get("lr").is_some()).collect()
}

fn losses(work: &Workplace, run: &str) -> Vec<f64> {
    steps(work, run).iter().map(|record| record["loss"].as_f64().unwrap()).collect()
}

#[test]
fn reduced_precision() {
    let work = with_images(8);
    work.train("float32", &SHORTER).succeeded();
    let full = losses(&work, "float32");
    for precision in ["bfloat16", "float16"] {
        work.train(precision, &shorter(&["--precision", precision])).succeeded();
        let reduced = losses(&work, precision);
        assert_eq!(reduced.len(), full.len());
        // The same batch, masks and weights: only rounding differs, 2⁻⁸ in
        // bfloat16, through eighteen layers.
        assert!((reduced[0] - full[0]).abs() < 0.05 * full[0], "{reduced:?} for {full:?}");
        assert!(reduced.iter().all(|loss| loss.is_finite()) && reduced != full, "{reduced:?}");
    }
}

/// Gradients of a loss scaled by 2¹⁶ can overflow float16: such a step is left
/// out, and the scale halved until they fit.
#[test]
fn float16_leaves_out_steps_that_overflow() {
    let work = with_images(8);
    work.train("first", &SHORTER).succeeded();
    // A last layer that is much too large makes for large gradients.
    let mut weights = section(&work, "first", "model");
    let name = "dense_decoder.proj.weight";
    weights.insert(name.into(), &weights[name] * 100.0);
    weights::write_pth(work.path("large.pth"), &weights).unwrap();

    let flags = ["--precision", "float16", "--init-weights", "large.pth", "--epochs", "5"];
    work.train("run", &flags).succeeded();
    let skipped = steps(&work, "run").iter().filter(|r| r.get("grad_norm").is_none()).count();
    let state: TrainState = work.checkpoint("run").state().unwrap();
    let factor = state.scaler.unwrap().factor();
    assert!(skipped > 0 && skipped < 10, "{skipped} of 10 steps skipped");
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

/// A run with these flags, whose two images of a size are reconstructed.
fn train_and_reconstruct(work: &Workplace, run: &str, flags: &[&str], size: [i64; 4]) {
    work.train(run, &shorter(flags)).succeeded();
    let (_, found) = reconstruct(work, run, &[]);
    check_reconstruction(&found, size, 2);
}

#[test]
fn other_than_three_channels() {
    let work = with_images(4);
    train_and_reconstruct(
        &work,
        "grey",
        &["--model", "resnet18", "--in-chans", "1"],
        [2, 1, 64, 64],
    );

    std::fs::create_dir(work.path("arrays")).unwrap();
    for number in 0..4 {
        write_npy(&work.path(&format!("arrays/{number}.npy")), (70, 90, 5), number);
    }
    let statistics = ["--mean", "0.5,0.5,0.5,0.5,0.5", "--std", "0.3,0.3,0.3,0.3,0.3"];
    let flags = shorter(&["--model", "resnet18", "--data", "arrays", "--in-chans", "5"]);
    work.train("five", &[flags.as_slice(), &statistics].concat()).succeeded();
    let arguments = ["--output", "s.png", "--tensors", "tensors", "arrays/0.npy"];
    let five = ["reconstruct", "--checkpoint", "five"];
    work.run(&[five.as_slice(), &arguments].concat()).succeeded();
    let of_run = tensors(&work, "tensors");
    check_reconstruction(&of_run, [1, 5, 64, 64], 2);

    for (run, channels) in [("grey", 1), ("five", 5)] {
        let said = work.run(&["inspect", &format!("{run}/export/timm")]).succeeded().out;
        assert_says(&said, &["model: resnet18, complete"]);
        let config = work.json(&format!("{run}/export/timm/config.json"));
        let config = &config["pretrained_cfg"];
        assert_eq!(config["input_size"], serde_json::json!([channels, 64, 64]));
        assert_eq!(config["std"].as_array().unwrap().len(), channels);
    }

    // Without settings, statistics come from the command line.
    weights::write_pth(work.path("five.pth"), &section(&work, "five", "model")).unwrap();
    let foreign = ["reconstruct", "--checkpoint", "five.pth", "--input-size", "64"];
    work.run(&[foreign.as_slice(), &arguments].concat()).refused(&["give --mean and --std"]);
    work.run(&[foreign.as_slice(), &statistics, &arguments].concat()).succeeded();
    let found = tensors(&work, "tensors");
    assert!(of_run.iter().all(|(name, tensor)| found[name].equal(tensor)));
}

#[test]
fn images_that_are_not_square() {
    let work = with_images(4);
    train_and_reconstruct(&work, "run", &["--input-size", "64x96"], [2, 3, 64, 96]);
    assert_says(&work.run(&["inspect", "run"]).succeeded().out, &["input-size = \"64x96\""]);
}

/// The same images in the same order: the same losses.
#[test]
fn lists_and_tar_shards() {
    let work = with_images(6);
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
        let finished = work.train(run, &shorter(&["--data", data])).succeeded();
        assert_says(&finished.err, &[&format!("images   6 in {data}")]);
        found.insert(run, losses(&work, run));
    }
    assert_eq!(found["folder"].len(), 2);
    assert_eq!(found["list"], found["folder"]);
    assert_eq!(found["shards"], found["folder"]);
}

#[test]
fn the_encoder_is_probed_now_and_then() {
    let work = with_images(8);
    labelled(&work);
    let more = ["--epochs", "3", "--probe-epochs", "2"];
    let probing = [&more[..], &["--probe", "labelled"]].concat();
    work.train("probed", &probing).succeeded();
    let probes: Vec<(u64, f64)> = records(&work.path("probed"))
        .iter()
        .filter_map(|record| {
            // Beside the figure that is usual.
            record["knn_top1"].as_f64()?;
            Some((record["finished_epoch"].as_u64()?, record["linear_top1"].as_f64()?))
        })
        .collect();
    assert_eq!(probes.iter().map(|probe| probe.0).collect::<Vec<_>>(), [2, 3]);
    assert!(probes.iter().all(|probe| (0.0..=1.0).contains(&probe.1)), "{probes:?}");

    // To look changes nothing.
    work.train("plain", &more).succeeded();
    let export = "export/tiny_spark.safetensors";
    crate::common::assert_same_bits(&work.bits("probed", export), &work.bits("plain", export));

    let whitened = [&probing[..], &["--probe-figure", "knn-whitened"]].concat();
    let said = work.train("whitened", &whitened).succeeded().err;
    assert!(said.contains("% by nearest neighbours, whitened, "), "{said}");
    let record = records(&work.path("whitened"))
        .into_iter()
        .rfind(|record| record["knn_whitened_top1"].is_number() && record["knn_top1"].is_number());
    assert!(record.is_some_and(|record| record["linear_top1"].is_null()));

    let elsewhere = [&more[..], &["--probe", "images"]].concat();
    work.train("next", &elsewhere)
        .refused(&["cannot probe on --probe images", "no folder \"train\""]);
}
