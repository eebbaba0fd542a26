//! Every command on a tiny data set.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::common::{CLASSES, Finished, Workplace, assert_says, read, records, with_images, words};
use backbone::weights;
use serde_json::Value;
use test_hub::Hub;

#[test]
fn commands_explain_themselves() {
    with_images(1).explains_its_commands("classify", 7);
}

#[test]
fn colours_are_learned_and_used() {
    let work = with_images(8);
    let settings =
        "--model convnext_atto --epochs 12 --batch-size 8 --base-lr 0.06 --layer-decay 1";
    let finished = work.train("run", &words(settings)).succeeded();
    assert_says(
        &finished.err,
        &["24 to train on, 12 for validation, 3 classes", "weights  random"],
    );
    assert_says(&finished.out, &["best top-1", "loss.png", "accuracy.png", "export/timm"]);
    for file in
        ["config.toml", "loss.png", "accuracy.png", "tensorboard", "checkpoints/best.safetensors"]
    {
        assert!(work.path("run").join(file).exists(), "{file}");
    }
    assert!(work.path("run/checkpoints/best-ema.safetensors").exists());
    let evaluations: Vec<Value> =
        records(&work.path("run")).into_iter().filter(|r| r["top1"].is_number()).collect();
    assert_eq!(evaluations.len(), 6, "after every second epoch");
    let best = |key: &str| evaluations.iter().filter_map(|r| r[key].as_f64()).fold(0.0, f64::max);
    // Three pure colours on grey: by chance a third is right.
    assert!(best("top1") > 0.9, "{evaluations:?}");

    evaluates(&work, best("top1").max(best("ema_top1")));
    predicts(&work);
    exports(&work);
    publishes(&work);
    evaluates_by_name(&work);
    probes(&work);
}

fn evaluates(work: &Workplace, best: f64) {
    let finished = work.run(&["evaluate", "--weights", "run", "--output", "scores"]).succeeded();
    assert_says(&finished.out, &["images   12", "top-1", "top-5  100.00 %", "confusion.png"]);
    let report = work.json("scores/report.json");
    assert_eq!(report["top1"].as_f64(), Some(best), "the run's best checkpoint");
    let csv = String::from_utf8(read(work.path("scores/confusion.csv"))).unwrap();
    assert_eq!(csv.lines().next(), Some("labelled \\ predicted,blue,green,red"));
    let numbers = csv.lines().skip(1).flat_map(|line| line.split(',').skip(1));
    assert_eq!(numbers.map(|n| n.parse::<u64>().unwrap()).sum::<u64>(), 12);
    let classes = String::from_utf8(read(work.path("scores/classes.csv"))).unwrap();
    assert_eq!(classes.lines().count(), 4);
    // Half the images, of one class: still the classifier's classes.
    std::fs::create_dir_all(work.path("part")).unwrap();
    std::os::unix::fs::symlink(work.path("images/val/red"), work.path("part/red")).unwrap();
    let finished = work.run(&["evaluate", "--weights", "run", "--data", "part"]).succeeded();
    assert_says(&finished.out, &["images   4"]);
}

