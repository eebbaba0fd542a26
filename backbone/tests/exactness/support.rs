//! Random masks and values, and the comparison of two executions.

use std::collections::BTreeMap;
use std::rc::Rc;

use backbone::{FeatureMap, Mode, PatchMask, Size};
use proptest::collection::vec;
use proptest::prelude::*;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

/// Float64 sums of at most a few thousand terms of size one, in another order,
/// lose some 1e-13; a wrong halo or statistic is off by more than 1e-3.
pub const FLOAT64: f64 = 1e-10;

/// A batch of masked images, without its pixels.
#[derive(Debug, Clone)]
pub struct Case {
    pub batch: i64,
    /// Rows and columns of patches.
    pub patches: Size,
    /// Positions of a patch.
    pub patch: Size,
    /// Visibility of every patch, images first.
    pub visible: Vec<bool>,
    /// Picks the values of tensors.
    pub seed: u32,
}

impl Case {
    /// Patches of 1–5 times `unit` positions under any mask: few, many or all
    /// patches visible, uneven between images, whole images masked.
    pub fn any(unit: Size) -> impl Strategy<Value = Self> {
        let sizes = (1..=3i64, 1..=3i64, 1..=3i64, 1..=5i64, 1..=5i64);
        (sizes, any::<u32>()).prop_flat_map(move |((batch, rows, cols, p, q), seed)| {
            let count = (batch * rows * cols) as usize;
            let (share, empty, lone) = (0..=4u32, 0..=batch, 0..count);
            (share, empty, lone, vec(0..4u32, count)).prop_map(
                move |(share, empty, lone, draws)| {
                    let mut visible: Vec<bool> = draws.iter().map(|&draw| draw < share).collect();
                    if empty < batch && share < 4 {
                        let image = (rows * cols) as usize;
                        visible[empty as usize * image..][..image].fill(false);
                    }
                    visible[lone] |= !visible.contains(&true);
                    let patch = (p * unit.0, q * unit.1);
                    Self { batch, patches: (rows, cols), patch, visible, seed }
                },
            )
        })
    }

    pub fn mask(&self) -> Rc<PatchMask> {
        let indices: Vec<i64> =
            (0..).zip(&self.visible).filter(|(_, on)| **on).map(|(i, _)| i).collect();
        PatchMask::from_visible(self.batch, self.patches, &indices, Device::Cpu).unwrap()
    }

    pub fn all_visible(&self) -> bool {
        self.visible.iter().all(|on| *on)
    }

    /// One where visible, float64 `[N, 1, H, W]` for patches of `patch`
    /// positions; written with loops, apart from the crate's index tables.
    pub fn active(&self, patch: Size) -> Tensor {
        let (rows, cols) = self.patches;
        let mut ones = Vec::new();
        for n in 0..self.batch {
            for y in 0..rows * patch.0 {
                for x in 0..cols * patch.1 {
                    let index = (n * rows + y / patch.0) * cols + x / patch.1;
                    ones.push(f64::from(u8::from(self.visible[index as usize])));
                }
            }
        }
        Tensor::from_slice(&ones).view([self.batch, 1, rows * patch.0, cols * patch.1])
    }

    /// Values in [−1, 1], `[N, channels, H, W]`.
    pub fn input(&self, channels: i64) -> Tensor {
        let (height, width) = (self.patches.0 * self.patch.0, self.patches.1 * self.patch.1);
        noise(self.seed, &[self.batch, channels, height, width])
    }
}

/// Float64 values in [−1, 1] that depend on `seed` and their place alone, so
/// that tests running side by side do not share a generator.
pub fn noise(seed: u32, size: &[i64]) -> Tensor {
    let count: i64 = size.iter().product();
    let place = Tensor::arange(count, (Kind::Double, Device::Cpu));
    let phase = f64::from(seed % 100_003) * 78.233;
    (((place * 12.9898 + phase).sin() * 43_758.545_3).frac()).view(size)
}

