//! Float32, bfloat16 and float64: parameters of that type, and float32
//! parameters with bfloat16 arithmetic.

use backbone::layers::{
    Activation, AvgPool2d, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, GroupNorm, Layer,
    LayerNorm2d, LayerScale, Linear, MaxPool2d, SqueezeExcite, global_avg_pool,
};
use backbone::models::{BlockKind, BuildOptions, ConvNeXt, ConvNeXtConfig, ResNet, ResNetConfig};
use backbone::plugin::LIBTORCH_VERSION;
use backbone::{Backbone, DropPathDraws, FeatureMap, Init, Mode};
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::support::{Case, Execution, Outcome, compare, fill, train, without_amx};

/// Rounding of 24-bit significands through a few layers whose norms divide by
/// deviations well below one.
const FLOAT32: f64 = 1e-4;
/// 8-bit significands round each value by up to 0.4 %; norms, max pooling that
/// picks another of two near values, and sums of rounded terms make that a few
/// per cent of the largest value in some places.
const BFLOAT16: f64 = 0.1;

const CHANNELS: i64 = 4;

fn every_layer(path: &Path) -> Vec<(&'static str, Box<dyn Layer>)> {
    let conv = |name, config| Conv2d::new(&(path / name), CHANNELS, CHANNELS, config);
    let square = Conv2dConfig::square;
    vec![
        ("conv 3×3", Box::new(conv("conv", square(3).bias()))),
        ("conv 1×1 stride 2", Box::new(conv("strided", square(1).stride(2)))),
        ("depthwise", Box::new(conv("depthwise", square(5).groups(CHANNELS)))),
        ("batch norm", Box::new(BatchNorm2d::new(&(path / "batch"), CHANNELS))),
        ("layer norm", Box::new(LayerNorm2d::new(&(path / "layer"), CHANNELS, 1e-6))),
        ("group norm", Box::new(GroupNorm::new(&(path / "group"), 2, CHANNELS))),
        ("max pool", Box::new(MaxPool2d::new(3, 2, 1))),
        ("average pool", Box::new(AvgPool2d::new(3, 2, 1, false))),
        ("squeeze-excite", Box::new(SqueezeExcite::new(&(path / "se"), CHANNELS, 2))),
        ("linear", Box::new(Linear::new(&(path / "linear"), CHANNELS, CHANNELS, Init::Default))),
        ("layer scale", Box::new(LayerScale::new(&(path / "scale"), CHANNELS, 0.5))),
        ("drop-path", Box::new(DropPath::new(0.4, 0))),
        ("gelu", Box::new(Activation::Gelu)),
    ]
}

fn case() -> Case {
    let visible = vec![true, false, true, true, false, false, false, true, true, true, true, true];
    Case { batch: 2, patches: (2, 3), patch: (4, 6), visible, seed: 11 }
}

struct Types {
    parameters: Kind,
    input: Kind,
    compute: Option<Kind>,
}

/// What `layer` number `index` leaves behind in these types, and the kind of
/// its output.
fn outcome(types: &Types, index: usize, execution: Execution) -> (Outcome, Kind) {
    let mut store = VarStore::new(Device::Cpu);
    let layers = every_layer(&store.root());
    fill(&mut store, 1);
    tch::no_grad(|| {
        for variable in store.variables().values_mut() {
            if variable.kind() == Kind::Double {
                variable.set_data(&variable.to_kind(types.parameters));
            }
        }
    });
    let case = case();
    let x = case.input(CHANNELS).to_kind(types.input);
    let draws = Tensor::from_slice(&[0.3, 0.7]).view([1, 2]);
    let mode =
        Mode::train().with_compute(types.compute).with_drop_path(DropPathDraws::Table(draws));
    let kind = std::cell::Cell::new(types.input);
    let outcome = execution.outcome(&store, &x, &case.mask(), |x: &FeatureMap| {
        let y = layers[index].1.forward(x, &mode);
        kind.set(y.kind());
        vec![y.to_grid()]
    });
    for (name, variable) in store.variables() {
        if variable.requires_grad() && variable.grad().defined() {
            assert_eq!(variable.grad().kind(), types.parameters, "gradient of {name}");
        }
    }
    (outcome, kind.get())
}

const FLOAT64_TYPES: Types = Types { parameters: Kind::Double, input: Kind::Double, compute: None };

/// Every layer in `types` against itself in float64, on every kind of map.
/// `expected` is the output's kind, given whether the layer does arithmetic
/// that `Mode::compute` governs.
fn follows_float64(types: &Types, tolerance: f64, output: impl Fn(&str) -> Kind) {
    let names: Vec<&str> = {
        let store = VarStore::new(Device::Cpu);
        every_layer(&store.root()).iter().map(|(name, _)| *name).collect()
    };
    for (index, name) in names.iter().enumerate() {
        for execution in [Execution::Grid, Execution::Masked, Execution::Packed] {
            let (reference, _) = outcome(&FLOAT64_TYPES, index, execution);
            let (got, kind) = outcome(types, index, execution);
            assert_eq!(kind, output(name), "{name}, {execution:?}");
            eprintln!("{name}, {execution:?}");
            compare(&got, &reference, tolerance);
        }
    }
}

