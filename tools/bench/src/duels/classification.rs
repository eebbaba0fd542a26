//! Fine-tuning steps of a classifier against timm's network in PyTorch.

use engine::precision::Precision;

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::duels::ways;
use crate::inputs::Inputs;

/// Model, and its name in the table.
const MODELS: [(&str, &str); 2] = [("resnet50", "ResNet-50"), ("convnext_tiny", "ConvNeXt-T")];
/// Images of a step.
const BATCH: usize = 16;
/// Their side in pixels.
const SIZE: usize = 224;
/// Of AdamW on both sides: an update that the second step's loss shows.
const UPDATE: &str = "--lr 1e-4 --weight-decay 0.05";

/// In float32 and in bfloat16.
pub fn duels() -> Vec<Comparison> {
    let precisions = [Precision::Float32, Precision::Bfloat16];
    let pairs = MODELS.into_iter().flat_map(|model| precisions.map(|precision| (model, precision)));
    pairs.map(|((model, title), precision)| duel(model, title, precision)).collect()
}

fn duel(model: &'static str, title: &str, precision: Precision) -> Comparison {
    let (name, tolerance) = match precision {
        // Single rounding errors of 10⁷ terms, and those of the first update.
        Precision::Float32 => ("float32", 1e-3),
        // Eight bits of fraction in every layer.
        _ => ("bfloat16", 5e-2),
    };
    let arguments = format!("--model {model} {UPDATE}");
    Comparison {
        name: format!("classification-{model}-{name}"),
        work: format!("fine-tuning step, {title}, {BATCH} × {SIZE} px, {name}"),
        opponent: "timm".to_owned(),
        unit: Unit::Step,
        expected: 8.0,
        products: Some(precision),
        inputs: Inputs::Timm { model, images: BATCH, size: SIZE },
        checks: vec![Check { name: "loss", tolerance }],
        ours: Contender::new(
            "",
            Program::Own,
            &format!("classification --precision {name} {arguments}"),
        ),
        theirs: ways("classification.py", &arguments, precision),
    }
}
