//! A run whose settings are chosen, as a newcomer begins one.

use crate::common::{assert_says, read, with_images, words};

#[test]
fn a_few_images_are_trained_on_by_what_is_chosen_and_gone_on_with() {
    let work = with_images(6);
    let arguments = "train --data images --output run --model tiny.pt2 --epochs 2 --device cpu \
                     --threads 1 --workers 2";
    let said = work.run(&words(arguments)).succeeded().err;
    let told = ["what you give stays", "batch-size", "18 images", "nothing is pretrained"];
    assert_says(&said, &told);
    let chosen = String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let lines = ["batch-size = 16", "input-size = 64", "layer-decay = 1.0", "warmup-epochs = 1"];
    assert_says(&chosen, &lines);

    work.keeps_what_was_chosen([2, 3]);
    let nothing = "train --data nothing --output other --device cpu";
    work.run(&words(nothing)).refused(&["nothing/train is no folder"]);
}

#[test]
fn the_official_recipe_stays() {
    with_images(1).keeps_recipe("resnet50", include_str!("resnet50.toml"));
}