fn predicts(work: &Workplace) {
    std::fs::write(work.path("images/val/red/broken.png"), b"nothing").unwrap();
    let arguments = ["predict", "--weights", "run", "--top", "2", "--json", "out.json"];
    let images = ["images/val/red", "images/val/blue/00*.png"];
    let finished = work.run(&[&arguments[..], &images].concat()).succeeded();
    std::fs::remove_file(work.path("images/val/red/broken.png")).unwrap();
    assert_says(&finished.err, &["passed over", "broken.png"]);
    let predictions = work.json("out.json");
    let predictions = predictions.as_array().unwrap();
    assert_eq!(predictions.len(), 8);
    let right = predictions.iter().filter(|prediction| {
        let guesses = prediction["classes"].as_array().unwrap();
        assert_eq!(guesses.len(), 2);
        assert!(guesses[0]["probability"].as_f64() >= guesses[1]["probability"].as_f64());
        prediction["file"].as_str().unwrap().contains(guesses[0]["name"].as_str().unwrap())
    });
    assert!(right.count() >= 7, "{predictions:?}");

    // Each image once, whatever links and names there are, and nothing waited for.
    let folder = work.path("odd");
    std::fs::create_dir_all(folder.join("a")).unwrap();
    std::os::unix::fs::symlink("..", folder.join("a/up")).unwrap();
    let image = work.path("images/val/red/000.png");
    for name in [&b"a/caf\xe9.png"[..], b"x.png"] {
        std::fs::copy(&image, folder.join(OsStr::from_bytes(name))).unwrap();
    }
    let pipe = folder.join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    work.run(&[&arguments[..], &["odd"]].concat()).succeeded();
    let predictions = work.json("out.json");
    let files = predictions.as_array().unwrap().iter().map(|found| &found["file"]);
    assert_eq!(files.collect::<Vec<_>>(), ["odd/a/caf\\xe9.png", "odd/x.png"]);

    let before = crate::common::read(folder.join("x.png"));
    let over = ["predict", "--weights", "run", "--json", "odd/x.png", "odd"];
    work.run(&over).refused(&["odd/x.png would be written over odd/x.png"]);
    work.run(&["predict", "--weights", "run", "--json", "no/x.json", "odd"])
        .refused(&["no is no folder"]);
    assert_eq!(crate::common::read(folder.join("x.png")), before);
}

fn exports(work: &Workplace) {
    work.run(&["export", "--weights", "run", "--output", "timm"]).succeeded();
    let config = work.json("timm/config.json");
    assert_eq!(config["num_classes"], 3);
    assert_eq!(config["label_names"], serde_json::json!(CLASSES));
    assert_eq!(config["pretrained_cfg"]["input_size"], serde_json::json!([3, 32, 32]));
    // It is read back like a stranger's, names and all.
    let own = work.run(&["evaluate", "--weights", "run"]).succeeded();
    let theirs = work.run(&["evaluate", "--weights", "timm", "--data", "images"]).succeeded();
    assert_eq!(own.out, theirs.out);
    work.run(&["export", "--weights", "run", "--format", "torchvision", "--output", "w.pth"])
        .succeeded();
    let arguments = ["evaluate", "--weights", "w.pth", "--data", "images", "--input-size", "32"];
    let file = work.run(&[&arguments[..], &["--eval-crop", "1"]].concat()).succeeded();
    assert_eq!(own.out, file.out);
    assert_says(&file.err, &["taken in the order of their names; --classes FILE tells"]);
    assert!(weights::read(work.path("w.pth")).unwrap().tensors.contains_key("classifier.2.bias"));
}

/// What is put on a hub classifies from there as it does here, by the names of its classes.
fn publishes(work: &Workplace) {
    let export = ["export", "--weights", "run", "--format", "hub", "--output", "flowers"];
    work.run(&export).succeeded();
    let card = String::from_utf8(read(work.path("flowers/README.md"))).unwrap();
    let facts =
        ["license: other\n", "image-classification", "| classes | 3 |", "hf-hub:OWNER/NAME"];
    assert_says(&card, &facts);
    assert_says(&card, &["top-1 in its run's validation", "](loss.png)"]);
    let hub = Hub::start();
    hub.upload("me/flowers", &work.path("flowers")).unwrap();
    let told = |weights: &str| {
        let arguments = ["evaluate", "--weights", weights, "--data", "images"];
        let mut command = work.command(&arguments);
        hub.show_to(&mut command, &work.path("cache"));
        Finished::from(command.output().unwrap()).succeeded().out
    };
    assert_eq!(told("hf:me/flowers"), told("run"));
}

