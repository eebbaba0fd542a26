//! What the tests of the program share: small photographs and short runs.

use backbone::weights::{self, StateDict};
use image::{Rgb, RgbImage};

pub use test_support::*;

/// Of seconds: 64 px, a narrow decoder.
const SHORT: &str = "--data images --preset paper --model tiny.pt2 --input-size 64 \
                     --decoder-width 32 --batch-size 4 --epochs 4 --warmup-epochs 1 --base-lr 0.05 --optimizer adamw \
                     --threads 1 --workers 2 --device cpu --log-steps 1 --picture-epochs 0";

/// `count` pictures of blobs, 80×72 pixels, in two class folders.
pub fn with_images(count: u32) -> Workplace {
    let work = Workplace::of(env!("CARGO_BIN_EXE_pretrain"), SHORT);
    for number in 0..count {
        let class = work.path(&format!("images/class{}", number % 2));
        std::fs::create_dir_all(&class).unwrap();
        blobs(number).save(class.join(format!("{number:03}.png"))).unwrap();
    }
    work
}

/// Coloured discs on a gradient.
pub fn blobs(seed: u32) -> RgbImage {
    RgbImage::from_fn(80, 72, |x, y| {
        let mut colour = [(x * 2) as u8, (y * 3) as u8, 90];
        for disc in 0..4u32 {
            let hash = (seed * 31 + disc * 17 + 7).wrapping_mul(2_654_435_761);
            let (cx, cy, r) = ((hash >> 8) % 80, (hash >> 16) % 72, 6 + (hash >> 24) % 14);
            if x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < r * r {
                colour = [(hash >> 3) as u8, (hash >> 11) as u8, (hash >> 19) as u8];
            }
        }
        Rgb(colour)
    })
}

/// The folder `labelled`, with all images to train and to validate on.
pub fn labelled(work: &Workplace) {
    std::fs::create_dir(work.path("labelled")).unwrap();
    for part in ["train", "val"] {
        std::os::unix::fs::symlink(work.path("images"), work.path("labelled").join(part)).unwrap();
    }
}

/// One epoch.
pub const SHORTER: [&str; 4] = ["--epochs", "1", "--warmup-epochs", "0"];

/// [`SHORTER`] and more.
pub fn shorter<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [SHORTER.as_slice(), more].concat()
}

pub fn tensors(work: &Workplace, name: &str) -> StateDict {
    weights::read(work.path(name)).unwrap().tensors
}

/// `pretrain reconstruct` on two images; its tensors.
pub fn reconstruct(work: &Workplace, checkpoint: &str, more: &[&str]) -> (Finished, StateDict) {
    let arguments = ["reconstruct", "--checkpoint", checkpoint, "--output", "sheet.png"];
    let images = ["--tensors", "tensors", "images/class0/000.png", "images/class1/001.png"];
    let finished = work.run(&[&arguments, more, &images].concat()).succeeded();
    (finished, tensors(work, "tensors"))
}

/// Visible pixels are the original's, masked ones are not.
pub fn check_reconstruction(found: &StateDict, size: [i64; 4], visible: i64) {
    let (original, active) = (&found["original"], &found["active"]);
    let [_, _, height, width] = size;
    assert_eq!(original.size(), size);
    assert_eq!(active.size(), [size[0], 1, height / 32, width / 32]);
    let per_image = active.sum_dim_intlist([1i64, 2, 3].as_slice(), false, tch::Kind::Int64);
    assert_eq!(Vec::<i64>::try_from(per_image).unwrap(), vec![visible; size[0] as usize]);
    let pixels = active.repeat_interleave_self_int(32, 2, None);
    let pixels = pixels.repeat_interleave_self_int(32, 3, None).expand_as(original);
    let differs = found["reconstruction"].ne_tensor(original);
    assert_eq!(differs.logical_and(&pixels).any().int64_value(&[]), 0, "copied exactly");
    let share = differs.sum(tch::Kind::Double) / pixels.logical_not().sum(tch::Kind::Double);
    assert!(share.double_value(&[]) > 0.99, "predicted, not copied");
}

pub fn section(work: &Workplace, run: &str, name: &str) -> StateDict {
    work.checkpoint(run).section(name).unwrap()
}