/// Fills every variable of `store` with values that leave no branch of a
/// network without effect (norm weights and layer scales around 1, running
/// variances above 0), in float64.
pub fn fill(store: &mut VarStore, seed: u32) {
    store.double();
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    tch::no_grad(|| {
        for ((name, mut variable), number) in variables.into_iter().zip(1..) {
            let size = variable.size();
            if variable.kind() != Kind::Double {
                continue;
            }
            let values = noise(seed.wrapping_add(number * 977), &size);
            let values = if size.len() > 1 {
                let fan_in: i64 = size[1..].iter().product();
                values * (3.0 / fan_in as f64).sqrt()
            } else if name.ends_with("bias") || name.ends_with("running_mean") {
                values * 0.2
            } else {
                values * 0.5 + 1.0
            };
            variable.copy_(&values);
        }
    });
}

/// Everything a pass leaves behind, by name.
pub type Outcome = BTreeMap<String, Tensor>;

/// One forward and backward of `forward` on `x` under float64-random weights
/// of the outputs: outputs on the grid, gradients of `x` and of the variables,
/// and the buffers (put back afterwards).
pub fn outcome(
    store: &VarStore,
    x: &FeatureMap,
    leaf: &Tensor,
    forward: impl Fn(&FeatureMap) -> Vec<Tensor>,
) -> Outcome {
    let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
    let buffers = || variables.iter().filter(|(_, variable)| !variable.requires_grad());
    let before: Vec<Tensor> = buffers().map(|(_, buffer)| buffer.copy()).collect();

    let outputs = forward(x);
    let weighted = |(output, seed): (&Tensor, u32)| {
        let weights = noise(seed, &output.size()).to_kind(output.kind());
        (output * weights).sum(Kind::Double)
    };
    let loss: Tensor = outputs.iter().zip(1..).map(weighted).sum();
    loss.backward();

    let mut outcome: Outcome = (0..).zip(&outputs).map(output_name).collect();
    outcome.insert("input's gradient".into(), leaf.grad());
    let parameters = variables.iter().filter(|(_, variable)| variable.requires_grad());
    outcome.extend(parameters.filter(|(_, parameter)| parameter.grad().defined()).map(
        |(name, parameter)| {
            let gradient = parameter.grad().copy();
            let _ = parameter.grad().zero_();
            (format!("gradient of {name}"), gradient)
        },
    ));
    outcome.extend(buffers().map(|(name, buffer)| (name.clone(), buffer.copy())));
    tch::no_grad(|| {
        for ((_, buffer), before) in buffers().zip(before) {
            buffer.shallow_clone().copy_(&before);
        }
    });
    outcome
}

fn output_name((index, output): (usize, &Tensor)) -> (String, Tensor) {
    (format!("output {index}"), output.detach())
}

/// The kinds of map that are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    Grid,
    Masked,
    Packed,
}

impl Execution {
    /// A fresh leaf with the values of `x`, and the map of this kind on it.
    pub fn input(self, x: &Tensor, mask: &Rc<PatchMask>) -> (Tensor, FeatureMap) {
        let leaf = x.detach().copy().set_requires_grad(true);
        let map = match self {
            Self::Grid => FeatureMap::Grid(leaf.shallow_clone()),
            Self::Masked => FeatureMap::masked(&leaf, mask).unwrap(),
            Self::Packed => FeatureMap::patches(&leaf, mask).unwrap(),
        };
        (leaf, map)
    }

    /// The outcome of `forward` on the map of this kind.
    pub fn outcome(
        self,
        store: &VarStore,
        x: &Tensor,
        mask: &Rc<PatchMask>,
        forward: impl Fn(&FeatureMap) -> Vec<Tensor>,
    ) -> Outcome {
        let (leaf, map) = self.input(x, mask);
        outcome(store, &map, &leaf, forward)
    }
}

