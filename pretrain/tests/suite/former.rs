//! Runs, flags and keys as they were formerly are understood.

use crate::common::{
    FirstForm, assert_same_bits, assert_says, read, rewrite, tensors, with_images,
};

const EXPORT: &str = "export/tiny_spark.safetensors";

const FIRST: FirstForm = FirstForm {
    state: &[
        ("best", "best_loss"),
        ("best_ema", ""),
        ("evaluation_pending", ""),
        ("execution", ""),
    ],
    settings: &[
        ("keep-checkpoints", "keep"),
        ("refresh-index", "relist"),
        ("shard-by-rank", "own-shards"),
        ("clip-mode", ""),
        ("execution", ""),
        ("ema", ""),
        ("ema-warmup", ""),
    ],
    other: |_| {},
    best: &[],
};

#[test]
fn a_run_of_the_first_form_goes_on_with_the_same_bits() {
    let settings = "--epochs 3 --keep 5 --seed 3";
    FIRST.goes_on(&with_images(6), settings, EXPORT, "4 of 6", &["loss", "epoch_loss"]);
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
    FIRST.rewrite(&work, "run");
    let first = export("first.pth");
    let inspected = work.run(&["inspect", "run"]).succeeded().out;
    assert_says(&inspected, &["a run of pretrain train with:", "keep-checkpoints = 5"]);
    crate::common::reconstruct(&work, "run", &[]);
    FirstForm::is_continued_elsewhere(&work);
    let last = tensors(&work, &format!("other/{EXPORT}"));
    assert!(!last["stem.0.weight"].equal(&first["stem.0.weight"]), "it went on");
}

/// A run from before there was a choice of executions, all of which were packed.
#[test]
fn a_checkpoint_without_an_execution_is_packed() {
    let work = with_images(6);
    work.train("run", &["--epochs", "3", "--keep", "5", "--execution", "packed"]).succeeded();
    let bits = work.bits("run", EXPORT);
    let checkpoint = |name: &str| work.path(&format!("run/checkpoints/{name}.safetensors"));
    std::fs::rename(checkpoint("epoch-0002"), checkpoint("last")).unwrap();
    rewrite(&checkpoint("last"), |mut state| {
        let task = state["task"].as_object_mut().unwrap();
        assert_eq!(task.remove("execution"), Some("packed".into()));
        let config = state["config"].as_object_mut().unwrap();
        assert_eq!(config.remove("execution"), Some("packed".into()));
        state
    });
    let config = String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let without = config.replace("execution = \"packed\"\n", "");
    assert_ne!(without, config);
    std::fs::write(work.path("run/config.toml"), without).unwrap();

    let told = work.run(&["train", "--output", "run", "--resume"]).succeeded();
    assert_says(&told.err, &["resuming after step 4 of 6", "execution  packed\n"]);
    assert!(!told.err.contains("changed settings"), "{}", told.err);
    assert_same_bits(&bits, &work.bits("run", EXPORT));
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
    with_images(1).tells_the_nearest_setting();
}

#[test]
fn what_is_dumped_means_the_same_when_it_is_read() {
    let presets = ["paper", "paper-384", "one-gpu", "small-data", "demo"];
    let flags = "--mean 0.1,0.2,0.3 --sync-bn false --ema 0.5";
    with_images(1).dumps_what_reads_the_same(&presets, flags);
}
