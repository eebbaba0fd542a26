//! What the training loop promises, whatever the program trains.

use crate::common::{
    Workplace, assert_same_bits, assert_says, make_pending, names, with_images, words,
};

const EXPORT: &str = "export/tiny_classifier.safetensors";

/// Step and figures of every evaluation.
fn evaluations(work: &Workplace, run: &str) -> Vec<(u64, [Option<f64>; 4])> {
    let mut figures = work.numbers(run, ["top1", "val_loss", "ema_top1", "ema_val_loss"]);
    figures.retain(|(_, [top1, ..])| top1.is_some());
    figures
}

fn steps_of_evaluations(work: &Workplace, run: &str) -> Vec<u64> {
    evaluations(work, run).iter().map(|(step, _)| *step).collect()
}

#[test]
fn asked_to_end_in_the_last_step_a_run_finishes() {
    let work = with_images(2);
    let more = ["--epochs", "1", "--warmup-epochs", "0", "--model", "resnet50"];
    let finished = work.train_terminated_in_its_only_step("run", &more).succeeded();
    assert_says(&finished.out, &["best top-1", "timm folder"]);
    assert!(work.path("run/export/timm/model.safetensors").exists());
}

#[test]
fn an_interval_of_0_is_the_end_of_the_run_alone() {
    let work = with_images(2);
    let more = "--epochs 3 --eval-epochs 0 --checkpoint-epochs 0 --keep 9";
    work.train("run", &words(more)).succeeded();
    assert_eq!(steps_of_evaluations(&work, "run"), [3]);
    let mut epochs = names(&work.path("run/checkpoints"));
    epochs.retain(|name| name.starts_with("epoch-"));
    assert_eq!(epochs, ["epoch-0003.safetensors"]);
}

/// Seldom in the first third of the run, then after each epoch.
#[test]
fn without_an_interval_evaluations_grow_more_frequent() {
    let work = with_images(2);
    std::fs::write(work.path("own.toml"), crate::common::SHORT_TOML).unwrap();
    let more = ["train", "--output", "run", "--config", "own.toml", "--epochs", "7"];
    work.run(&[&more[..], &["--preset", "resnet50"]].concat()).succeeded();
    assert_eq!(steps_of_evaluations(&work, "run"), [3, 4, 5, 6, 7]);
}

/// Without shared statistics each process has followed its own images; rank 0's are saved, and
/// those are scored, on all processes.
#[test]
fn what_is_scored_on_several_processes_is_what_is_saved() {
    let work = with_images(6);
    let more = "--sync-bn false --precision float64 --epochs 2 --workers 1 --eval-epochs 2 \
                --ema 0.5";
    work.train_together(2, "run", &words(more));
    let together = evaluations(&work, "run");
    make_pending(&work.path("run/checkpoints/last.safetensors"));
    work.run(&["train", "--output", "run", "--resume"]).succeeded();
    let alone = evaluations(&work, "run");
    assert_eq!((together.len(), alone.len()), (1, 1));
    for (together, alone) in together[0].1.iter().zip(alone[0].1) {
        let (together, alone) = (together.unwrap(), alone.unwrap());
        // Sums in another order.
        assert!((together - alone).abs() < 1e-9, "{together} on two processes, {alone} on one");
    }
}

#[test]
fn averages_have_their_full_decay_from_the_first_step_on_unless_told_otherwise() {
    let work = with_images(2);
    std::fs::write(work.path("own.toml"), crate::common::SHORT_TOML).unwrap();
    let averages = |run: &str, more: &[&str]| {
        let own = ["train", "--output", run, "--preset", "resnet50", "--config", "own.toml"];
        let short = ["--epochs", "1", "--warmup-epochs", "0", "--ema", "0.9"];
        work.run(&[&own[..], &short, more].concat()).succeeded();
        work.bits(run, EXPORT).into_iter().filter(|(name, _)| name.starts_with("ema.")).collect()
    };
    let usual: std::collections::BTreeMap<_, _> = averages("usual", &[]);
    assert_same_bits(&usual, &averages("constant", &["--ema-warmup", "false"]));
    assert_ne!(usual, averages("rising", &["--ema-warmup"]));
}

#[test]
fn every_optimizer_goes_on_with_the_same_bits_and_averages() {
    with_images(3).goes_on_with_every_optimizer(EXPORT, "0.005", 3);
}
