//! What holds for every optimizer: exact continuation from a saved state,
//! skipped parameters, and errors that name what is wrong. Their arithmetic
//! is compared with PyTorch's and timm's in the workspace's `tests`.

use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use super::*;

const SHAPES: [(&str, &[i64]); 5] = [
    ("stem.weight", &[8, 3, 3, 3]),
    ("stem.bias", &[8]),
    ("wide.weight", &[300, 256]),
    ("norm.weight", &[31]),
    ("mask_tokens.0", &[1, 17, 1, 1]),
];

fn model() -> Vec<(String, Tensor)> {
    SHAPES
        .iter()
        .enumerate()
        .map(|(i, (name, shape))| {
            let numbers = Tensor::arange(shape.iter().product::<i64>(), (Kind::Float, Device::Cpu));
            let values = (numbers * 0.37 + i as f64).sin().reshape(*shape);
            (name.to_string(), values.set_requires_grad(true))
        })
        .collect()
}

type Factory = fn(Vec<ParamGroup>) -> Box<dyn Optimizer>;

type ClippedFactory = fn(Vec<ParamGroup>, Option<Clip>) -> Box<dyn Optimizer>;

fn clipped_optimizers() -> [(&'static str, ClippedFactory); 4] {
    [
        ("lamb", |groups, clip| {
            Box::new(Lamb::new(groups, LambConfig { clip, ..Default::default() }).unwrap())
        }),
        ("adamw", |groups, clip| {
            Box::new(AdamW::new(groups, AdamWConfig { clip, ..Default::default() }).unwrap())
        }),
        ("sgd", |groups, clip| {
            Box::new(Sgd::new(groups, SgdConfig { clip, ..Default::default() }).unwrap())
        }),
        ("lion", |groups, clip| {
            Box::new(Lion::new(groups, LionConfig { clip, ..Default::default() }).unwrap())
        }),
    ]
}

/// With their own constants.
fn optimizers() -> [(&'static str, Factory); 4] {
    [
        ("lamb", |groups| Box::new(Lamb::new(groups, LambConfig::default()).unwrap())),
        ("adamw", |groups| Box::new(AdamW::new(groups, AdamWConfig::default()).unwrap())),
        ("sgd", |groups| Box::new(Sgd::new(groups, SgdConfig::default()).unwrap())),
        ("lion", |groups| Box::new(Lion::new(groups, LionConfig::default()).unwrap())),
    ]
}

/// Trains for `steps` on a made-up loss; "norm.weight" is left out of step 1.
fn train(params: &[(String, Tensor)], optimizer: &mut dyn Optimizer, steps: std::ops::Range<u64>) {
    for step in steps {
        optimizer.zero_grad();
        let mut loss = Tensor::from(0f32);
        for (name, param) in params {
            if name != "norm.weight" || step != 1 {
                loss += (param * (1.0 + step as f64)).cos().sum(Kind::Float);
            }
        }
        loss.backward();
        optimizer.step(0.01 / (1.0 + step as f64), 0.05);
    }
}

fn detached(params: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    params.iter().map(|(n, p)| (n.clone(), p.detach().copy().set_requires_grad(true))).collect()
}

/// Bit for bit, which `Tensor::eq` on finite values is.
fn assert_same(a: &[(String, Tensor)], b: &[(String, Tensor)], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for ((name, x), (_, y)) in a.iter().zip(b) {
        assert!(x.equal(y), "{what}: {name} differs");
    }
}

#[test]
fn a_saved_state_continues_bit_for_bit() {
    for (what, make) in optimizers() {
        let whole = model();
        train(&whole, make(param_groups(clones(&whole))).as_mut(), 0..5);

        let first = model();
        let mut optimizer = make(param_groups(clones(&first)));
        train(&first, optimizer.as_mut(), 0..3);
        let saved: BTreeMap<String, Tensor> =
            optimizer.state().into_iter().map(|(name, t)| (name, t.copy())).collect();

        let second = detached(&first);
        let mut resumed = make(param_groups(clones(&second)));
        resumed.load_state(&saved).unwrap();
        train(&second, resumed.as_mut(), 3..5);
        assert_same(&whole, &second, what);

        // The state matters: without it the end is another.
        let third = detached(&first);
        train(&third, make(param_groups(clones(&third))).as_mut(), 3..5);
        assert!(!whole[0].1.equal(&third[0].1), "{what}: the state has no effect");
    }
}

fn clones(params: &[(String, Tensor)]) -> Vec<(String, Tensor)> {
    params.iter().map(|(name, p)| (name.clone(), p.shallow_clone())).collect()
}

#[test]
fn a_parameter_without_gradient_is_left_alone() {
    for (what, make) in optimizers() {
        let params = model();
        let before = detached(&params);
        let mut optimizer = make(param_groups(clones(&params)));
        train(&params, optimizer.as_mut(), 1..2);
        for ((name, old), (_, new)) in before.iter().zip(&params) {
            assert_eq!(old.equal(new), name == "norm.weight", "{what}: {name}");
        }
        let state = optimizer.state();
        let average = if what == "sgd" { "momentum_buffer" } else { "exp_avg" };
        let norm = |name: &str| state[&format!("{average}.{name}")].norm().double_value(&[]);
        assert_eq!(norm("norm.weight"), 0.0, "{what}");
        assert!(norm("stem.bias") > 0.0, "{what}");
    }
}

#[test]
fn states_have_the_names_and_shapes_of_the_parameters() {
    let [(_, lamb), (_, adamw), (_, sgd), (_, lion)] = optimizers();
    let adam: &[&str] = &["exp_avg", "exp_avg_sq"];
    for (make, kept, counters) in [
        (lamb, adam, vec!["step".to_owned()]),
        (adamw, adam, SHAPES.map(|(name, _)| format!("step.{name}")).to_vec()),
        (sgd, &["momentum_buffer"], Vec::new()),
        (lion, &["exp_avg"], Vec::new()),
    ] {
        let mut state = make(param_groups(model())).state();
        for counter in counters {
            let count = state.remove(&counter).unwrap();
            assert_eq!((count.kind(), count.size()), (Kind::Int64, vec![]), "{counter}");
        }
        for (name, shape) in SHAPES {
            for kept in kept {
                assert_eq!(state.remove(&format!("{kept}.{name}")).unwrap().size(), shape);
            }
        }
        assert!(state.is_empty(), "{:?}", state.keys());
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    for (what, make) in optimizers() {
        let params = model();
        let mut optimizer = make(param_groups(clones(&params)));
        train(&params, optimizer.as_mut(), 0..1);
        let good: BTreeMap<String, Tensor> =
            optimizer.state().into_iter().map(|(name, t)| (name, t.copy())).collect();
        let key = good.keys().find(|k| k.ends_with("stem.weight")).unwrap().clone();
        let altered = |change: &dyn Fn(&mut BTreeMap<String, Tensor>)| {
            let mut state: BTreeMap<_, _> =
                good.iter().map(|(k, t)| (k.clone(), t.zeros_like())).collect();
            change(&mut state);
            state
        };
        let cases: [(BTreeMap<String, Tensor>, &str); 4] = [
            (altered(&|s| drop(s.remove(&key))), "stem.weight is missing"),
            (altered(&|s| drop(s.insert("extra".into(), Tensor::from(0)))), "state is extra"),
            (
                altered(&|s| drop(s.insert(key.clone(), Tensor::from(0f32)))),
                "([8, 3, 3, 3], Float)",
            ),
            (
                altered(&|s| drop(s.insert(key.clone(), good[&key].to_kind(Kind::Double)))),
                "([8, 3, 3, 3], Double)",
            ),
        ];
        for (state, sentence) in cases {
            let message = optimizer.load_state(&state).unwrap_err().to_string();
            assert!(message.contains(sentence), "{what}: {message}");
        }
        assert!(optimizer.state()[&key].equal(&good[&key]), "{what}: changed by a failed load");
    }
}

#[test]
fn impossible_parameters_and_constants_are_refused() {
    let refused = |groups, config| Lamb::new(groups, config).err().unwrap().to_string();
    let group = |params| vec![ParamGroup { params, lr_scale: 1.0, weight_decay_scale: 1.0 }];
    let one = |t: Tensor| group(vec![("a".to_owned(), t)]);
    let leaf = |kind| Tensor::ones([2], (kind, Device::Cpu)).set_requires_grad(true);
    let config = LambConfig::default;

    assert!(refused(Vec::new(), config()).contains("needs some"));
    assert!(refused(one(leaf(Kind::Float).detach()), config()).contains("requires gradients"));
    assert!(refused(one(leaf(Kind::Half)), config()).contains("parameter a is Half"));
    let twice = vec![("a".to_owned(), leaf(Kind::Float)), ("a".to_owned(), leaf(Kind::Float))];
    assert!(refused(group(twice), config()).contains("given twice"));
    let tied = leaf(Kind::Float);
    let tied = vec![("a".to_owned(), tied.shallow_clone()), ("b".to_owned(), tied)];
    assert!(refused(group(tied), config()).contains("updated twice"));
    let message = refused(one(leaf(Kind::Float)), LambConfig { betas: (0.9, 1.0), ..config() });
    assert!(message.contains("beta2 is 1"), "{message}");
    for (clip, sentence) in [
        (Clip::Norm(0.0), "clip norm is 0"),
        (Clip::Norm(f64::NAN), "clip norm is NaN"),
        (Clip::Value(-1.0), "clip value is -1"),
    ] {
        let clip = Some(clip);
        let message = refused(one(leaf(Kind::Float)), LambConfig { clip, ..config() });
        assert!(message.contains(sentence), "{message}");
    }
}

#[test]
fn the_scaler_undoes_its_factor_and_backs_off_on_overflow() {
    let param = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let params = vec![("a".to_owned(), param.shallow_clone())];
    let mut sgd = Sgd::new(param_groups(params), SgdConfig::default()).unwrap();
    let mut scaler = GradScaler::default();
    assert!(scaler.unscale(&sgd), "no gradients are finite gradients");

    scaler.scale(&(&param * 3.0).sum(Kind::Float)).backward();
    assert_eq!(param.grad().double_value(&[0]), 3.0 * 65536.0);
    assert!(scaler.unscale(&sgd));
    assert_eq!(param.grad().double_value(&[0]), 3.0);
    for _ in 0..2000 {
        scaler.update(true);
    }
    assert_eq!(scaler.factor(), 131072.0);

    for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
        sgd.zero_grad();
        let factors = Tensor::from_slice(&[1.0, bad, 2.0, 3.0]);
        (&param * factors).sum(Kind::Float).backward();
        assert!(!scaler.unscale(&sgd), "{bad}");
    }
    scaler.update(false);
    assert_eq!(scaler.factor(), 65536.0);

    let json = serde_json::to_string(&scaler).unwrap();
    assert_eq!(serde_json::from_str::<GradScaler>(&json).unwrap(), scaler);
}

/// LAMB's kernel walks memory from end to end; parameters with gaps in theirs
/// take the operators, as those on other devices do. Both are the same optimizer.
#[test]
fn lambs_kernel_and_its_operators_agree() {
    let dense = model();
    let gaps = |param: &Tensor| {
        let mut size = param.size();
        let last = size.len() - 1;
        size[last] *= 2;
        let (wide, params) = (Tensor::zeros(size.as_slice(), (Kind::Float, Device::Cpu)), param);
        let mut view = wide.slice(last as i64, 0, None, 2);
        view.copy_(&params.detach());
        view.set_requires_grad(true)
    };
    let sparse: Vec<_> = dense.iter().map(|(name, p)| (name.clone(), gaps(p))).collect();
    assert!(sparse.iter().all(|(_, param)| !param.is_contiguous()));
    for params in [&dense, &sparse] {
        let groups = param_groups(params.iter().map(|(n, p)| (n.clone(), p.shallow_clone())));
        let mut optimizer = Lamb::new(groups, LambConfig::default()).unwrap();
        train(params, &mut optimizer, 0..4);
    }
    for ((name, ours), (_, theirs)) in dense.iter().zip(&sparse) {
        // Four updates of at most 0.01 times a norm, in float32 both.
        let off = (ours - theirs).abs().max().double_value(&[]);
        assert!(off < 1e-5, "{name}: {off}");
    }
    let moved = (&dense[2].1 - &model()[2].1).abs().max().double_value(&[]);
    assert!(moved > 1e-3, "or nothing was compared: {moved}");
}

/// Gradients in bfloat16, as passes leave them that keep them narrow, update as the
/// same values in float32 do.
#[test]
fn bfloat16_gradients_update_as_float32_ones() {
    for (what, make) in optimizers() {
        let trained = [true, false].map(|narrow| {
            let params = model();
            let mut optimizer = make(param_groups(clones(&params)));
            let norms = [0, 1, 2].map(|_| {
                optimizer.zero_grad();
                let sums = params.iter().map(|(_, param)| param.cos().sum(Kind::Float));
                sums.sum::<Tensor>().backward();
                for (_, param) in params.iter().filter(|(_, param)| param.dim() > 1) {
                    let rounded = param.grad().to_kind(Kind::BFloat16);
                    let kept = if narrow { rounded } else { rounded.to_kind(Kind::Float) };
                    param.grad().set_data(&kept);
                }
                optimizer.step(0.01, 0.05).grad_norm.double_value(&[])
            });
            (params, norms)
        });
        let [(narrow, norms), (wide, wide_norms)] = &trained;
        assert_eq!(norms, wide_norms, "{what}");
        assert_same(narrow, wide, what);
    }
}

/// Clipping inside the step is clipping before it; the norm that is returned is that before.
#[test]
fn values_are_clipped_as_clamped_gradients() {
    const BOUND: f64 = 0.3;
    for (what, make) in clipped_optimizers() {
        for bfloat16 in [false, true] {
            let [inside, before] = [Some(Clip::Value(BOUND)), None].map(|clip| {
                let params = model();
                let mut optimizer = make(param_groups(clones(&params)), clip);
                params.iter().map(|(_, p)| p.cos().sum(Kind::Float)).sum::<Tensor>().backward();
                let mut norm = 0.0;
                for (_, param) in &params {
                    let mut grad = param.grad();
                    if bfloat16 && param.dim() > 1 {
                        grad = grad.to_kind(Kind::BFloat16);
                    }
                    norm += grad.to_kind(Kind::Double).square().sum(Kind::Double).double_value(&[]);
                    let clamped = || grad.to_kind(Kind::Float).clamp(-BOUND, BOUND);
                    param.grad().set_data(&if clip.is_none() { clamped() } else { grad });
                }
                let found = optimizer.step(0.01, 0.05).grad_norm.double_value(&[]);
                assert!(clip.is_none() || (found / norm.sqrt() - 1.0).abs() < 1e-6, "{what}");
                let state = optimizer.state().into_iter();
                params.into_iter().chain(state).collect::<Vec<_>>()
            });
            assert_same(&inside, &before, what);
        }
    }
}
