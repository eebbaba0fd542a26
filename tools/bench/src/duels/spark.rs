//! Training steps of SparK against eager PyTorch, masked after every layer.

use engine::precision::Precision;

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::inputs::{Inputs, SparkInputs};

/// Model, its name in the table, and about how long a round of both takes.
const MODELS: [(&str, &str, f64); 3] = [
    ("resnet50", "ResNet-50", 10.0),
    ("convnext_small", "ConvNeXt-S", 20.0),
    ("convnext_large", "ConvNeXt-L", 60.0),
];
/// Steps of a round, one right after the other as in training: the first after a
/// wait finds cold caches.
const STEPS: usize = 2;
/// Images of a step.
const BATCH: i64 = 8;
/// Their side in pixels.
const SIZE: i64 = 224;
/// The paper's share of masked patches.
const MASK_RATIO: f64 = 0.6;
/// Learning rate and weight decay of both sides: an update that the second
/// step's loss shows.
const UPDATE: &str = "--lr 1e-3 --weight-decay 0.04";

/// In float32 and in bfloat16, against float32.
pub fn duels() -> Vec<Comparison> {
    let mut duels = Vec::new();
    for (model, title, expected) in MODELS {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let inputs = SparkInputs {
                model: model.to_owned(),
                batch: BATCH,
                size: SIZE,
                mask_ratio: MASK_RATIO,
            };
            let duel = step(inputs, precision, STEPS);
            let work = format!("SparK step, {title}, {BATCH} × {SIZE} px, {}", duel.work);
            duels.push(Comparison { work, expected, ..duel });
        }
    }
    duels
}

/// A step of both sides on `inputs`, `steps` of them a round; ours in
/// `precision`. The work is told by its precision alone.
pub fn step(inputs: SparkInputs, precision: Precision, steps: usize) -> Comparison {
    let (name, tolerance) = match precision {
        // Single rounding errors of 10⁷ terms, and those of the first update.
        Precision::Float32 => ("float32", 1e-4),
        // Eight bits of fraction in every layer.
        _ => ("bfloat16", 2e-2),
    };
    let SparkInputs { model, .. } = &inputs;
    let arguments = format!("--model {model} --steps {steps} {UPDATE}");
    let theirs = |label, more: &str| {
        Contender::new(label, Program::Script("spark.py"), &format!("{arguments} {more}"))
    };
    Comparison {
        name: format!("spark-{model}-{name}"),
        work: name.to_owned(),
        opponent: "eager PyTorch, masked-dense, float32".to_owned(),
        unit: Unit::Step,
        expected: 5.0,
        checks: vec![Check { name: "loss", tolerance }],
        ours: Contender::new("", Program::Own, &format!("spark --precision {name} {arguments}")),
        theirs: vec![theirs("contiguous", ""), theirs("channels last", "--channels-last")],
        inputs: Inputs::Spark(inputs),
    }
}
