//! Training steps of SparK against eager PyTorch, masked after every layer.

use engine::precision::Precision;

use crate::duel::{Check, Comparison, Contender, Program, Unit};
use crate::inputs::{Exported, Inputs, SparkInputs};

/// Model, its name in the table, and about how long a round of both takes.
const MODELS: [(&str, &str, f64); 3] = [
    ("resnet50", "ResNet-50", 10.0),
    ("convnext_small", "ConvNeXt-S", 20.0),
    ("convnext_large", "ConvNeXt-L", 60.0),
];
/// Networks that come from timm as `.pt2` files, likewise.
const EXPORTED: [(&str, &str, f64); 5] = [
    ("efficientnet_b0", "EfficientNet-B0", 10.0),
    ("regnety_016", "RegNetY-1.6GF", 10.0),
    ("mobilenetv3_large_100", "MobileNetV3-L", 8.0),
    ("densenet121", "DenseNet-121", 20.0),
    ("cspdarknet53", "CSPDarknet-53", 20.0),
];
/// Those of [`MODELS`] whose `.pt2` files are run beside the built-in model.
const BESIDE: usize = 2;
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
    let against_pytorch = MODELS.map(|model| (model, None)).into_iter();
    let exported = EXPORTED.map(|model| (model, Some(Exported::Pyramid)));
    let mut duels = Vec::new();
    for ((model, title, expected), exported) in against_pytorch.chain(exported) {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let duel = step(inputs(model, exported), precision, STEPS);
            let work = work(title, exported.is_some(), &duel.work);
            duels.push(Comparison { work, expected, ..duel });
        }
    }
    for (model, title, expected) in &MODELS[..BESIDE] {
        for precision in [Precision::Float32, Precision::Bfloat16] {
            let duel = beside_built_in(model, precision);
            let work = work(title, true, &duel.work);
            duels.push(Comparison { work, expected: expected / 2.0, ..duel });
        }
    }
    duels
}

fn inputs(model: &str, exported: Option<Exported>) -> SparkInputs {
    SparkInputs {
        model: model.to_owned(),
        exported,
        batch: BATCH,
        size: SIZE,
        mask_ratio: MASK_RATIO,
    }
}

/// For the table.
fn work(title: &str, exported: bool, precision: &str) -> String {
    let file = if exported { " from its .pt2" } else { "" };
    format!("SparK step, {title}{file}, {BATCH} × {SIZE} px, {precision}")
}

/// A step of timm's network from its `.pt2` file against the built-in model, with the same weights.
fn beside_built_in(model: &str, precision: Precision) -> Comparison {
    let duel = step(inputs(model, Some(Exported::Classifier)), precision, STEPS);
    let mut built_in = duel.ours.clone();
    built_in.arguments.retain(|argument| argument != "--exported");
    Comparison {
        name: format!("pt2-{model}-{}", duel.work),
        opponent: format!("the built-in {model}, {}", duel.work),
        theirs: vec![built_in],
        ..duel
    }
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
    let model = &inputs.model;
    let exported = if inputs.exported.is_some() { "--exported" } else { "" };
    let arguments = format!("--model {model} {exported} --steps {steps} {UPDATE}");
    let theirs = |label, more: &str| {
        Contender::new(label, Program::Script("spark.py"), &format!("{arguments} {more}"))
    };
    Comparison {
        name: format!("spark-{model}-{name}"),
        work: name.to_owned(),
        opponent: "eager PyTorch, masked-dense, float32".to_owned(),
        unit: Unit::Step,
        expected: 5.0,
        products: Some(precision),
        checks: vec![Check { name: "loss", tolerance }],
        ours: Contender::new("", Program::Own, &format!("spark --precision {name} {arguments}")),
        theirs: vec![theirs("contiguous", ""), theirs("channels last", "--channels-last")],
        inputs: Inputs::Spark(inputs),
    }
}