#[test]
fn float32() {
    let types = Types { parameters: Kind::Float, input: Kind::Float, compute: None };
    follows_float64(&types, FLOAT32, |_| Kind::Float);
}

#[test]
fn bfloat16_throughout() {
    without_amx("element_types::bfloat16_throughout", || {
        let types = Types { parameters: Kind::BFloat16, input: Kind::BFloat16, compute: None };
        follows_float64(&types, BFLOAT16, |_| Kind::BFloat16);
    });
}

/// Convolutions and linear layers turn float32 into bfloat16; the others keep
/// the type of their input.
#[test]
fn bfloat16_compute_from_float32() {
    without_amx("element_types::bfloat16_compute_from_float32", || {
        let compute = Some(Kind::BFloat16);
        let types = Types { parameters: Kind::Float, input: Kind::Float, compute };
        follows_float64(&types, BFLOAT16, |name| match name {
            "linear" | "depthwise" => Kind::BFloat16,
            name if name.starts_with("conv") => Kind::BFloat16,
            _ => Kind::Float,
        });
    });
}

/// Inside a network, maps are bfloat16 after the first convolution: float32
/// norms and scales keep them so.
#[test]
fn bfloat16_maps_with_float32_parameters() {
    without_amx("element_types::bfloat16_maps_with_float32_parameters", || {
        let compute = Some(Kind::BFloat16);
        let types = Types { parameters: Kind::Float, input: Kind::BFloat16, compute };
        follows_float64(&types, BFLOAT16, |_| Kind::BFloat16);
    });
}

/// Numbers of positions that bfloat16 rounds (259 to 260) and float16 cannot
/// hold (77 284): means over them are still means.
#[test]
fn many_positions_in_narrow_types() {
    for (kind, patch) in [(Kind::BFloat16, (7, 37)), (Kind::Half, (278, 278))] {
        let visible = vec![false, false, true, false];
        let case = Case { batch: 1, patches: (2, 2), patch, visible, seed: 0 };
        let x = case.input(1).ones_like().to_kind(kind);
        for execution in [Execution::Grid, Execution::Masked, Execution::Packed] {
            let (_, x) = execution.input(&x, &case.mask());
            assert_eq!(global_avg_pool(&x).double_value(&[0, 0]), 1.0, "{kind:?} {execution:?}");
        }
    }
}

/// Passes that keep gradients narrow give the same ones, bit for bit, and those of
/// the weights of convolutions and linear layers in bfloat16.
#[test]
fn bf16_weight_grads_are_the_wide_ones() {
    type Build = fn(&Path) -> Box<dyn Backbone>;
    let builds: [Build; 2] = [
        |path| {
            let config = ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]);
            Box::new(ResNet::new(path, &config, &BuildOptions::default()))
        },
        |path| {
            let config = ConvNeXtConfig::doubling([1, 1, 1, 1], 8);
            Box::new(ConvNeXt::new(path, &config, &BuildOptions::default()))
        },
    ];
    let case = Case { patches: (2, 3), patch: (32, 32), ..case() };
    let gradients = |build: Build, narrow: bool| {
        let mut store = VarStore::new(Device::Cpu);
        let network = build(&store.root());
        fill(&mut store, 1);
        store.float();
        let images = case.input(3).to_kind(Kind::Float);
        let map = FeatureMap::patches(&images, &case.mask()).unwrap();
        let mode = train().with_compute(Kind::BFloat16).with_bf16_weight_grads(narrow);
        let features = network.forward(&map, &mode).unwrap();
        let squares = |map: &FeatureMap| map.tensor().to_kind(Kind::Float).square().mean(None);
        features.iter().map(squares).sum::<Tensor>().backward();
        let named = store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
        let gradients = named.map(|(name, tensor)| (name, tensor.grad()));
        gradients.filter(|(_, gradient)| gradient.defined()).collect::<Outcome>()
    };
    // Before torch 2.10 every gradient is of its parameter's type.
    let can_stay = !["2.8", "2.9"].iter().any(|series| {
        LIBTORCH_VERSION.strip_prefix(series).is_some_and(|patch| patch.starts_with('.'))
    });
    without_amx("element_types::bf16_weight_grads_are_the_wide_ones", || {
        for build in builds {
            let (narrow, wide) = (gradients(build, true), gradients(build, false));
            assert!(narrow.keys().eq(wide.keys()));
            for (name, gradient) in &wide {
                let kept = &narrow[name];
                // Depthwise kernels compute in float32.
                let stays = can_stay && gradient.dim() > 1 && gradient.size()[1] > 1;
                let kind = if stays { Kind::BFloat16 } else { Kind::Float };
                assert_eq!((kept.kind(), gradient.kind()), (kind, Kind::Float), "{name}");
                assert!(kept.to_kind(Kind::Float).equal(gradient), "{name}");
                assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name}");
            }
        }
    });
}
