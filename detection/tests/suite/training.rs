//! What the training loop promises, whatever the program trains.

use std::collections::BTreeMap;

use crate::common::{
    Workplace, assert_same_bits, assert_says, names, records, with_data, with_resnet, words,
};
use detection::detector::Detector;
use detection::settings::DetectorSettings;
use engine::precision::Precision;
use engine::settings::from_layers;
use serde_json::Value;
use tch::Device;

const EXPORT: &str = "export/mask_rcnn_tiny.pth";

#[test]
fn asked_to_end_in_the_last_step_a_run_finishes() {
    let work = with_data(2);
    let finished = work.train_terminated_in_its_only_step("run", &["--epochs", "1"]).succeeded();
    assert_says(&finished.out, &["Average Precision", "detector"]);
    assert!(work.path("run").join(EXPORT).exists());
    assert!(work.path("run/report.json").exists());
}

#[test]
fn an_interval_of_0_is_the_end_of_the_run_alone() {
    let work = with_data(2);
    let more = "--epochs 3 --eval-epochs 0 --checkpoint-epochs 0 --keep 9";
    work.train("run", &words(more)).succeeded();
    let evaluated = |record: &Value| record.get("bbox/AP").and(record["step"].as_u64());
    let records = records(&work.path("run"));
    assert_eq!(records.iter().filter_map(evaluated).collect::<Vec<_>>(), [3]);
    let mut epochs = names(&work.path("run/checkpoints"));
    epochs.retain(|name| name.starts_with("epoch-"));
    assert_eq!(epochs, ["epoch-0003.safetensors"]);
}

fn averages(work: &Workplace, run: &str, more: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let more = [&["--epochs", "1", "--ema", "0.9", "--precise-bn", "0"], more].concat();
    work.train(run, &more).succeeded();
    work.bits(run, EXPORT).into_iter().filter(|(name, _)| name.starts_with("ema.")).collect()
}

#[test]
fn the_decay_of_averages_rises_unless_told_otherwise() {
    let work = with_data(2);
    let usual = averages(&work, "usual", &[]);
    assert_same_bits(&usual, &averages(&work, "rising", &["--ema-warmup"]));
    assert_ne!(usual, averages(&work, "constant", &["--ema-warmup", "false"]));
}

#[test]
fn every_optimizer_goes_on_with_the_same_bits_and_averages() {
    with_data(4).goes_on_with_every_optimizer(EXPORT, "1e-3", 2);
}

/// After PreciseBN all processes score with rank 0's statistics, which are then saved.
#[test]
fn statistics_that_are_not_shared_are_scored_as_they_are_saved() {
    let work = with_data(4);
    let more = "--sync-bn false --epochs 2 --eval-epochs 1 --workers 1 --precise-bn 2 --ema 0.5 \
                --precision float64";
    work.train_together(2, "run", &words(more));
    work.run(&["evaluate", "--weights", "run", "--output", "alone"]).succeeded();
    assert_eq!(work.json("alone/report.json"), work.json("run/report.json"));
}

fn detector(text: &str) -> Detector {
    let table = format!("backbone = \"resnet18\"\nsmall = true\n{text}").parse().unwrap();
    let mut settings: DetectorSettings = from_layers([table]).unwrap();
    settings.resolve(Precision::Float32).unwrap();
    Detector::build(&settings, None, 2, Device::Cpu).unwrap()
}

/// What `[model]` says of norms counts, whatever the detector it changes has.
#[test]
fn frozen_norms_learn_nothing() {
    let norm = "backbone.bottom_up.layer2.0.bn1";
    for (text, learns) in [
        ("", true),
        ("norm-eval = true", true),
        ("[model]\nbackbone-norm = \"frozen\"", false),
        ("detector = \"mask_rcnn_torchvision\"", false),
        ("detector = \"mask_rcnn_torchvision\"\n[model]\nbackbone-norm = \"batch\"", true),
    ] {
        let variables = detector(text).variables();
        for part in ["weight", "bias"] {
            let name = format!("{norm}.{part}");
            assert_eq!(variables[&name].requires_grad(), learns, "{name} with {text:?}");
        }
        let convolution = "backbone.bottom_up.layer2.0.conv1.weight";
        assert!(variables[convolution].requires_grad(), "{text:?}");
    }
}

#[test]
fn a_run_with_frozen_norms_leaves_them_as_they_are() {
    let work = with_resnet(2);
    let text = String::from_utf8(crate::common::read(work.path("short.toml"))).unwrap();
    let text = text.replace("[model]\n", "[model]\nbackbone-norm = \"frozen\"\n");
    std::fs::write(work.path("frozen.toml"), text).unwrap();
    work.train("run", &["--config", "frozen.toml", "--epochs", "2"]).succeeded();
    let model = work.checkpoint("run").section("model").unwrap();
    let of_backbone = model.iter().filter(|(name, _)| name.starts_with("backbone.bottom_up."));
    let mut norms = 0;
    for (name, mean) in of_backbone.filter(|(name, _)| name.ends_with(".running_mean")) {
        let norm = name.trim_end_matches("running_mean");
        let zero = mean.zeros_like();
        assert!(mean.equal(&zero) && model[&format!("{norm}bias")].equal(&zero), "{norm}");
        norms += 1;
    }
    assert_eq!(norms, 20);
}
