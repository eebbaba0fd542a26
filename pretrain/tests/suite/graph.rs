//! Pretraining networks from `.pt2` files: killed, and on several processes.

use std::path::Path;

use crate::common::{Workplace, run_python, with_images, words};

/// Images, and networks in files; `dropping.pt2` draws for drop-path and dropout.
fn with_networks(images: u32) -> Workplace {
    let work = with_images(images);
    run_python("graph_networks.py", &[Path::new("make"), &work.path("")]);
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
