//! A run that is killed and continued ends with the same bits as one that never
//! stopped.

use std::path::PathBuf;

use crate::common::{Workplace, assert_same_bits, read, wait_for_step, with_data};
use detection::train::TrainState;

/// Everything that randomness or state touches is on: accumulation, averages,
/// renewed statistics, checkpoints within an epoch.
pub const SETTINGS: &str = "--accum-steps 2 --checkpoint-steps 2 --seed 5 --ema 0.9 --epochs 3 \
                        --eval-epochs 2 --drop-path 0.3";

/// What a run exports.
const EXPORT: &str = "export/mask_rcnn_tiny.pth";

/// Step, loss and AP of every record, in order.
fn numbers(work: &Workplace, run: &str) -> Vec<(u64, [Option<f64>; 2])> {
    work.numbers(run, ["loss", "bbox/AP"])
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = with_data(6);
    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    let whole = work.ends_the_same_when_killed(EXPORT, &[1, 5, 6], SETTINGS);
    assert!(whole.keys().any(|name| name.starts_with("ema.")), "averages are compared, too");
    let expected = numbers(&work, "whole");
    // Nine steps, three epochs, and evaluations after the second and the last.
    assert_eq!(expected.len(), 14, "{expected:?}");
    assert_eq!(numbers(&work, "killed"), expected);
    work.loses_its_last_checkpoint("whole");
}

/// The checkpoint is written before an evaluation, which is made up when the run goes on.
#[test]
fn an_evaluation_that_fails_costs_no_training() {
    let work = with_data(4);
    let export = EXPORT.replace("tiny", "resnet18");
    // Steps that take long enough for the images to be broken before the evaluation.
    let once = ["--backbone", "resnet18", "--epochs", "2", "--seed", "5", "--eval-epochs", "2"];
    work.train("whole", &once).succeeded();
    let images: Vec<PathBuf> = std::fs::read_dir(work.path("demo/val"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let pictures: Vec<Vec<u8>> = images.iter().map(read).collect();
    let child = work.start("broken", &once);
    wait_for_step(&work.path("broken"), 1);
    images.iter().for_each(|image| std::fs::write(image, b"no picture").unwrap());
    assert!(!child.wait_with_output().unwrap().status.success());
    let state: TrainState = work.checkpoint("broken").state().unwrap();
    assert_eq!((state.step, state.evaluation_pending), (4, true));

    for (image, picture) in images.iter().zip(&pictures) {
        std::fs::write(image, picture).unwrap();
    }
    work.run(&["train", "--output", "broken", "--resume"]).succeeded();
    assert_same_bits(&work.bits("whole", &export), &work.bits("broken", &export));
    assert_eq!(numbers(&work, "broken"), numbers(&work, "whole"));
    let report = |run: &str| read(work.path(run).join("report.json"));
    assert!(report("broken") == report("whole"));
}

#[test]
fn termination_saves_a_checkpoint_and_says_how_to_go_on() {
    let work = with_data(4);
    let state: TrainState = work.goes_on_after_termination("detect").state().unwrap();
    assert_eq!(state.task.classes.len(), 2);
}
