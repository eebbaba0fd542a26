//! Runs, flags and keys as they were formerly are understood.

use crate::common::{
    FirstForm, Workplace, assert_same_bits, assert_says, records, tensors, with_images,
};

const EXPORT: &str = "export/resnet18_spark.safetensors";

const FIRST: FirstForm = FirstForm {
    state: &[("best", "best_loss"), ("best_ema", ""), ("evaluation_pending", "")],
    settings: &[
        ("keep-checkpoints", "keep"),
        ("refresh-index", "relist"),
        ("shard-by-rank", "own-shards"),
        ("clip-mode", ""),
        ("ema", ""),
        ("ema-warmup", ""),
    ],
    other: |_| {},
};

/// The run `output` with the checkpoint of its second epoch as the last, in the first form.
fn first_form(work: &Workplace, output: &str) {
    let checkpoint = |name: &str| work.path(&format!("{output}/checkpoints/{name}.safetensors"));
    std::fs::rename(checkpoint("epoch-0002"), checkpoint("last")).unwrap();
    std::fs::remove_dir_all(work.path(output).join("export")).unwrap();
    FIRST.rewrite(&checkpoint("last"));
}

#[test]
fn a_run_of_the_first_form_goes_on_with_the_same_bits() {
    let work = with_images(6);
    let settings = ["--epochs", "3", "--keep", "5", "--seed", "3"];
    work.train("run", &settings).succeeded();
    let (bits, whole) = (work.bits("run", EXPORT), records(&work.path("run")));
    first_form(&work, "run");
    let told = work.run(&["train", "--output", "run", "--resume"]).succeeded();
    assert_says(&told.err, &["resuming after step 4 of 6"]);
    assert!(!told.err.contains("changed settings"), "{}", told.err);
    assert_same_bits(&bits, &work.bits("run", EXPORT));
    let losses = |records: &[serde_json::Value]| -> Vec<[Option<f64>; 3]> {
        let number =
            |record: &serde_json::Value| ["step", "loss", "epoch_loss"].map(|k| record[k].as_f64());
        records.iter().map(number).collect()
    };
    assert_eq!(losses(&records(&work.path("run"))), losses(&whole));
}

#[test]
fn a_checkpoint_of_the_first_form_is_used_like_any_other() {
    let work = with_images(4);
    work.train("run", &["--epochs", "3", "--keep", "5"]).succeeded();
    let export = |output: &str| {
        let arguments = ["export", "--checkpoint", "run", "--format", "official", "--output"];
        work.run(&[&arguments[..], &[output]].concat()).succeeded();
        tensors(&work, output)
    };
    first_form(&work, "run");
    let first = export("first.pth");
    let inspected = work.run(&["inspect", "run"]).succeeded().out;
    assert_says(&inspected, &["a run of pretrain train with:", "keep-checkpoints = 5"]);
    crate::common::reconstruct(&work, "run", &[]);
    let other = ["--resume", "run/checkpoints/last.safetensors", "--epochs", "3"];
    let told = work.train("other", &other).succeeded();
    assert_says(&told.err, &["resuming after step 2 of 3"]);
    let last = tensors(&work, &format!("other/{EXPORT}"));
    assert!(!last["conv1.weight"].equal(&first["conv1.weight"]), "it went on");
}

#[test]
fn former_names_of_settings_are_understood() {
    let work = with_images(1);
    let dump = |more: &[&str]| work.train("run", &[&["--dump-config"], more].concat());
    let flags = dump(&["--keep", "3", "--relist", "--own-shards", "--bs", "12"]).succeeded().out;
    assert_says(
        &flags,
        &[
            "keep-checkpoints = 3",
            "refresh-index = true",
            "shard-by-rank = true",
            "batch-size = 12",
        ],
    );
    let former = "keep = 3\nrelist = true\nown-shards = true\nbs = 12\n";
    std::fs::write(work.path("former.toml"), former).unwrap();
    let arguments = work.train_arguments("run", &["--dump-config", "--config", "former.toml"]);
    let without: Vec<&str> = {
        let at = arguments.iter().position(|flag| *flag == "--batch-size").unwrap();
        [&arguments[..at], &arguments[at + 2..]].concat()
    };
    assert_eq!(work.run(&without).succeeded().out, flags);
}

#[test]
fn a_key_that_is_no_setting_is_told_the_nearest() {
    let work = with_images(1);
    std::fs::write(work.path("a.toml"), "batch-sze = 8").unwrap();
    let part = "batch-sze is 8, but there is no such setting; the nearest is batch-size";
    work.train("run", &["--config", "a.toml"]).refused(&[part]);
}

#[test]
fn what_is_dumped_means_the_same_when_it_is_read() {
    let work = with_images(1);
    for preset in ["paper", "paper-384", "one-gpu", "small-data", "demo"] {
        let dump = |more: &[&str]| {
            let more = [&["train", "--dump-config"], more].concat();
            work.run(&more).succeeded().out
        };
        let more = ["--preset", preset, "--data", "d", "--output", "o", "--mean", "0.1,0.2,0.3"];
        let dumped = dump(&[&more[..], &["--sync-bn", "false", "--ema", "0.5"]].concat());
        std::fs::write(work.path("dumped.toml"), &dumped).unwrap();
        assert_eq!(dump(&["--config", "dumped.toml"]), dumped, "{preset}");
    }
}
