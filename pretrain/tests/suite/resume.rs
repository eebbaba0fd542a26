//! A run that is killed and continued ends with the same bits as one that
//! never stopped.

use crate::common::with_images;

/// Everything that randomness touches is on: drop-path, accumulation, crops.
pub const SETTINGS: &str = "--drop-path 0.3 --accum-steps 2 --checkpoint-steps 2 --seed 5";

/// What a run exports.
const EXPORT: &str = "export/tiny_spark.safetensors";

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = with_images(10);
    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    work.ends_the_same_when_killed(EXPORT, &[1, 5, 9], SETTINGS);
    let expected = work.curve("whole");
    assert_eq!(expected.len(), 12);
    assert_eq!(work.curve("killed"), expected);
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
    let left = work.goes_on_after_termination("pretrain");
    left.state::<pretrain::train::TrainState>().unwrap();
}

#[test]
fn a_checkpoint_can_be_continued_in_another_folder() {
    let work = with_images(4);
    work.train("a", &["--epochs", "2"]).succeeded();
    let checkpoint = "a/checkpoints/last.safetensors";
    let finished = work.train("b", &["--epochs", "3", "--resume", checkpoint]).succeeded();
    assert!(finished.err.contains("resuming after step 2 of 3"), "{}", finished.err);
    assert_eq!(work.curve("b").len(), 1, "only its own steps are in its metrics");
    assert_eq!(work.curve("a").len(), 2, "the other run is left alone");
    work.loses_its_last_checkpoint("b");
}
