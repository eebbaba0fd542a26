//! A backbone's features against timm's eager ones.

use engine::precision::Precision;

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::inputs::Inputs;

/// Model, and its name in the table.
const MODELS: [(&str, &str); 2] = [("resnet50", "ResNet-50"), ("convnext_tiny", "ConvNeXt-T")];
/// Images of a pass, passes of a round.
const BATCHES: [(usize, usize); 2] = [(1, 8), (16, 1)];
/// Side of the images in pixels.
const SIZE: usize = 224;
/// Values of each level that are compared.
const SAMPLES: usize = 256;
/// Rounding of sums of a few thousand products, layer upon layer.
const TOLERANCE: f64 = 1e-4;
const LEVELS: [&str; 4] = ["level 0", "level 1", "level 2", "level 3"];

/// One image at a time, and sixteen.
pub fn duels() -> Vec<Comparison> {
    let pairs = MODELS.into_iter().flat_map(|model| BATCHES.map(|batch| (model, batch)));
    pairs.map(|((model, title), (batch, passes))| duel(model, title, batch, passes)).collect()
}

fn duel(model: &'static str, title: &str, batch: usize, passes: usize) -> Comparison {
    let arguments =
        format!("--model {model} --batch {batch} --passes {passes} --samples {SAMPLES}");
    Comparison {
        name: format!("inference-{model}-b{batch}"),
        work: format!("features, {title}, {batch} × {SIZE} px, float32"),
        opponent: "timm, eager, inference mode".to_owned(),
        unit: Unit::Pass,
        expected: 3.0,
        products: Some(Precision::Float32),
        inputs: Inputs::Timm { model, images: BATCHES[1].0, size: SIZE },
        checks: LEVELS.map(|name| Check { name, tolerance: TOLERANCE }).into(),
        ours: Contender::new("", Program::Own, &format!("inference {arguments}")),
        theirs: vec![Contender::new("channels last", Program::Script("inference.py"), &arguments)],
    }
}
