//! What the tests of the program share: a tiny data set and short runs.
#![allow(dead_code, missing_docs)]

#[path = "../../../tests/support/program.rs"]
mod program;

use image::{Rgb, RgbImage};

pub use program::*;

/// Settings of a run of seconds: 64 px, a tiny detector.
const SHORT: &str = "small = true\n\
     backbone = \"resnet18\"\n\
     batch-size = 2\n\
     epochs = 2\n\
     iterations = 0\n\
     schedule = \"cosine\"\n\
     warmup-iterations = 2\n\
     base-lr = 4e-3\n\
     precise-bn = 1\n\
     keep-empty = true\n\
     eval-short-side = 64\n\
     eval-max-side = 96\n\
     device = \"cpu\"\n\
     threads = 1\n\
     workers = 2\n\
     log-steps = 1\n\
     pictures = 2\n\
     eval-steps = 0\n\
     checkpoint-steps = 0\n\
     checkpoint-epochs = 1\n\
     [[augmentation]]\n\
     [augmentation.resize_shortest_edge]\n\
     short = [48, 64]\n\
     max = 96\n\
     [[augmentation]]\n\
     [augmentation.flip]\n\
     probability = 0.5\n\
     [model]\n\
     fpn-channels = 32\n\
     [model.rpn]\n\
     batch = 32\n\
     pre-nms-train = 64\n\
     pre-nms-test = 64\n\
     post-nms-train = 32\n\
     post-nms-test = 32\n\
     [model.roi]\n\
     batch = 16\n\
     [model.box-head]\n\
     fc-width = 32\n\
     [model.mask-head]\n\
     channels = 32\n\
     convs = 1\n";

impl Workplace {
    /// Photographs of blobs, `short.toml`, and a data set `demo` of two classes
    /// with `train` and three images.
    pub fn with_data(train: u32) -> Self {
        let work = Self::empty();
        let train = train.to_string();
        let arguments = "make-demo --photos photos --output demo --val 3 --size 64 --classes 2 \
                         --objects 2 --train";
        let mut arguments: Vec<&str> = arguments.split_whitespace().collect();
        arguments.push(&train);
        work.run(&arguments).succeeded();
        work
    }

    /// Photographs and `short.toml` alone.
    pub fn empty() -> Self {
        let work = Self::of(env!("CARGO_BIN_EXE_detect"), "--data demo --config short.toml");
        std::fs::create_dir(work.path("photos")).unwrap();
        for number in 0..2 {
            blobs(number).save(work.path(&format!("photos/{number}.png"))).unwrap();
        }
        std::fs::write(work.path("short.toml"), SHORT).unwrap();
        work
    }
}

/// Coloured waves, large enough to be cut in two.
fn blobs(number: u32) -> RgbImage {
    RgbImage::from_fn(320, 240, |x, y| {
        let wave = |a: u32, b: u32| ((x * a + y * b + number * 97) % 256) as u8;
        Rgb([wave(1, 2), wave(2, 1), wave(3, 3)])
    })
}
