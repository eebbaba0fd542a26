//! A run whose settings are chosen, as a newcomer begins one.

use crate::common::{assert_says, read, with_data, words};

#[test]
fn a_few_images_are_trained_on_by_what_is_chosen_and_gone_on_with() {
    let work = with_data(4);
    let arguments = "train --data demo --output run --backbone tiny.pt2 --epochs 1 --device cpu \
                     --threads 1 --workers 2 --pictures 0 --precise-bn 1";
    let said = work.run(&words(arguments)).succeeded().err;
    let told = ["what you give stays", "model.anchors.sizes", "half of the objects are smaller"];
    assert_says(&said, &told);
    let chosen = String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let lines = ["batch-size = 4", "iterations = 0", "eval-short-side = 192", "small = true"];
    assert_says(&chosen, &lines);

    work.keeps_what_was_chosen([1, 2]);

    // A detector that a run starts from stays what it is.
    let next = "train --data demo --output next --weights run --epochs 1 --device cpu --threads 1 \
                --dump-config";
    let dumped = work.run(&words(next)).succeeded().out;
    let model = |text: &str| text.split("[model").skip(1).collect::<Vec<_>>().join("[model");
    assert_eq!(model(&dumped), model(&chosen));
    assert_says(&dumped, &["backbone = \"tiny.pt2\""]);
}

#[test]
fn a_file_of_weights_is_of_no_preset_that_chooses() {
    let work = crate::common::empty();
    std::fs::write(work.path("w.pth"), b"weights").unwrap();
    let predict = words("predict --weights w.pth --preset auto --output found photos");
    work.run(&predict).refused(&["--preset is auto", "name the preset that it is of"]);
}

#[test]
fn the_recipe_for_coco_stays() {
    let before = include_str!("mask_rcnn_resnet50_1x.toml");
    crate::common::empty().keeps_recipe("mask_rcnn_resnet50_1x", before);
}
