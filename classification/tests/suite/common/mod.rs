//! What the tests of the program share: small images in class folders and short
//! runs.

use image::{Rgb, RgbImage};

pub use test_support::*;

/// Of seconds: 32 px, three classes.
const SHORT: &str = "--data images --preset demo --model tiny.pt2 --input-size 32 --batch-size 6 \
                     --epochs 4 --warmup-epochs 1 --threads 1 --workers 2 --device cpu \
                     --log-steps 1";

/// As [`SHORT`], with everything that evaluates and averages left to its default.
pub const SHORT_TOML: &str = "\
data = \"images\"
model = \"tiny.pt2\"
input-size = 32
batch-size = 6
epochs = 4
warmup-epochs = 1
threads = 1
workers = 2
device = \"cpu\"
log-steps = 1
";

/// The classes' names.
pub const CLASSES: [&str; 3] = ["blue", "green", "red"];

/// `count` images of each class to train on, and four to validate with.
pub fn with_images(count: u32) -> Workplace {
    let work = Workplace::of(env!("CARGO_BIN_EXE_classify"), SHORT);
    for (class, name) in (0..).zip(CLASSES) {
        for (split, count) in [("train", count), ("val", 4)] {
            let folder = work.path(&format!("images/{split}/{name}"));
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..count {
                let seed = number * 2 + u32::from(split == "val");
                picture(class, seed).save(folder.join(format!("{number:03}.png"))).unwrap();
            }
        }
    }
    work
}

/// A disc of the class's colour on a dull ground, both a little different each
/// time.
fn picture(class: usize, seed: u32) -> RgbImage {
    let hash = (seed * 31 + class as u32 * 7 + 1).wrapping_mul(2_654_435_761);
    let (cx, cy, radius) = (12 + (hash >> 8) % 16, 12 + (hash >> 16) % 16, 6 + (hash >> 24) % 8);
    RgbImage::from_fn(40, 44, |x, y| {
        let mut colour = [90 + (x % 7) as u8 * 3, 90 + (y % 5) as u8 * 4, 90 + (hash % 30) as u8];
        if x.abs_diff(cx).pow(2) + y.abs_diff(cy).pow(2) < radius * radius {
            colour[2 - class] = 230;
        }
        Rgb(colour)
    })
}
