//! A run that is killed and continued ends with the same bits as one that
//! never stopped.

use crate::common::{Workplace, assert_same_bits, records, with_images};

/// Everything that randomness touches is on: drop-path, accumulation, crops.
const SETTINGS: &[&str] =
    &["--drop-path", "0.3", "--accum-steps", "2", "--checkpoint-steps", "2", "--seed", "5"];

/// What a run exports.
const EXPORT: &str = "export/resnet18_spark.safetensors";

/// Step and loss of every record of a step, in order.
fn losses(work: &Workplace, run: &str) -> Vec<(u64, f64)> {
    let records = records(&work.path(run)).into_iter();
    let loss =
        |record: serde_json::Value| Some((record["step"].as_u64()?, record["loss"].as_f64()?));
    records.filter_map(loss).collect()
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = with_images(10);
    work.train("whole", SETTINGS).succeeded();
    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    work.train_killed_after("killed", &[1, 5, 9], SETTINGS);

    assert_same_bits(&work.bits("whole", EXPORT), &work.bits("killed", EXPORT));
    let expected = losses(&work, "whole");
    assert_eq!(expected.len(), 12);
    assert_eq!(losses(&work, "killed"), expected);
}

#[test]
fn another_seed_gives_other_bits() {
    let work = with_images(4);
    work.train("a", &["--seed", "1", "--epochs", "2"]).succeeded();
    work.train("b", &["--seed", "2", "--epochs", "2"]).succeeded();
    assert_ne!(work.bits("a", EXPORT)["export"], work.bits("b", EXPORT)["export"]);
}

#[test]
fn termination_saves_a_checkpoint_and_says_how_to_go_on() {
    let work = with_images(8);
    let finished = work.train_terminated("run", 3, &["--epochs", "200"]);
    finished.refused(&["interrupted after step", "pretrain train --output run --resume"]);

    let state: pretrain::train::TrainState = work.checkpoint("run").state().unwrap();
    assert!(state.step >= 3);
    let epochs = (state.step / 2 + 1).to_string();
    let more = ["train", "--output", "run", "--resume", "--epochs", &epochs];
    let finished = work.run(&more).succeeded();
    let changed = format!("epochs: 200 → {epochs}");
    assert!(finished.err.contains(&changed), "{}", finished.err);
}

#[test]
fn a_checkpoint_can_be_continued_in_another_folder() {
    let work = with_images(4);
    work.train("a", &["--epochs", "2"]).succeeded();
    let checkpoint = "a/checkpoints/last.safetensors";
    let finished = work.train("b", &["--epochs", "3", "--resume", checkpoint]).succeeded();
    assert!(finished.err.contains("resuming after step 2 of 3"), "{}", finished.err);
    assert_eq!(losses(&work, "b").len(), 1, "only its own steps are in its metrics");
    assert_eq!(losses(&work, "a").len(), 2, "the other run is left alone");
    work.loses_its_last_checkpoint("b");
}
