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
    let settings = || String::from_utf8(read(work.path("run/config.toml"))).unwrap();
    let chosen = settings();
    let lines = ["batch-size = 16", "input-size = 64", "layer-decay = 1.0", "warmup-epochs = 1"];
    assert_says(&chosen, &lines);

    let said = work.run(&words("train --output run --resume --epochs 3")).succeeded().err;
    assert!(!said.contains("what you give stays"), "{said}");
    assert_eq!(settings(), chosen.replace("epochs = 2\n", "epochs = 3\n"));
    let nothing = "train --data nothing --output other --device cpu";
    work.run(&words(nothing)).refused(&["nothing/train is no folder"]);
}

/// The official recipe is what it was before settings were chosen.
#[test]
fn the_official_recipe_stays() {
    let work = with_images(1);
    let dump = words("train --preset resnet50 --data d --output o --dump-config");
    assert_eq!(work.run(&dump).succeeded().out, include_str!("resnet50.toml"));
}
