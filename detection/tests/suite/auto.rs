//! A run whose settings are chosen, as a newcomer begins one.

use crate::common::{assert_says, read, with_data, words};

#[test]
fn a_few_images_are_trained_on_by_what_is_chosen_and_gone_on_with() {
    let work = with_data(4);
    let arguments = "train --data demo --output run --backbone tiny.pt2 --epochs 1 --device cpu \
                     --threads 1 --workers 2 --pictures 0";
    let said = work.run(&words(arguments)).succeeded().err;
    let told = ["what you give stays", "model.anchors.sizes", "half of the objects are smaller"];
    assert_says(&said, &told);
    let settings = || String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let chosen = settings();
    let lines = ["batch-size = 4", "iterations = 0", "eval-short-side = 192", "small = true"];
    assert_says(&chosen, &lines);

    let said = work.run(&words("train --output run --resume --epochs 2")).succeeded().err;
    assert!(!said.contains("what you give stays"), "{said}");
    assert_eq!(settings(), chosen.replace("\nepochs = 1\n", "\nepochs = 2\n"));

    // A detector that a run starts from stays what it is.
    let next = "train --data demo --output next --weights run --epochs 1 --device cpu --threads 1 \
                --dump-config";
    let dumped = work.run(&words(next)).succeeded().out;
    let model = |text: &str| text.split("[model").skip(1).collect::<Vec<_>>().join("[model");
    assert_eq!(model(&dumped), model(&chosen));
    assert_says(&dumped, &["backbone = \"tiny.pt2\""]);
}

/// The recipe for COCO is what it was before settings were chosen.
#[test]
fn the_recipe_for_coco_stays() {
    let work = crate::common::empty();
    let dump = "train --preset mask_rcnn_resnet50_1x --data d --output o --dump-config";
    let dumped = work.run(&words(dump)).succeeded().out;
    assert_eq!(dumped, include_str!("mask_rcnn_resnet50_1x.toml"));
}
