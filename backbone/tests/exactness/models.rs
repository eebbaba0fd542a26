//! Whole networks: packed against masked-dense execution.

use backbone::models::{self, Build, BuildOptions, SMALL};
use backbone::weights;
use backbone::{Backbone, DropPathDraws, FeatureMap, Mode, Size};
use tch::nn::{Path, VarStore};
use tch::{Device, Tensor};

use crate::support::{Case, Execution, Outcome, fill, largest, noise};

/// Relative to each tensor's largest value; batch norms amplify the rounding
/// of sums in another order from block to block, to some 1e-12.
const FLOAT64: f64 = 1e-10;
/// Gradients that vanish exactly (biases that a batch norm takes out again)
/// come out as rounding noise this far below the largest gradient, and are
/// compared on its scale.
const VANISHING: f64 = 1e-9;

fn registered(name: &str, path: &Path, options: &BuildOptions) -> Box<dyn Backbone> {
    models::find(name).unwrap().build(path, options).unwrap()
}

struct Setting<'a> {
    options: BuildOptions,
    /// Pixels of a mask patch.
    patch: Size,
    patches: Size,
    visible: &'a [bool],
    mode: fn() -> Mode,
}

impl Default for Setting<'_> {
    /// Two images of 64×96 pixels, unevenly masked, in training mode.
    fn default() -> Self {
        Self {
            options: BuildOptions::default(),
            patch: (32, 32),
            patches: (2, 3),
            visible: &[true, false, true, false, false, true, true, true, false, true, true, true],
            mode: || Mode::train().with_drop_path(DropPathDraws::Off),
        }
    }
}

fn packed_equals_masked(name: &str, build: Build, setting: &Setting) {
    let mut store = VarStore::new(Device::Cpu);
    let model = build(&store.root(), &setting.options);
    fill(&mut store, 7);
    let case = Case {
        batch: setting.visible.len() as i64 / (setting.patches.0 * setting.patches.1),
        patches: setting.patches,
        patch: setting.patch,
        visible: setting.visible.to_vec(),
        seed: 2,
    };
    let x = case.input(setting.options.in_chans);
    let pyramid = |x: &FeatureMap| {
        let maps = model.forward(x, &(setting.mode)()).unwrap();
        for (map, stage) in maps.iter().zip(model.stages()) {
            let (height, width) = x.grid_size();
            assert_eq!(map.channels(), stage.channels);
            assert_eq!(map.grid_size(), (height / stage.stride, width / stage.stride));
        }
        maps.iter().map(FeatureMap::to_grid).collect()
    };
    let run = |execution: Execution| execution.outcome(&store, &x, &case.mask(), pyramid);
    let packed = run(Execution::Packed);
    let parameters: Vec<String> = store
        .variables()
        .into_iter()
        .filter(|(name, variable)| variable.requires_grad() && !weights::default_optional(name))
        .map(|(name, _)| format!("gradient of {name}"))
        .collect();
    assert!(parameters.iter().all(|name| packed.contains_key(name)), "a gradient is missing");
    compare(name, &packed, &run(Execution::Masked));
    if case.all_visible() {
        compare(name, &packed, &run(Execution::Grid));
    }
}

fn compare(model: &str, got: &Outcome, expected: &Outcome) {
    assert!(got.keys().eq(expected.keys()));
    let gradients = expected.iter().filter(|(name, _)| name.contains("gradient"));
    let largest_gradient = gradients.map(|(_, gradient)| largest(gradient)).fold(0.0, f64::max);
    for (name, expected) in expected {
        let own = largest(expected);
        let vanishes = name.contains("gradient") && own < VANISHING * largest_gradient;
        let scale = if vanishes { largest_gradient } else { own };
        let difference = largest(&(&got[name] - expected));
        assert!(
            difference <= FLOAT64 * scale,
            "{model}, {name}: differs by {difference:.2e} where values reach {scale:.2e}"
        );
    }
}

#[test]
fn training_and_evaluation() {
    for (name, build) in SMALL {
        packed_equals_masked(name, build, &Setting::default());
        packed_equals_masked(name, build, &Setting { mode: Mode::eval, ..Setting::default() });
    }
}

/// They concern the stem alone: one network of each kind of stem.
#[test]
fn other_numbers_of_channels() {
    for (name, build) in [SMALL[0], SMALL[4], SMALL[5]] {
        for in_chans in [1, 5] {
            let options = BuildOptions { in_chans, ..BuildOptions::default() };
            packed_equals_masked(name, build, &Setting { options, ..Setting::default() });
        }
    }
}

/// Mask patches of 64 and 96 pixels at a total stride of 32, one image without
/// any visible patch.
#[test]
fn patches_larger_than_the_total_stride() {
    for (name, build) in SMALL {
        let visible = &[true, false, false, false, true, true];
        let setting = Setting { patch: (64, 96), patches: (2, 1), visible, ..Setting::default() };
        packed_equals_masked(name, build, &setting);
    }
}

#[test]
fn nothing_masked() {
    for (name, build) in SMALL {
        let setting = Setting { visible: &[true; 6], ..Setting::default() };
        packed_equals_masked(name, build, &setting);
    }
}

#[test]
fn drop_path_by_table() {
    for (name, build) in [SMALL[0], SMALL[4], SMALL[5]] {
        let options = BuildOptions { drop_path_rate: 0.5, ..BuildOptions::default() };
        let mode = || {
            let draws: Tensor = noise(4, &[8, 2]).abs();
            Mode::train().with_drop_path(DropPathDraws::Table(draws))
        };
        packed_equals_masked(name, build, &Setting { options, mode, ..Setting::default() });
    }
}

/// Published depths, one of each registered family.
#[test]
fn registered_models() {
    let models: [(&str, Build); 5] = [
        ("resnet18", |path, options| registered("resnet18", path, options)),
        ("resnet50", |path, options| registered("resnet50", path, options)),
        ("resnext50_32x4d", |path, options| registered("resnext50_32x4d", path, options)),
        ("convnext_tiny", |path, options| registered("convnext_tiny", path, options)),
        ("regnety_016", |path, options| registered("regnety_016", path, options)),
    ];
    for (name, build) in models {
        let options = BuildOptions { uninitialised: true, ..BuildOptions::default() };
        packed_equals_masked(name, build, &Setting { options, ..Setting::default() });
    }
}
