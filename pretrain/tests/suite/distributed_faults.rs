//! Processes that die, hang, are told to stop or are restarted: nothing is lost, nobody waits for
//! ever.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{
    Together, assert_same_bits, assert_says, wait_for_step, wait_for_unfinished_file, with_images,
    words,
};

/// What a run exports.
const EXPORT: &str = "export/resnet18_spark.safetensors";
/// How soon survivors have ended at the latest: they notice at once, but processes take time to
/// end on a loaded machine.
const SOON: Duration = Duration::from_secs(30);
/// Random draws of every kind, a checkpoint every second step, of a network whose steps and files
/// take long enough to be met in the middle.
const SETTINGS: &str = "--model resnet18 --accum-steps 2 --checkpoint-steps 2 --seed 5 \
                        --workers 1 --epochs 6";

/// The second process dies, the first says where.
fn kill_and_expect(mut ranks: Together, killed: usize) {
    ranks.signal(killed, "KILL");
    ranks.end_of(killed);
    let survivor = 1 - killed;
    let finished = ranks.end_within(survivor, SOON);
    finished.refused(&[&format!("rank {survivor} of 2"), "failed", "Another process has died"]);
}

#[test]
fn killed_at_any_time_a_run_ends_with_the_same_bits() {
    let work = with_images(10);
    let settings = words(SETTINGS);
    work.train_together(2, "whole", &settings);

    // In the middle of a step of the first epoch, before any checkpoint.
    let ranks = work.start_together(2, "killed", &settings, &[]);
    wait_for_step(&work.path("killed"), 1);
    kill_and_expect(ranks, 1);
    // Later, and rank 0 itself.
    let resumed = [&settings[..], &["--resume"]].concat();
    let ranks = work.start_together(2, "killed", &resumed, &[]);
    wait_for_step(&work.path("killed"), 7);
    kill_and_expect(ranks, 0);
    // While a checkpoint is being written.
    let ranks = work.start_together(2, "killed", &resumed, &[]);
    wait_for_step(&work.path("killed"), 10);
    wait_for_unfinished_file(&work.path("killed/checkpoints"));
    kill_and_expect(ranks, 0);
    work.checkpoint("killed");

    work.train_together(2, "killed", &resumed);
    assert_same_bits(&work.bits("whole", EXPORT), &work.bits("killed", EXPORT));
    assert_eq!(work.curve("killed"), work.curve("whole"));
}

#[test]
fn a_process_that_hangs_is_waited_for_no_longer_than_allowed() {
    let work = with_images(8);
    let more = ["--epochs", "400", "--dist-timeout", "4", "--workers", "1"];
    let mut ranks = work.start_together(2, "run", &more, &[]);
    wait_for_step(&work.path("run"), 2);
    ranks.signal(1, "STOP");
    let since = Instant::now();
    let finished = ranks.end_within(0, SOON);
    assert!(since.elapsed() >= Duration::from_secs(3), "it was given its time");
    finished.refused(&["rank 0 of 2", "at step ", "Timed out", "timeout of 4 s"]);
    ranks.signal(1, "CONT");
    ranks.end_within(1, SOON).refused(&["rank 1 of 2"]);
}

#[test]
fn termination_of_any_process_saves_a_checkpoint_and_ends_all() {
    let work = with_images(8);
    let more = ["--epochs", "200", "--workers", "1"];
    let mut ranks = work.start_together(2, "run", &more, &[]);
    wait_for_step(&work.path("run"), 3);
    ranks.signal(1, "TERM");
    for rank in 0..2 {
        ranks.end_within(rank, SOON).refused(&["interrupted after step"]);
    }
    let state: pretrain::train::TrainState = work.checkpoint("run").state().unwrap();
    assert!(state.step >= 3 && state.processes == 2, "{state:?}");

    // On another number of processes it goes on, and says what that changes.
    let epochs = (state.step / 2 + 2).to_string();
    let alone = work.train("run", &["--epochs", &epochs, "--resume"]).succeeded();
    assert_says(&alone.err, &["continuing on 1 process what 2 processes began", "stay the same"]);
}

#[test]
fn a_full_disk_keeps_the_last_good_checkpoint() {
    let work = with_images(8);
    work.train_together(2, "run", &["--epochs", "2", "--workers", "1"]);
    let before = std::fs::read(work.path("run/checkpoints/last.safetensors")).unwrap();
    // No file may grow beyond 64 kilobytes, which a checkpoint needs.
    let arguments = work.train_arguments("run", &["--epochs", "4", "--resume", "--workers", "1"]);
    let plain = work.command(&arguments);
    let limited = |_| {
        let mut shell = Command::new("bash");
        shell.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]);
        shell.arg(plain.get_program()).args(plain.get_args());
        shell.current_dir(plain.get_current_dir().unwrap());
        shell
    };
    let ends = Together::start(2, &[], limited).end();
    let [main, other] = &ends[..] else { unreachable!() };
    assert!(!main.ok && !other.ok);
    assert_says(&main.err, &["cannot save a checkpoint", "File too large"]);
    assert_says(&other.err, &["stopped because of rank 0: cannot save a checkpoint"]);
    assert!(std::fs::read(work.path("run/checkpoints/last.safetensors")).unwrap() == before);
    assert_eq!(std::fs::read_dir(work.path("run/checkpoints")).unwrap().count(), 1 + 1);
}