/// Packed, masked and (where nothing is masked) plain execution of `forward`
/// on `case` leave the same behind, and zeros where masked.
pub fn agree(
    store: &VarStore,
    case: &Case,
    channels: i64,
    forward: impl Fn(&FeatureMap) -> FeatureMap,
) {
    let (x, mask) = (case.input(channels), case.mask());
    let on_grid = |x: &FeatureMap| {
        let y = forward(x);
        assert_eq!(y.batch(), case.batch);
        let grid = y.to_grid();
        if x.mask().is_some() {
            let (_, _, height, width) = grid.size4().unwrap();
            let active = case.active((height / case.patches.0, width / case.patches.1));
            let hidden = (&grid * active.ones_like().g_sub(&active)).abs().max();
            assert_eq!(hidden.double_value(&[]), 0.0, "masked positions are not zero");
        }
        vec![grid]
    };
    let packed = Execution::Packed.outcome(store, &x, &mask, on_grid);
    let masked = Execution::Masked.outcome(store, &x, &mask, on_grid);
    compare(&packed, &masked, FLOAT64);
    let gradients = packed.keys().filter(|name| name.starts_with("gradient of")).count();
    assert_eq!(gradients, store.trainable_variables().len(), "a parameter got no gradient");
    if case.all_visible() {
        compare(&packed, &Execution::Grid.outcome(store, &x, &mask, on_grid), FLOAT64);
    }
}

/// Every tensor of `got` differs from `expected` by at most `tolerance` of its
/// largest value (or of 1, where values are smaller).
pub fn compare(got: &Outcome, expected: &Outcome, tolerance: f64) {
    assert!(got.keys().eq(expected.keys()), "{:?} for {:?}", got.keys(), expected.keys());
    for (name, expected) in expected {
        close(name, &got[name], expected, tolerance);
    }
}

/// `got` differs from `expected` by at most `tolerance` of its largest value
/// (or of 1, where values are smaller).
pub fn close(name: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), expected.size(), "{name}");
    let difference = largest(&(got.to_kind(Kind::Double) - expected.to_kind(Kind::Double)));
    let scale = largest(expected).max(1.0);
    assert!(
        difference <= tolerance * scale,
        "{name}: differs by {difference:.2e} where values reach {scale:.2e}"
    );
}

/// Float64 values and their gradients by `leaves`, under random weights, agree to
/// [`FLOAT64`].
pub fn close_with_gradients(ours: &Tensor, theirs: &Tensor, leaves: &[&Tensor]) {
    close("value", ours, theirs, FLOAT64);
    let factor = theirs.randn_like();
    let gradients =
        |y: &Tensor| Tensor::run_backward(&[(y * &factor).sum(Kind::Double)], leaves, true, false);
    for (number, (ours, theirs)) in gradients(ours).iter().zip(gradients(theirs)).enumerate() {
        close(&format!("gradient {number}"), ours, &theirs, FLOAT64);
    }
}

/// The largest absolute value.
pub fn largest(tensor: &Tensor) -> f64 {
    let value = tensor.to_kind(Kind::Double).abs().max().double_value(&[]);
    assert!(value.is_finite(), "a value is {value}");
    value
}

/// Training mode without drop-path.
pub fn train() -> Mode {
    Mode::train().with_drop_path(backbone::DropPathDraws::Off)
}

/// Runs the body of the test `name` in a process of its own where oneDNN
/// leaves AMX alone: some virtual machines announce AMX to a processor's
/// guests but do not describe its tiles (CPUID leaf 1Dh), and there every
/// bfloat16 kernel of that kind dies of an illegal instruction.
pub fn without_amx(name: &str, body: impl FnOnce()) {
    const LIMIT: &str = "ONEDNN_MAX_CPU_ISA";
    if std::env::var_os(LIMIT).is_some() {
        return body();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(LIMIT, "AVX10_1_512")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}: {text}", output.status);
}
