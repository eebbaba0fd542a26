//! What cannot be run is refused with a sentence, and nothing is lost.

use crate::common::with_images;

#[test]
fn settings_that_break_a_rule_are_named() {
    let work = with_images(1);
    work.refuses_to_train(&[
        ("--model resnet51", "model is \"resnet51\", but it must be one of resnet18"),
        ("--accum-steps 4", "accum-steps is 4, but it must divide batch-size 6"),
        ("--batch-size 0", "batch-size is 0, but it must be at least 1"),
        (
            "--batch-size 1",
            "a part of a batch is 1 image of 32 × 32 pixels, but batch norm expects more than 1 \
             value per channel",
        ),
        ("--batch-size 3 --accum-steps 3", "raise --batch-size or --input-size, or lower"),
        ("--input-size 16", "input-size is 16, but it must be at least 32"),
        ("--warmup-epochs 4", "warmup-epochs is 4, but it must be below epochs 4"),
        ("--epochs 0", "epochs is 0, but it must be at least 1"),
        ("--layer-decay 0", "layer-decay is 0, but it must be in (0, 1]"),
        ("--label-smoothing 1", "label-smoothing is 1, but it must be in [0, 1)"),
        ("--mixup=-1", "mixup is -1, but it must be in [0, ∞)"),
        ("--drop-path 1", "drop-path is 1, but it must be in [0, 1)"),
        ("--crop-scale 3", "\"3\" is not two numbers like 0.67,1"),
        ("--augment much", "invalid value 'much'"),
        ("--preset huge", "invalid value 'huge'"),
        ("--weights a.pth --backbone-weights b.pth", "cannot be used with"),
        ("--backbone-weights missing.pth", "missing.pth"),
        ("--resume missing.safetensors", "missing.safetensors"),
        ("--data nothing", "nothing/train is no folder"),
    ]);
}

#[test]
fn folders_that_hold_no_classes() {
    let work = with_images(2);
    let without = |parts: &[&str]| work.train("run", &[]).refused(parts);

    std::fs::rename(work.path("images/val"), work.path("elsewhere")).unwrap();
    without(&["images/val is no folder", "--val-data"]);
    work.train("run", &["--val-data", "elsewhere", "--epochs", "1", "--warmup-epochs", "0"])
        .succeeded();
    std::fs::remove_dir_all(work.path("run")).unwrap();
    std::fs::rename(work.path("elsewhere"), work.path("images/val")).unwrap();

    std::fs::create_dir(work.path("images/train/empty")).unwrap();
    without(&["class folders", "no images", "empty"]);
    std::fs::remove_dir(work.path("images/train/empty")).unwrap();

    std::fs::create_dir(work.path("images/val/purple")).unwrap();
    std::fs::copy(work.path("images/val/red/000.png"), work.path("images/val/purple/0.png"))
        .unwrap();
    without(&["purple", "none of the 3 known classes"]);
    std::fs::remove_dir_all(work.path("images/val/purple")).unwrap();

    for class in ["blue", "green"] {
        std::fs::remove_dir_all(work.path(&format!("images/train/{class}"))).unwrap();
    }
    without(&["only one class folder"]);
    std::fs::remove_dir_all(work.path("images/train/red")).unwrap();
    without(&["no class folders"]);
}

#[test]
fn unreadable_images() {
    let work = with_images(4);
    for broken in ["train/red/broken.png", "val/red/broken.png"] {
        std::fs::write(work.path("images").join(broken), b"not a picture").unwrap();
    }
    let short = ["--epochs", "2", "--warmup-epochs", "0"];
    let finished = work.train("run", &[&short[..], &["--max-corrupt", "0.2"]].concat()).succeeded();
    let told = ["skipped red/broken.png", "left out of validation: red/broken.png"];
    crate::common::assert_says(&finished.err, &told);

    let evaluate = ["evaluate", "--weights", "run", "--max-corrupt", "0.2"];
    let finished = work.run(&evaluate).succeeded();
    crate::common::assert_says(&finished.out, &["images   12"]);
    crate::common::assert_says(&finished.err, &["left out red/broken.png"]);

    let probe = ["probe", "--weights", "run", "--data", "images", "--knn-only"];
    let probe = [&probe[..], &["--max-corrupt", "0.2", "--json", "probe.json"]].concat();
    let finished = work.run(&probe).succeeded();
    crate::common::assert_says(&finished.err, &["left out red/broken.png"]);
    let figures = work.json("probe.json");
    assert_eq!((&figures["train_images"], &figures["val_images"]), (&12.into(), &12.into()));

    for number in 0..3 {
        std::fs::write(work.path(&format!("images/train/blue/{number}.png")), b"").unwrap();
    }
    work.train("other", &short).refused(&["--max-corrupt", "repair or remove"]);
    std::fs::write(work.path("broken.jpg"), b"\xff\xd8 no").unwrap();
    work.run(&["predict", "--weights", "run", "broken.jpg"])
        .refused(&["none of 1 image can be read"]);
}

#[test]
fn weights_that_do_not_fit() {
    let work = with_images(2);
    let short = ["--epochs", "1", "--warmup-epochs", "0"];
    work.train("run", &short).succeeded();
    std::fs::create_dir_all(work.path("two/train")).unwrap();
    std::fs::create_dir_all(work.path("two/val")).unwrap();
    for split in ["train", "val"] {
        for class in ["red", "blue"] {
            let from = work.path(&format!("images/{split}/{class}"));
            std::os::unix::fs::symlink(from, work.path(&format!("two/{split}/{class}"))).unwrap();
        }
    }
    let two = |more: &[&'static str]| [&short[..], &["--data", "two", "--weights"], more].concat();
    work.train("next", &two(&["run"])).refused(&["has 3 classes, expected 2", "--reset-head"]);
    let finished = work.train("next", &two(&["run", "--reset-head"])).succeeded();
    crate::common::assert_says(&finished.err, &["with a new head"]);

    work.train("again", &["--resume", "run/checkpoints/last.safetensors", "--data", "two"])
        .refused(&["trained on other classes (3: blue, green, red)", "--reset-head"]);
    work.run(&["evaluate", "--weights", "next", "--data", "images/val"])
        .refused(&["1 class folder with the name of none of the 2 known classes: \"green\""]);

    std::fs::write(work.path("w.pth"), b"hello").unwrap();
    for command in [
        &["evaluate", "--weights", "w.pth", "--data", "images"][..],
        &["predict", "--weights", "w.pth", "images"],
        &["probe", "--weights", "w.pth", "--data", "images"],
        &["export", "--weights", "w.pth", "--output", "o"],
    ] {
        work.run(command).refused(&["w.pth: not a weight file"]);
    }
    work.run(&["probe", "--model", "resnet18", "--data", "images/train"])
        .refused(&["has no folder \"train\""]);
    work.run(&["probe", "--data", "images"]).refused(&["--weights <PATH>"]);
    for (flags, part) in [
        (["--k", "0"], "k is 0, but at least one neighbour must vote"),
        (["--temperature", "0"], "temperature is 0"),
        (["--l2=-1", "--knn-only"], "l2 is -1"),
    ] {
        let arguments = ["probe", "--model", "resnet18", "--data", "nothing"];
        work.run(&[&arguments[..], &flags].concat()).refused(&[part]);
    }
}
