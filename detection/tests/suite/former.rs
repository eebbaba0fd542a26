//! Runs, flags and keys as they were formerly are understood.

use crate::common::{FirstForm, Workplace, assert_says, empty, with_data};

const EXPORT: &str = "export/mask_rcnn_tiny.pth";

const FIRST: FirstForm = FirstForm {
    state: &[("evaluation_pending", "evaluation_due"), ("epoch_loss", ""), ("best_ema", "")],
    settings: &[
        ("keep-checkpoints", "keep"),
        ("freeze-at", "freeze"),
        ("reset-head", "new-classes"),
        ("optimizer", ""),
        ("clip-mode", ""),
        ("ema-warmup", ""),
    ],
    other: |config| {
        config.entry("beta2").or_insert(0.999.into());
        let model = config["model"].as_object_mut().unwrap();
        for key in ["naming", "background", "mask-paste"] {
            model.remove(key).unwrap();
        }
        model.insert("classes".into(), "background-last".into());
        for (part, present, first) in [
            ("rpn", "batch-size-per-image", "batch"),
            ("roi", "batch-size-per-image", "batch"),
            ("roi", "score-thresh", "score"),
            ("roi", "detections-per-image", "detections"),
        ] {
            let part = model[part].as_object_mut().unwrap();
            let value = part.remove(present).unwrap();
            part.insert(first.into(), value);
        }
    },
    best: &[],
};

#[test]
fn a_run_of_the_first_form_goes_on_with_the_same_bits() {
    let settings = "--epochs 3 --keep 5 --seed 3 --eval-epochs 1 --ema 0.9 --freeze 1";
    FIRST.goes_on(&with_data(4), settings, EXPORT, "4 of 6", &["loss", "bbox/AP"]);
}

#[test]
fn a_checkpoint_of_the_first_form_is_used_like_any_other() {
    let work = with_data(2);
    work.train("run", &["--epochs", "3", "--keep", "5"]).succeeded();
    let evaluate = |output: &str| {
        let arguments = ["evaluate", "--weights", "run/checkpoints/last.safetensors", "--output"];
        work.run(&[&arguments[..], &[output]].concat()).succeeded();
        let report = crate::common::read(work.path(output).join("report.json"));
        String::from_utf8(report).unwrap()
    };
    let checkpoint = |name: &str| work.path(&format!("run/checkpoints/{name}.safetensors"));
    std::fs::copy(checkpoint("epoch-0002"), checkpoint("last.tmp")).unwrap();
    std::fs::rename(checkpoint("last.tmp"), checkpoint("last")).unwrap();
    let before = evaluate("present");
    FIRST.rewrite(&work, "run");
    assert_eq!(evaluate("first"), before);
    work.run(&["predict", "--weights", "run", "--output", "found", "demo/val"]).succeeded();
    FirstForm::is_continued_elsewhere(&work);
    let start = ["--weights", "run", "--epochs", "1"];
    assert_says(&work.train("next", &start).succeeded().err, &["initial weights from run"]);
}

fn dump(work: &Workplace, more: &[&str]) -> String {
    work.train("run", &[&["--dump-config"], more].concat()).succeeded().out
}

#[test]
fn former_names_of_settings_are_understood() {
    let work = empty();
    let flags = dump(&work, &["--keep", "3", "--freeze", "2", "--new-classes"]);
    assert_says(&flags, &["keep-checkpoints = 3", "freeze-at = 2", "reset-head = true"]);
    let text = String::from_utf8(crate::common::read(work.path("short.toml"))).unwrap();
    let former = format!("keep = 3\nfreeze = 2\nnew-classes = true\n{text}");
    std::fs::write(work.path("former.toml"), former).unwrap();
    assert_eq!(dump(&work, &["--config", "former.toml"]), flags);
}

/// A file changes what a run had, whichever of a key's names it uses.
#[test]
fn former_keys_of_the_model_are_laid_over_a_runs_own() {
    let work = with_data(2);
    work.train("run", &["--epochs", "1"]).succeeded();
    let model = "[model.roi]\nbatch = 24\ndetections = 7\n";
    std::fs::write(work.path("over.toml"), model).unwrap();
    let more = ["train", "--output", "run", "--resume", "--config", "over.toml", "--dump-config"];
    let dumped = work.run(&more).succeeded().out;
    assert_says(&dumped, &["batch-size-per-image = 24", "detections-per-image = 7"]);
    let arguments = ["evaluate", "--weights", "run", "--output", "few", "--config", "over.toml"];
    std::fs::write(work.path("over.toml"), "[model.roi]\ndetections = 1\nscore = 0.0\n").unwrap();
    work.run(&arguments).succeeded();
    let results = work.json("few/results.bbox.json");
    assert_eq!(results.as_array().unwrap().len(), 3, "one object an image");
}

#[test]
fn a_key_that_is_no_setting_is_told_the_nearest() {
    empty().tells_the_nearest_setting();
}

#[test]
fn what_is_dumped_means_the_same_when_it_is_read() {
    let presets = ["mask_rcnn_resnet50_1x", "mask_rcnn_torchvision", "one-gpu", "demo"];
    empty().dumps_what_reads_the_same(&presets, "--masks false --sync-bn false --ema 0.5");
}
