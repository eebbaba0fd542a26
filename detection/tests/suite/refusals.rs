//! What cannot be run is refused with a sentence, and nothing is lost.

use crate::common::{Workplace, assert_says, empty, read, with_data, with_resnet, words};
use serde_json::{Value, json};

#[test]
fn settings_that_break_a_rule_are_named() {
    let work = with_resnet(2);
    work.refuses_to_train(&[
        (
            "--batch-size 1 --short-sides 32 --max-side 32",
            "is trained on alone and with 32 × 24 pixels, but batch norm expects more than 1 value",
        ),
        ("--detector yolo", "detector is \"yolo\", but it must be one of mask_rcnn_resnet50"),
        ("--backbone resnet51", "model is \"resnet51\", but it must be one of resnet18"),
        ("--accum-steps 3", "accum-steps is 3, but it must divide batch-size 2"),
        ("--batch-size 0", "batch-size is 0, but it must be at least 1"),
        ("--epochs 0", "epochs is 0, but it must be at least 1"),
        ("--schedule step --milestones 1,5", "milestones has 5, but the run has 2 epochs"),
        ("--milestones 5,1", "milestones is [5, 1], but they must ascend"),
        ("--base-lr=-1", "base-lr is -1, but it must be in [0, ∞)"),
        ("--layer-decay 2", "layer-decay is 2, but it must be in [0, 1]"),
        ("--beta2 1", "beta2 is 1, but it must be in [0, 1)"),
        ("--ema 1", "ema is 1, but it must be in [0, 1)"),
        ("--drop-path 1", "drop-path is 1, but it must be in [0, 1)"),
        ("--freeze 9", "freeze-at is 9, but resnet18 has 5 stages"),
        ("--eval-max-side 40", "eval-max-side is 40, but it must be at least 64"),
        ("--short-sides 0", "short sides"),
        ("--device tpu", "device is \"tpu\", but it must be auto, cpu, cuda or cuda:N"),
        ("--preset huge", "invalid value 'huge'"),
        ("--data nothing", "nothing is not laid out as COCO is"),
        ("--train-annotations missing.json", "missing.json"),
        ("--val-images nowhere", "nowhere"),
        ("--resume missing.safetensors", "missing.safetensors"),
        ("--weights missing.pth", "missing.pth"),
        ("--backbone-weights missing.pth", "missing.pth"),
        ("--backbone-plugin missing.so", "missing.so"),
        ("--backbone-weights a --weights b", "cannot be used with"),
        ("--resume --overwrite", "cannot be used with"),
    ]);
}

#[test]
fn files_with_settings() {
    let work = empty();
    let refuse = |text: &str, message: &str| {
        std::fs::write(work.path("a.toml"), text).unwrap();
        work.run(&["train", "--data", "d", "--output", "o", "--config", "a.toml"])
            .refused(&[message]);
    };
    refuse("epoch = 3", "there is no such setting; the nearest is epochs");
    refuse("seed = \"many\"", "seed is \"many\", but u64 is expected");
    refuse("epochs = ", "a.toml is not valid TOML");
    refuse("[model]\nnum-classes = 3", "num-classes");
    refuse("[model.rpn]\nbatches = 3", "batches");
    refuse("augmentation = [{ rotate = 3 }]", "rotate");

    std::fs::write(work.path("a.toml"), "epochs = 7\nseed = 9\n[model.rpn]\nbatch = 99\n").unwrap();
    let arguments = "train --data d --output o --config a.toml --preset demo --seed 3 --bs 32 \
                     --short-sides 100,200 --max-side 300 --dump-config";
    let dumped = work.run(&words(arguments)).succeeded().out;
    // File over preset, flag over file, tables key by key.
    let lines =
        ["epochs = 7", "seed = 3", "batch-size = 32", "batch-size-per-image = 99", "max = 300"];
    for line in lines {
        assert!(dumped.lines().any(|l| l.trim() == line), "no {line:?} in:\n{dumped}");
    }
    assert_says(&dumped, &["backbone = \"resnet18\"", "pre-nms-train = 300"]);
    // What was dumped can be read again and means the same.
    std::fs::write(work.path("b.toml"), &dumped).unwrap();
    let again = work.run(&["train", "--config", "b.toml", "--dump-config"]).succeeded().out;
    assert_eq!(again, dumped);
}

/// The training annotations, changed.
fn change(work: &Workplace, change: impl Fn(&mut Value)) {
    let path = work.path("demo/annotations/instances_train.json");
    let mut json: Value = serde_json::from_slice(&read(&path)).unwrap();
    change(&mut json);
    std::fs::write(work.path("changed.json"), json.to_string()).unwrap();
}

