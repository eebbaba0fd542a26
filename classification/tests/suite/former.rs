//! Runs, flags and keys as they were formerly are understood.

use crate::common::{FirstForm, Workplace, assert_same_bits, assert_says, records, with_images};

const EXPORT: &str = "export/timm/model.safetensors";

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
};

/// The run `output` with the checkpoint of its second epoch as the last, in the first form.
fn first_form(work: &Workplace, output: &str) {
    let checkpoint = |name: &str| work.path(&format!("{output}/checkpoints/{name}.safetensors"));
    std::fs::rename(checkpoint("epoch-0002"), checkpoint("last")).unwrap();
    for name in ["best", "best-ema"] {
        std::fs::copy(checkpoint("last"), checkpoint(name)).unwrap();
    }
    std::fs::remove_dir_all(work.path(output).join("export")).unwrap();
    for name in ["last", "best", "best-ema"] {
        FIRST.rewrite(&checkpoint(name));
    }
}

/// Step, loss and accuracies of every record.
fn numbers(work: &Workplace, run: &str) -> Vec<[Option<f64>; 4]> {
    let number = |record: &serde_json::Value| {
        ["step", "loss", "top1", "ema_top1"].map(|key| record[key].as_f64())
    };
    let records = records(&work.path(run));
    records.iter().filter(|record| record.get("epoch_loss").is_none()).map(number).collect()
}

#[test]
fn a_run_of_the_first_form_goes_on_with_the_same_bits() {
    let work = with_images(3);
    let more = "--epochs 4 --keep 5 --seed 3 --mixup 0.3 --eval-epochs 1 --repeats 2";
    work.train("run", &more.split_whitespace().collect::<Vec<_>>()).succeeded();
    let (bits, whole) = (work.bits("run", EXPORT), numbers(&work, "run"));
    first_form(&work, "run");
    let told = work.run(&["train", "--output", "run", "--resume"]).succeeded();
    assert_says(&told.err, &["resuming after step 4 of 8"]);
    assert!(!told.err.contains("changed settings"), "{}", told.err);
    let resumed = work.bits("run", EXPORT);
    let last = |bits: &std::collections::BTreeMap<String, Vec<u8>>| {
        bits.clone().into_iter().filter(|(name, _)| name != "export").collect()
    };
    // The best of the whole run may have been one that is gone.
    assert_same_bits(&last(&bits), &last(&resumed));
    assert_eq!(numbers(&work, "run"), whole);
}

#[test]
fn a_checkpoint_of_the_first_form_is_used_like_any_other() {
    let work = with_images(2);
    work.train("run", &["--epochs", "3", "--keep", "5", "--eval-epochs", "1"]).succeeded();
    first_form(&work, "run");
    for weights in ["run", "run/checkpoints/last.safetensors"] {
        let told = work.run(&["evaluate", "--weights", weights]).succeeded();
        assert_says(&told.out, &["images   12", "top-1"]);
        let predict = ["predict", "--weights", weights, "--json", "found.json", "images/val/red"];
        work.run(&predict).succeeded();
        work.run(&["export", "--weights", weights, "--output", "timm"]).succeeded();
    }
    let other = ["--resume", "run/checkpoints/last.safetensors", "--epochs", "3"];
    let told = work.train("other", &other).succeeded();
    assert_says(&told.err, &["resuming after step 2 of 3"]);
    let start = ["--weights", "run", "--epochs", "1", "--warmup-epochs", "0"];
    assert_says(&work.train("next", &start).succeeded().err, &["initial weights from run"]);
}

/// In the first form 0 was the way to say that no interval was given.
#[test]
fn an_interval_of_0_in_a_run_of_the_first_form_is_none() {
    let work = with_images(2);
    let more = ["--epochs", "6", "--keep", "9", "--eval-epochs", "0", "--checkpoint-epochs", "1"];
    work.train("run", &more).succeeded();
    first_form(&work, "run");
    work.run(&["train", "--output", "run", "--resume"]).succeeded();
    let evaluated: Vec<f64> =
        numbers(&work, "run").iter().filter_map(|[step, _, top1, _]| top1.and(*step)).collect();
    assert_eq!(evaluated, [3.0, 4.0, 5.0, 6.0]);
}

#[test]
fn former_names_of_settings_are_understood() {
    let work = with_images(1);
    let dump = |more: &[&str]| work.train("run", &[&["--dump-config"], more].concat());
    let flags = "--keep 3 --relist --repeats 2 --eval-crop 0.5 --eval-squash \
                 --mix-probability 0.25 --cutmix-share 0.75 --new-head";
    let flags = dump(&flags.split_whitespace().collect::<Vec<_>>()).succeeded().out;
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
    let work = with_images(1);
    std::fs::write(work.path("a.toml"), "batch-sze = 8").unwrap();
    let part = "batch-sze is 8, but there is no such setting; the nearest is batch-size";
    work.train("run", &["--config", "a.toml"]).refused(&[part]);
}

#[test]
fn what_is_dumped_means_the_same_when_it_is_read() {
    let work = with_images(1);
    let dump = |more: &[&str]| work.run(&[&["train", "--dump-config"], more].concat());
    for preset in ["resnet50", "convnext_large_384", "small-data", "demo"] {
        let more = ["--preset", preset, "--data", "d", "--output", "o", "--eval-epochs", "0"];
        let dumped = dump(&[&more[..], &["--sync-bn", "false"]].concat()).succeeded().out;
        std::fs::write(work.path("dumped.toml"), &dumped).unwrap();
        assert_eq!(dump(&["--config", "dumped.toml"]).succeeded().out, dumped, "{preset}");
    }
}
