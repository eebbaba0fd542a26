//! A run that is killed and continued ends with the same bits as one that
//! never stopped.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Finished, Workplace, read};
use engine::checkpoint::CheckpointFile;

/// Everything that randomness touches is on: drop-path, accumulation, crops.
const SETTINGS: &[&str] =
    &["--drop-path", "0.3", "--accum-steps", "2", "--checkpoint-steps", "2", "--seed", "5"];

/// Every tensor's bytes of the last checkpoint, and the exported encoder.
fn bits(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = CheckpointFile::open(&run.join("checkpoints/last.safetensors")).unwrap();
    let mut bits = BTreeMap::new();
    for section in ["model", "optimizer"] {
        for (name, tensor) in checkpoint.section(section).unwrap() {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            let count = tensor.numel();
            tensor.contiguous().view([-1]).copy_data_u8(&mut bytes, count);
            bits.insert(format!("{section}.{name}"), bytes);
        }
    }
    bits.insert("export".into(), read(run.join("export/resnet18_spark.safetensors")));
    bits
}

/// Step and loss of every record, in order.
fn losses(run: &Path) -> Vec<(u64, f64)> {
    let text = String::from_utf8(read(run.join("metrics.jsonl"))).unwrap();
    let records = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let loss =
        |record: serde_json::Value| Some((record["step"].as_u64()?, record["loss"].as_f64()?));
    records.filter_map(loss).collect()
}

fn wait_for_step(run: &Path, step: u64) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        if text.contains(&format!("\"step\":{step},")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("the run never came to step {step}");
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = Workplace::with_images(10);
    work.train("whole", SETTINGS).succeeded();
    let whole = bits(&work.path("whole"));

    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    let mut more = SETTINGS.to_vec();
    for step in [1, 5, 9] {
        let mut child = work.start("killed", &more);
        wait_for_step(&work.path("killed"), step);
        child.kill().unwrap();
        child.wait().unwrap();
        if !more.contains(&"--resume") {
            more.push("--resume");
        }
    }
    // A line torn by the kill.
    let metrics = work.path("killed/metrics.jsonl");
    let torn = [read(&metrics), b"{\"step\":10,\"lo".to_vec()].concat();
    std::fs::write(&metrics, torn).unwrap();
    // The run's own settings are taken from its folder.
    let finished = work.run(&["train", "--output", "killed", "--resume"]).succeeded();
    assert!(finished.err.contains("resuming after step"), "{}", finished.err);

    let killed = bits(&work.path("killed"));
    assert_eq!(whole.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
    for (name, bytes) in &whole {
        assert!(bytes == &killed[name], "{name} differs");
    }
    let expected = losses(&work.path("whole"));
    assert_eq!(expected.len(), 12);
    assert_eq!(losses(&work.path("killed")), expected);
}

#[test]
fn another_seed_gives_other_bits() {
    let work = Workplace::with_images(4);
    work.train("a", &["--seed", "1", "--epochs", "2"]).succeeded();
    work.train("b", &["--seed", "2", "--epochs", "2"]).succeeded();
    assert_ne!(bits(&work.path("a"))["export"], bits(&work.path("b"))["export"]);
}

#[test]
fn termination_saves_a_checkpoint_and_says_how_to_go_on() {
    let work = Workplace::with_images(8);
    let child = work.start("run", &["--epochs", "200"]);
    wait_for_step(&work.path("run"), 3);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let finished = Finished::from(child.wait_with_output().unwrap());
    finished.refused(&["interrupted after step", "pretrain train --output run --resume"]);

    let folder = work.path("run");
    let checkpoint = CheckpointFile::open(&folder.join("checkpoints/last.safetensors")).unwrap();
    let state: pretrain::train::TrainState = checkpoint.state().unwrap();
    assert!(state.step >= 3);
    let epochs = (state.step / 2 + 1).to_string();
    let more = ["train", "--output", "run", "--resume", "--epochs", &epochs];
    let finished = work.run(&more).succeeded();
    let changed = format!("epochs: 200 → {epochs}");
    assert!(finished.err.contains(&changed), "{}", finished.err);
}

#[test]
fn a_checkpoint_can_be_continued_in_another_folder() {
    let work = Workplace::with_images(4);
    work.train("a", &["--epochs", "2"]).succeeded();
    let checkpoint = "a/checkpoints/last.safetensors";
    let finished = work.train("b", &["--epochs", "3", "--resume", checkpoint]).succeeded();
    assert!(finished.err.contains("resuming after step 2 of 3"), "{}", finished.err);
    assert_eq!(losses(&work.path("b")).len(), 1, "only its own steps are in its metrics");
    assert_eq!(losses(&work.path("a")).len(), 2, "the other run is left alone");
}
