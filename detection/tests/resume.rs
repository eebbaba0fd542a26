//! A run that is killed and continued ends with the same bits as one that never
//! stopped.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Finished, Workplace, read, wait_for_step};
use detection::train::TrainState;
use engine::checkpoint::CheckpointFile;

/// Everything that randomness or state touches is on: accumulation, averages,
/// renewed statistics, checkpoints within an epoch.
const SETTINGS: &[&str] = &[
    "--accum-steps",
    "2",
    "--checkpoint-steps",
    "2",
    "--seed",
    "5",
    "--ema",
    "0.9",
    "--epochs",
    "3",
    "--eval-epochs",
    "2",
    "--drop-path",
    "0.3",
];

/// Every tensor's bytes of the last checkpoint, and the exported detector.
fn bits(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = CheckpointFile::open(&run.join("checkpoints/last.safetensors")).unwrap();
    let mut bits = BTreeMap::new();
    for section in ["model", "optimizer", "ema"] {
        for (name, tensor) in checkpoint.section(section).unwrap() {
            let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            let count = tensor.numel();
            tensor.contiguous().view([-1]).copy_data_u8(&mut bytes, count);
            bits.insert(format!("{section}.{name}"), bytes);
        }
    }
    bits.insert("export".into(), read(run.join("export/mask_rcnn_resnet50.pth")));
    bits
}

/// Step and loss of every record, and the figures, in order.
fn numbers(run: &Path) -> Vec<(u64, Option<f64>, Option<f64>)> {
    let text = String::from_utf8(read(run.join("metrics.jsonl"))).unwrap();
    let number = |line: &str| {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let step = record["step"].as_u64().unwrap();
        (step, record["loss"].as_f64(), record["bbox/AP"].as_f64())
    };
    text.lines().map(number).collect()
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = Workplace::with_data(6);
    work.train("whole", SETTINGS).succeeded();
    let whole = bits(&work.path("whole"));

    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    let mut more = SETTINGS.to_vec();
    for step in [1, 5, 6] {
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
    std::fs::write(&metrics, [read(&metrics), b"{\"step\":7,\"lo".to_vec()].concat()).unwrap();
    // The run's own settings are taken from its folder.
    let finished = work.run(&["train", "--output", "killed", "--resume"]).succeeded();
    assert!(finished.err.contains("resuming after step"), "{}", finished.err);

    let killed = bits(&work.path("killed"));
    assert_eq!(whole.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
    for (name, bytes) in &whole {
        assert!(bytes == &killed[name], "{name} differs");
    }
    let expected = numbers(&work.path("whole"));
    // Nine steps, and evaluations after the second and the last epoch.
    assert_eq!(expected.len(), 11, "{expected:?}");
    assert_eq!(numbers(&work.path("killed")), expected);
}

#[test]
fn termination_saves_a_checkpoint_and_says_how_to_go_on() {
    let work = Workplace::with_data(4);
    let child = work.start("run", &["--epochs", "200"]);
    wait_for_step(&work.path("run"), 3);
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let finished = Finished::from(child.wait_with_output().unwrap());
    finished.refused(&["interrupted after step", "detect train --output run --resume"]);

    let checkpoint = work.path("run/checkpoints/last.safetensors");
    let state: TrainState = CheckpointFile::open(&checkpoint).unwrap().state().unwrap();
    assert!(state.step >= 3);
    assert_eq!(state.classes.len(), 2);
    let epochs = (state.step / 2 + 1).to_string();
    let more = ["train", "--output", "run", "--resume", "--epochs", &epochs];
    let finished = work.run(&more).succeeded();
    let changed = format!("epochs: 200 → {epochs}");
    assert!(finished.err.contains(&changed), "{}", finished.err);
}
