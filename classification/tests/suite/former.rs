//! Runs, flags and keys as they were formerly are understood.

use crate::common::{FirstForm, assert_says, with_images, words};

const EXPORT: &str = "export/tiny_classifier.safetensors";

const FIRST: FirstForm = FirstForm {
    state: &[("evaluation_pending", "unevaluated"), ("epoch_loss", "")],
    settings: &[
        ("keep-checkpoints", "keep"),
        ("refresh-index", "relist"),
        ("aug-repeats", "repeats"),
        ("crop-pct", "eval-crop"),
        ("crop-mode", ""),
        ("mixup-prob", "mix-probability"),
        ("mixup-switch-prob", "cutmix-share"),
        ("reset-head", "new-head"),
        ("clip-mode", ""),
    ],
    other: |config| {
        config.entry("beta2").or_insert(0.999.into());
        config.insert("eval-squash".into(), false.into());
    },
    best: &["best", "best-ema"],
};

#[test]
fn a_run_of_the_first_form_goes_on_with_the_same_bits() {
    let settings = "--epochs 4 --keep 5 --seed 3 --mixup 0.3 --eval-epochs 1 --repeats 2";
    FIRST.goes_on(&with_images(3), settings, EXPORT, "4 of 8", &["loss", "top1", "ema_top1"]);
}

#[test]
fn a_checkpoint_of_the_first_form_is_used_like_any_other() {
    let work = with_images(2);
    work.train("run", &["--epochs", "3", "--keep", "5", "--eval-epochs", "1"]).succeeded();
    FIRST.rewrite(&work, "run");
    for weights in ["run", "run/checkpoints/last.safetensors"] {
        let told = work.run(&["evaluate", "--weights", weights]).succeeded();
        assert_says(&told.out, &["images   12", "top-1"]);
        let predict = ["predict", "--weights", weights, "--json", "found.json", "images/val/red"];
        work.run(&predict).succeeded();
        work.run(&["export", "--weights", weights, "--output", "first.pth"]).succeeded();
    }
    FirstForm::is_continued_elsewhere(&work);
    let start = ["--weights", "run", "--epochs", "1", "--warmup-epochs", "0"];
    assert_says(&work.train("next", &start).succeeded().err, &["initial weights from run"]);
}

/// In the first form 0 was the way to say that no interval was given.
#[test]
fn an_interval_of_0_in_a_run_of_the_first_form_is_none() {
    let work = with_images(2);
    let more = ["--epochs", "6", "--keep", "9", "--eval-epochs", "0", "--checkpoint-epochs", "1"];
    work.train("run", &more).succeeded();
    FIRST.rewrite(&work, "run");
    work.run(&["train", "--output", "run", "--resume"]).succeeded();
    let numbers = work.numbers("run", ["top1"]).into_iter();
    let evaluated: Vec<u64> = numbers.filter_map(|(step, [top1])| top1.and(Some(step))).collect();
    assert_eq!(evaluated, [3, 4, 5, 6]);
}

#[test]
fn former_names_of_settings_are_understood() {
    let work = with_images(1);
    let dump = |more: &[&str]| work.train("run", &[&["--dump-config"], more].concat());
    let flags = "--keep 3 --relist --repeats 2 --eval-crop 0.5 --eval-squash \
                 --mix-probability 0.25 --cutmix-share 0.75 --new-head";
    let flags = dump(&words(flags)).succeeded().out;
    assert_says(
        &flags,
        &[
            "keep-checkpoints = 3",
            "refresh-index = true",
            "aug-repeats = 2",
            "crop-pct = 0.5",
            "crop-mode = \"squash\"",
            "mixup-prob = 0.25",
            "mixup-switch-prob = 0.75",
            "reset-head = true",
        ],
    );
    let former = "keep = 3\nrelist = true\nrepeats = 2\neval-crop = 0.5\neval-squash = true\n\
                  mix-probability = 0.25\ncutmix-share = 0.75\nnew-head = true\n";
    std::fs::write(work.path("former.toml"), former).unwrap();
    assert_eq!(dump(&["--config", "former.toml"]).succeeded().out, flags);
    let not = dump(&["--config", "former.toml", "--eval-squash", "false"]).succeeded().out;
    assert_says(&not, &["crop-mode = \"center\""]);
}

#[test]
fn a_key_that_is_no_setting_is_told_the_nearest() {
    with_images(1).tells_the_nearest_setting();
}

#[test]
fn what_is_dumped_means_the_same_when_it_is_read() {
    let presets = ["resnet50", "convnext_large_384", "small-data", "demo"];
    with_images(1).dumps_what_reads_the_same(&presets, "--eval-epochs 0 --sync-bn false");
}
