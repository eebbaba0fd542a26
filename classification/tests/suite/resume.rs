//! A run that is killed and continued ends with the same bits as one that never
//! stopped.

use crate::common::{CLASSES, Workplace, assert_same_bits, with_images};
use classification::train::TrainState;

/// Everything that randomness or state touches is on: drop-path, accumulation,
/// augmentation, mixing, averages, checkpoints within an epoch.
pub const SETTINGS: &str = "--drop-path 0.3 --accum-steps 2 --augment trivial-wide \
                        --random-erasing 0.5 --mixup 0.5 --cutmix 1 --mix-probability 0.7 \
                        --repeats 2 --checkpoint-steps 2 --seed 5 --eval-epochs 2";

/// What a run exports.
const EXPORT: &str = "export/tiny_classifier.safetensors";

/// Step, loss and accuracies of every record, in order.
fn numbers(work: &Workplace, run: &str) -> Vec<(u64, [Option<f64>; 3])> {
    work.numbers(run, ["loss", "top1", "ema_top1"])
}

#[test]
fn killed_runs_end_with_the_same_bits() {
    let work = with_images(5);
    // Before the first checkpoint, in the middle of an epoch, at the end of one.
    work.ends_the_same_when_killed(EXPORT, &[1, 5, 9], SETTINGS);
    let expected = numbers(&work, "whole");
    // Twelve steps, four epochs and two evaluations.
    assert_eq!(expected.len(), 18, "{expected:?}");
    assert_eq!(numbers(&work, "killed"), expected);
}

/// The checkpoint is there before the evaluation is, which is made again from it.
#[test]
fn a_failed_evaluation_loses_nothing() {
    let work = with_images(2);
    let short = ["--epochs", "2", "--warmup-epochs", "0", "--eval-epochs", "1"];
    work.train("whole", &short).succeeded();
    std::fs::rename(work.path("images/val/red"), work.path("red")).unwrap();
    std::fs::create_dir(work.path("images/val/red")).unwrap();
    for number in 0..4 {
        std::fs::write(work.path(&format!("images/val/red/{number:03}.png")), b"").unwrap();
    }
    work.train("failed", &short).refused(&["of 12 files can't be used", "red/00"]);
    std::fs::remove_dir_all(work.path("images/val/red")).unwrap();
    std::fs::rename(work.path("red"), work.path("images/val/red")).unwrap();
    let went_on = work.run(&["train", "--output", "failed", "--resume"]).succeeded();
    assert!(went_on.err.contains("resuming after step 1 of 2"), "{}", went_on.err);
    assert_same_bits(&work.bits("whole", EXPORT), &work.bits("failed", EXPORT));
    assert_eq!(numbers(&work, "failed"), numbers(&work, "whole"));
}

/// The old run's best is not in the new folder, so that the new run must find its own.
#[test]
fn a_run_that_branches_off_has_a_best_of_its_own() {
    let work = with_images(3);
    work.train("old", &["--eval-epochs", "1"]).succeeded();
    let old = "old/checkpoints/last.safetensors";
    // A rate of nothing: no better than the old run's best.
    let more = ["--resume", old, "--epochs", "5", "--base-lr", "0"];
    work.train("new", &more).succeeded();
    assert!(work.path("new/checkpoints/best.safetensors").exists());
    assert!(work.path("new/checkpoints/best-ema.safetensors").exists());
    work.loses_its_last_checkpoint("new");
    std::fs::copy(work.path("old/checkpoints/best.safetensors"), work.path("best.safetensors"))
        .unwrap();
    // The validation images are enough to score on.
    std::fs::remove_dir_all(work.path("images/train")).unwrap();
    work.run(&["evaluate", "--weights", "best.safetensors"]).succeeded();
}

#[test]
fn another_optimizer_and_seed_give_other_bits() {
    let work = with_images(2);
    let train = |run: &str, more: &[&str]| {
        let more = [&["--epochs", "1", "--warmup-epochs", "0"], more].concat();
        work.train(run, &more).succeeded();
        work.bits(run, EXPORT)["export"].clone()
    };
    let first = train("a", &["--seed", "1"]);
    assert_eq!(train("b", &["--seed", "1"]), first);
    assert_ne!(train("c", &["--seed", "2"]), first);
    assert_ne!(train("d", &["--seed", "1", "--optimizer", "lamb"]), first);
}

#[test]
fn termination_saves_a_checkpoint_and_says_how_to_go_on() {
    let work = with_images(4);
    let state: TrainState = work.goes_on_after_termination("classify").state().unwrap();
    assert_eq!(state.task.classes, CLASSES);
}