/// Classes are found by name, whatever their order, and by no other name.
fn evaluates_by_name(work: &Workplace) {
    let class = |name: &str| work.path(&format!("renamed/{name}"));
    std::fs::create_dir_all(work.path("renamed")).unwrap();
    for (name, from) in [("blue", "blue"), ("zz", "green"), ("red", "red")] {
        let from = work.path(&format!("images/val/{from}"));
        std::os::unix::fs::symlink(from, class(name)).unwrap();
    }
    let evaluate = |weights: &str, more: &[&str]| {
        work.run(&[&["evaluate", "--weights", weights, "--data", "renamed"], more].concat())
    };
    let problem = "1 class folder with the name of none of the 3 known classes: \"zz\"; known classes that \
                   have no folder there: \"green\"";
    evaluate("timm", &[]).refused(&[problem, "--classes FILE"]);
    evaluate("run", &[]).refused(&[problem]);
    // A list as Windows saves it.
    let text = "\u{feff}blue\r\nzz\r\nred\r\n".encode_utf16();
    let bytes: Vec<u8> = text.flat_map(u16::to_le_bytes).collect();
    std::fs::write(work.path("names.txt"), bytes).unwrap();
    let right = work.run(&["evaluate", "--weights", "run"]).succeeded();
    for weights in ["timm", "run"] {
        let found = evaluate(weights, &["--classes", "names.txt"]).succeeded();
        assert_eq!(found.out.lines().nth(1), right.out.lines().nth(1));
    }
    // One class less is told, not guessed around.
    std::fs::remove_file(class("zz")).unwrap();
    let found = evaluate("timm", &[]).succeeded();
    assert_says(&found.err, &["no folder for 1 of the 3 classes: \"green\""]);
}

fn probes(work: &Workplace) {
    let probe = |weights: &[&str]| {
        let flags = ["--eval-crop", "1", "--k", "5", "--json", "probe.json"];
        let arguments = [&["probe", "--data", "images"][..], &flags, weights].concat();
        work.run(&arguments).succeeded();
        work.json("probe.json")
    };
    let trained = probe(&["--weights", "run"]);
    assert_eq!(trained["features"], 320);
    assert!(trained["knn_top1"].as_f64().unwrap() > 0.9, "{trained}");
    assert!(trained["linear_top1"].as_f64().unwrap() > 0.9, "{trained}");
    let every = probe(&["--weights", "run", "--every"]);
    let figures = every["every"].as_array().unwrap();
    // Four stages, pooled in three ways, of four figures.
    assert_eq!(figures.len(), 48);
    let of_last = |name: &str| {
        let wanted = |one: &&Value| {
            (one["stage"].as_u64(), one["pool"].as_str(), one["figure"].as_str())
                == (Some(4), Some("mean"), Some(name))
        };
        figures.iter().find(wanted).unwrap()["top1"].as_f64()
    };
    assert_eq!(of_last("linear"), trained["linear_top1"].as_f64());
    let random = probe(&["--model", "resnet18", "--input-size", "32", "--knn-only"]);
    assert!(random["linear_top1"].is_null() && random["weights"].is_null(), "{random}");
    assert_eq!(probe(&["--weights", "run"]), trained, "deterministic");
}

#[test]
fn presets_are_listed_and_printed() {
    let work = with_images(1);
    let list = work.run(&["presets"]).succeeded().out;
    assert_says(&list, &["resnet50", "resnet200", "convnext_large_384", "small-data", "demo"]);
    let text = work.run(&["presets", "convnext_base"]).succeeded().out;
    assert_says(&text, &["optimizer = \"adamw\"", "repeats = 3"]);
    let dumped = work.train("run", &["--preset", "convnext_base", "--dump-config"]).succeeded().out;
    assert_says(&dumped, &["loss = \"cross-entropy\"", "batch-size = 6", "mixup = 0.8"]);
    assert!(!work.path("run").exists());
}

#[test]
fn a_convnext_learns_with_bfloat16_and_lamb() {
    let work = with_images(2);
    let settings = "--model convnext_atto --epochs 1 --warmup-epochs 0 --precision bfloat16 \
                    --optimizer lamb --repeats 3 --cutmix 1 --ema 0 --eval-squash --batch-size 4";
    work.train("run", &words(settings)).succeeded();
    let state: classification::train::TrainState = work.checkpoint("run").state().unwrap();
    assert_eq!((state.step, state.best_ema), (2, None));
    assert!(!work.checkpoint("run").sections().contains("ema"));
    work.run(&["evaluate", "--weights", "run/checkpoints/last.safetensors"]).succeeded();
}
