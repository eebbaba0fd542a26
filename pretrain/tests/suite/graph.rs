//! Pretraining networks from `.pt2` files: killed, and on several processes.

use crate::common::{Workplace, make_networks, with_images, words};

/// Images, and `dropping.pt2`, which draws for drop-path and dropout.
fn with_networks(images: u32) -> Workplace {
    let work = with_images(images);
    make_networks(&work, &["dropping"]);
    work
}

#[test]
fn killed_runs_of_a_graph_end_with_the_same_bits() {
    let work = with_networks(10);
    let settings = "--model dropping.pt2 --accum-steps 2 --checkpoint-steps 2 --seed 5";
    work.ends_the_same_when_killed("export/dropping_spark.safetensors", &[1, 5], settings);
}

#[test]
fn a_graph_comes_out_the_same_on_several_processes() {
    let work = with_networks(16);
    let settings = "--model dropping.pt2 --precision float64 --batch-size 8 --epochs 4 \
                    --base-lr 0.2 --workers 1 --checkpoint-epochs 4";
    work.comes_out_the_same(&[2], 8, &words(settings));
}
