//! What the tests of the program share: a tiny data set and short runs.

use image::{Rgb, RgbImage};

pub use test_support::*;

/// Settings of a run of seconds: 64 px, a tiny detector.
const SHORT: &str = include_str!("short.toml");

/// Photographs of blobs, `short.toml`, and a data set `demo` of two classes
/// with `train` and three images.
pub fn with_data(train: u32) -> Workplace {
    let work = empty();
    let train = train.to_string();
    let arguments = "make-demo --photos photos --output demo --val 3 --size 64 --classes 2 \
                     --objects 2 --train";
    work.run(&[words(arguments), vec![&train]].concat()).succeeded();
    work
}

/// The same with a ResNet-18 in `short.toml`.
pub fn with_resnet(train: u32) -> Workplace {
    let work = with_data(train);
    std::fs::write(work.path("short.toml"), SHORT.replace(TINY, "resnet18")).unwrap();
    work
}

/// Photographs and `short.toml` alone.
pub fn empty() -> Workplace {
    let training = "--data demo --preset mask_rcnn_resnet50_1x --config short.toml";
    let work = Workplace::of(env!("CARGO_BIN_EXE_detect"), training);
    std::fs::create_dir(work.path("photos")).unwrap();
    for number in 0..2 {
        blobs(number).save(work.path(&format!("photos/{number}.png"))).unwrap();
    }
    std::fs::write(work.path("short.toml"), SHORT).unwrap();
    work
}

/// Coloured waves, large enough to be cut in two.
fn blobs(number: u32) -> RgbImage {
    RgbImage::from_fn(320, 240, |x, y| {
        let wave = |a: u32, b: u32| ((x * a + y * b + number * 97) % 256) as u8;
        Rgb([wave(1, 2), wave(2, 1), wave(3, 3)])
    })
}
