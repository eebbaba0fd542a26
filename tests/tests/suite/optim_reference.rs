//! The optimizers step by step against `torch.optim` and timm's `Lamb` and
//! `Lion`, run live on the same parameters and gradients in float64.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use engine::optim::{
    AdamWConfig, BucketedOptimizer, Clip, LambConfig, LionConfig, Optimizer, ParamGroup, SgdConfig,
    UpdateRule,
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

/// Elementwise float64 formulas that differ in the order of a few roundings
/// (1e-16 each), through five steps that divide by a root of the state.
const TOLERANCE: f64 = 1e-12;

/// (lr, weight decay) of each step: both change, and the decay is once 0.
const SCHEDULE: [(f64, f64); 5] =
    [(0.02, 0.05), (0.1, 0.07), (0.05, 0.0), (0.03, 0.1), (0.01, 0.2)];

struct Group {
    names: &'static [&'static str],
    lr_scale: f64,
    wd_scale: f64,
}

/// Small tensors that share a bucket, one that is large enough for its own,
/// a channels-last one, one that stays zero, and one without early gradients.
const GROUPS: [Group; 3] = [
    Group {
        names: &["conv.weight", "large.weight", "zero.weight", "late.weight", "last.weight"],
        lr_scale: 1.0,
        wd_scale: 1.0,
    },
    Group { names: &["conv.bias", "gamma", "late.bias"], lr_scale: 1.0, wd_scale: 0.0 },
    Group { names: &["head.weight", "head.other"], lr_scale: 0.3, wd_scale: 0.5 },
];

fn shape(name: &str) -> &'static [i64] {
    match name {
        "conv.weight" => &[8, 3, 3, 3],
        "large.weight" => &[300, 256],
        "zero.weight" => &[4, 4],
        "late.weight" => &[5, 7],
        "last.weight" => &[64, 64, 4, 4],
        "head.weight" => &[10, 16],
        "head.other" => &[3, 2],
        _ => &[9],
    }
}

/// The starting parameters and the gradients of every step, by the names that
/// the Python script reads.
fn inputs() -> HashMap<String, Tensor> {
    tch::manual_seed(3);
    let mut tensors = HashMap::new();
    for name in GROUPS.iter().flat_map(|group| group.names) {
        let random = || Tensor::randn(shape(name), (Kind::Double, Device::Cpu));
        let zero = *name == "zero.weight";
        let param = if zero { random().zeros_like() } else { random() * 0.3 };
        tensors.insert(format!("param.{name}"), param);
        for step in 0..SCHEDULE.len() {
            // From far below to far above the clipping norm.
            let grad = random() * [0.001, 0.1, 0.03, 0.01, 0.1][step];
            let zero = zero && step != 3;
            if step >= 2 || !name.starts_with("late") {
                let grad = if zero { grad.zeros_like() } else { grad };
                tensors.insert(format!("grad.{step}.{name}"), grad);
            }
        }
    }
    tensors
}

type Make = Box<dyn Fn(Vec<ParamGroup>) -> Box<dyn Optimizer>>;

/// A case as Python reads it, and the same optimizer of ours.
fn case<const S: usize, R: UpdateRule<S> + Clone + 'static>(
    (name, kind): (&str, &str),
    options: Value,
    clip: Option<Clip>,
    rule: R,
) -> (Value, Make) {
    let (max_norm, max_value) = match clip {
        Some(Clip::Norm(bound)) => (Some(bound), None),
        Some(Clip::Value(bound)) => (None, Some(bound)),
        None => (None, None),
    };
    let case = json!({
        "name": name, "kind": kind, "options": options,
        "max_norm": max_norm, "max_value": max_value,
    });
    (case, Box::new(move |groups| Box::new(BucketedOptimizer::new(groups, rule.clone()).unwrap())))
}

fn lamb(name: &str, config: LambConfig) -> (Value, Make) {
    // timm clips by norm inside its step, and not by value.
    let (max_norm, outside) = match config.clip {
        Some(Clip::Norm(bound)) => (Some(bound), None),
        other => (None, other),
    };
    let options = json!({
        "betas": [config.betas.0, config.betas.1], "eps": config.eps,
        "max_grad_norm": max_norm, "bias_correction": config.bias_correction,
        "grad_averaging": config.grad_averaging, "always_adapt": config.always_adapt,
    });
    case((name, "lamb"), options, outside, config)
}

fn adamw(name: &str, config: AdamWConfig) -> (Value, Make) {
    let options = json!({ "betas": [config.betas.0, config.betas.1], "eps": config.eps });
    case((name, "adamw"), options, config.clip, config)
}

fn sgd(name: &str, config: SgdConfig) -> (Value, Make) {
    let options = json!({ "momentum": config.momentum, "nesterov": config.nesterov });
    case((name, "sgd"), options, config.clip, config)
}

fn lion(name: &str, config: LionConfig) -> (Value, Make) {
    let options = json!({ "betas": [config.betas.0, config.betas.1] });
    case((name, "lion"), options, config.clip, config)
}

