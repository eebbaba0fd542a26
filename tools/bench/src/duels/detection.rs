//! Mask R-CNN against torchvision's: training steps, and images to run-length masks.

use engine::precision::Precision;

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::duels::ways;
use crate::inputs::Inputs;

/// Height and width of the images of a training step in pixels, and how many there are.
const TRAIN: ((usize, usize), usize) = ((480, 640), 2);
/// Of the image that is looked at: COCO's usual, which both sides leave as it is.
const INFER: ((usize, usize), usize) = ((800, 1066), 1);
/// Objects of an image.
const OBJECTS: usize = 8;
/// Sums of a few thousand products, layer upon layer; in bfloat16 each has eight bits.
const LOSS: [f64; 2] = [1e-3, 5e-2];
/// Likewise, of a softmax over large logits.
const SCORE: [f64; 2] = [1e-3, 0.1];
const LOSSES: [&str; 5] = ["loss_rpn_cls", "loss_rpn_loc", "loss_cls", "loss_box_reg", "loss_mask"];

/// In float32 and in bfloat16.
pub fn duels() -> Vec<Comparison> {
    let precisions = [Precision::Float32, Precision::Bfloat16];
    let steps = precisions.map(|precision| duel("train", precision));
    let images = precisions.map(|precision| duel("infer", precision));
    steps.into_iter().chain(images).collect()
}

fn duel(mode: &str, precision: Precision) -> Comparison {
    let (name, index) = match precision {
        Precision::Float32 => ("float32", 0),
        _ => ("bfloat16", 1),
    };
    let trains = mode == "train";
    let ((height, width), images) = if trains { TRAIN } else { INFER };
    let checks = match trains {
        true => LOSSES.map(|name| Check { name, tolerance: LOSS[index] }).into(),
        false => vec![Check { name: "scores", tolerance: SCORE[index] }],
    };
    let work = if trains { "training step" } else { "image to masks" };
    let unit = if trains { Unit::Step } else { Unit::Pass };
    Comparison {
        name: format!("detection-{mode}-{name}"),
        work: format!("Mask R-CNN, ResNet-50, {work}, {images} × {width} × {height} px, {name}"),
        opponent: "torchvision".to_owned(),
        unit,
        expected: if trains { 12.0 } else { 5.0 },
        products: Some(precision),
        inputs: Inputs::Detector { images, size: (height, width), objects: OBJECTS },
        checks,
        ours: Contender::new(
            "",
            Program::Own,
            &format!("detection --mode {mode} --precision {name}"),
        ),
        theirs: ways("detection.py", &format!("--mode {mode}"), precision),
    }
}