#[test]
fn data_that_cannot_be_trained_on() {
    let work = with_data(4);
    let refuse = |message: &[&str]| {
        let more = ["--train-annotations", "changed.json", "--train-images", "demo/train"];
        work.train("run", &more).refused(message);
        assert!(!work.path("run").exists());
    };
    std::fs::write(work.path("changed.json"), "{\"images\": [").unwrap();
    refuse(&["changed.json", "COCO"]);
    change(&work, |json| json["annotations"][0]["category_id"] = json!(77));
    refuse(&["changed.json", "77"]);
    change(&work, |json| json["annotations"] = json!([]));
    refuse(&["changed.json", "no image has an object"]);
    change(&work, |json| json["categories"][0]["name"] = json!("zebra"));
    refuse(&["instances_val.json", "changed.json"]);
    // More files missing than may be.
    change(&work, |json| {
        for number in 1..4 {
            json["images"][number]["file_name"] = json!(format!("gone{number}.jpg"));
        }
    });
    refuse(&["gone"]);
    let annotations = "demo/annotations/instances_train.json";
    work.train("run", &["--train-annotations", annotations, "--train-images", "photos"])
        .refused(&["photos", "none of its 4 images"]);
}

#[test]
fn runs_and_weights_that_do_not_fit() {
    let work = with_resnet(4);
    work.train("run", &["--epochs", "1"]).succeeded();
    let last = work.path("run/checkpoints/last.safetensors");
    let before = read(&last);
    work.train("run", &["--epochs", "1"]).refused(&["run", "--overwrite", "--resume"]);
    work.train("photos", &["--overwrite"]).refused(&["photos"]);
    work.train("run", &["--resume", "--backbone", "resnet34"])
        .refused(&["does not fit these settings"]);
    work.train("run", &["--resume", "--freeze", "2"]).refused(&["optimizer", "does not fit"]);
    work.train("run", &["--resume", "--ema", "0.9"]).refused(&["no averaged weights", "--ema 0"]);
    assert!(read(&last) == before);

    // Three classes instead of two.
    let demo = "make-demo --photos photos --output three --train 4 --val 2 --size 64 --classes 3";
    work.run(&words(demo)).succeeded();
    let three = ["--data", "three", "--epochs", "1"];
    let with = |more: &[&'static str]| [&three, more].concat();
    work.train("run", &with(&["--resume"])).refused(&["other classes", "--reset-head"]);
    work.train("other", &with(&["--weights", "run"])).refused(&["has 2 classes", "--reset-head"]);
    let export = "run/export/mask_rcnn_resnet18.pth";
    work.train("other", &with(&["--weights", export])).refused(&["2 classes", "the model has 3"]);
    work.train("other", &with(&["--weights", export, "--new-classes"])).succeeded();
    work.train("more", &with(&["--weights", "run", "--new-classes"])).succeeded();
    let annotations = "three/annotations/instances_val.json";
    work.run(&["evaluate", "--weights", "run", "--annotations", annotations])
        .refused(&["the detector has 2 classes, but", "3 categories"]);

    std::fs::write(work.path("w.pth"), b"hello").unwrap();
    let predict = |more: &[&'static str]| {
        work.run(&[&["predict", "--output", "found", "demo/val"], more].concat())
    };
    predict(&["--weights", "w.pth"]).refused(&["w.pth"]);
    predict(&["--weights", export]).refused(&["--preset"]);
    predict(&["--weights", "run", "--preset", "demo"]).refused(&["has its own settings"]);
    predict(&["--weights", export, "--preset", "mask_rcnn_resnet50_1x"]).refused(&[export]);
    predict(&["--weights", "run", "--score-threshold", "2"]).refused(&["score-threshold is 2"]);
    // Half a checkpoint.
    std::fs::write(&last, &before[..before.len() / 2]).unwrap();
    work.train("run", &["--resume"]).refused(&["last.safetensors"]);
}

#[test]
fn a_loss_that_is_not_finite() {
    let work = with_data(4);
    work.stops_at_a_loss_that_is_not_finite(
        "--base-lr 1e30 --warmup-iterations 0 --epochs 50 --checkpoint-steps 1 --eval-epochs 0 \
         --precise-bn 0 --schedule step --milestones 49",
    );
}

#[test]
fn results_that_cannot_be_scored() {
    let work = with_data(2);
    let annotations = "demo/annotations/instances_val.json";
    let evaluate = || work.run(&["evaluate", "--results", "r.json", "--annotations", annotations]);
    evaluate().refused(&["r.json"]);
    std::fs::write(work.path("r.json"), "{}").unwrap();
    evaluate().refused(&["r.json", "not a list of COCO results"]);
    let entry = json!([{ "image_id": 999, "category_id": 1, "bbox": [1, 1, 2, 2], "score": 0.5 }]);
    std::fs::write(work.path("r.json"), entry.to_string()).unwrap();
    evaluate().refused(&["999"]);
    std::fs::create_dir(work.path("scores")).unwrap();
    std::fs::copy(work.path("r.json"), work.path("scores/results.bbox.json")).unwrap();
    let own = ["evaluate", "--results", "scores/results.bbox.json", "--output", "scores"];
    work.run(&[own.as_slice(), &["--annotations", annotations]].concat())
        .refused(&["results.bbox.json, which is read"]);
    work.run(&["evaluate"]).refused(&["--weights", "--results"]);
}