/// Each of our configurations with what Python needs for the same.
fn cases() -> Vec<(Value, Make)> {
    let base = LambConfig::default;
    // Clips some values of each step but the first.
    let by_value = Some(Clip::Value(0.02));
    vec![
        lamb("lamb", base()),
        lamb("lamb_convnext", LambConfig { betas: (0.9, 0.999), ..base() }),
        lamb("lamb_unclipped", LambConfig { clip: None, ..base() }),
        lamb("lamb_adapt", LambConfig { always_adapt: true, ..base() }),
        lamb("lamb_uncorrected", LambConfig { bias_correction: false, ..base() }),
        lamb("lamb_sum", LambConfig { grad_averaging: false, ..base() }),
        lamb("lamb_by_value", LambConfig { clip: by_value, ..base() }),
        adamw("adamw", AdamWConfig::default()),
        adamw("adamw_unclipped", AdamWConfig { clip: None, betas: (0.8, 0.95), eps: 1e-6 }),
        adamw("adamw_by_value", AdamWConfig { clip: by_value, ..AdamWConfig::default() }),
        sgd("sgd", SgdConfig::default()),
        sgd("sgd_heavy_ball", SgdConfig { nesterov: false, ..SgdConfig::default() }),
        sgd("sgd_unclipped", SgdConfig { clip: None, ..SgdConfig::default() }),
        sgd("sgd_by_value", SgdConfig { clip: by_value, ..SgdConfig::default() }),
        lion("lion", LionConfig::default()),
        lion("lion_unclipped", LionConfig { clip: None, betas: (0.8, 0.95) }),
        lion("lion_by_value", LionConfig { clip: by_value, ..LionConfig::default() }),
    ]
}

#[test]
fn every_step_equals_the_reference() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = inputs();
    let cases = cases();
    let expected = reference(folder.path(), &tensors, cases.iter().map(|(case, _)| case));

    for (case, make) in cases {
        let name = case["name"].as_str().unwrap();
        let params = parameters(&tensors);
        let mut optimizer = make(groups(&params));
        for (step, (lr, weight_decay)) in SCHEDULE.into_iter().enumerate() {
            optimizer.zero_grad();
            set_gradients(&params, &tensors, step);
            let norm = optimizer.step(lr, weight_decay).grad_norm;
            compare(&norm, &expected[&format!("{name}.{step}.norm")], name, step, "norm");
            for (param_name, param) in &params {
                let wanted = &expected[&format!("{name}.{step}.{param_name}")];
                compare(param, wanted, name, step, param_name);
            }
        }
    }
}

/// Runs the Python script, once for all cases.
fn reference<'a>(
    folder: &Path,
    tensors: &HashMap<String, Tensor>,
    cases: impl Iterator<Item = &'a Value>,
) -> HashMap<String, Tensor> {
    let [input, list, output] =
        ["in.safetensors", "cases.json", "out.safetensors"].map(|name| folder.join(name));
    let pairs: Vec<_> = tensors.iter().collect();
    Tensor::write_safetensors(&pairs, &input).unwrap();
    let groups: Vec<Value> = GROUPS
        .iter()
        .map(|g| json!({ "names": g.names, "lr_scale": g.lr_scale, "wd_scale": g.wd_scale }))
        .collect();
    let cases: Vec<Value> = cases
        .map(|case| {
            let mut case = case.clone();
            case["groups"] = json!(groups);
            case["schedule"] = json!(SCHEDULE);
            case
        })
        .collect();
    std::fs::write(&list, serde_json::to_vec(&cases).unwrap()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/optim_reference.py");
    let status =
        Command::new(spark_tests::python()).arg(script).args([&input, &list, &output]).status();
    assert!(status.expect("Python starts").success(), "the reference script failed");
    Tensor::read_safetensors(&output).unwrap().into_iter().collect()
}

fn parameters(tensors: &HashMap<String, Tensor>) -> Vec<(String, Tensor)> {
    let names = GROUPS.iter().flat_map(|group| group.names);
    names
        .map(|name| {
            let start = tensors[&format!("param.{name}")].copy();
            let param = match *name {
                "last.weight" => start.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]),
                _ => start,
            };
            (name.to_string(), param.set_requires_grad(true))
        })
        .collect()
}

fn groups(params: &[(String, Tensor)]) -> Vec<ParamGroup> {
    GROUPS
        .iter()
        .map(|group| ParamGroup {
            params: params
                .iter()
                .filter(|(name, _)| group.names.contains(&name.as_str()))
                .map(|(name, param)| (name.clone(), param.shallow_clone()))
                .collect(),
            lr_scale: group.lr_scale,
            weight_decay_scale: group.wd_scale,
        })
        .collect()
}

/// Backward through Σ p·g leaves exactly g as the gradient of p.
fn set_gradients(params: &[(String, Tensor)], tensors: &HashMap<String, Tensor>, step: usize) {
    for (name, param) in params {
        if let Some(grad) = tensors.get(&format!("grad.{step}.{name}")) {
            (param * grad).sum(Kind::Double).backward();
        }
    }
}

fn compare(ours: &Tensor, theirs: &Tensor, case: &str, step: usize, what: &str) {
    assert_eq!(ours.size(), theirs.size(), "{case} step {step} {what}");
    let scale = theirs.abs().max().double_value(&[]).max(1e-3);
    let difference = (ours - theirs).abs().max().double_value(&[]) / scale;
    assert!(difference <= TOLERANCE, "{case} step {step} {what}: off by {difference:e}");
}
