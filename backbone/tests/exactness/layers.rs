//! Packed against masked-dense execution of every layer.

use backbone::layers::{
    Activation, AvgPool2d, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, GroupNorm, Layer,
    LayerNorm2d, LayerScale, Linear, MaxPool2d, SqueezeExcite, global_avg_pool,
};
use backbone::{DropPathDraws, FeatureMap, Init, Mode, Size};
use proptest::prelude::*;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind};

use crate::support::{Case, Execution, FLOAT64, agree, compare, fill, noise, train};

/// A layer with filled parameters agrees on `case`.
fn layer_agrees<L: Layer>(case: &Case, channels: i64, mode: &Mode, new: impl Fn(&Path) -> L) {
    let mut store = VarStore::new(Device::Cpu);
    let layer = new(&store.root());
    fill(&mut store, case.seed);
    agree(&store, case, channels, |x| layer.forward(x, mode));
}

/// One side of a sliding kernel: (kernel, stride, padding, dilation) such that
/// n positions give n/stride outputs.
type Axis = (i64, i64, i64, i64);

fn axis(strides: std::ops::RangeInclusive<i64>) -> impl Strategy<Value = Axis> {
    let all = (1..=7i64).flat_map(move |kernel| {
        strides.clone().flat_map(move |stride| {
            (1..=3i64).flat_map(move |dilation| {
                let reach = dilation * (kernel - 1) + 1;
                (0..reach)
                    .filter(move |padding| (-stride..0).contains(&(2 * padding - reach)))
                    .map(move |padding| (kernel, stride, padding, dilation))
            })
        })
    });
    proptest::sample::select(all.collect::<Vec<_>>())
}

fn conv_config(y: Axis, x: Axis) -> Conv2dConfig {
    Conv2dConfig {
        kernel: (y.0, x.0),
        stride: (y.1, x.1),
        padding: (y.2, x.2),
        dilation: (y.3, x.3),
        ..Conv2dConfig::square(1)
    }
}

/// Two axes and a case whose patches the strides divide.
fn sliding() -> impl Strategy<Value = (Conv2dConfig, Case)> {
    (axis(1..=4), axis(1..=4))
        .prop_flat_map(|(y, x)| (Just(conv_config(y, x)), Case::any((y.1, x.1))))
}

/// A square pooling kernel (PyTorch allows padding up to half of it), and a case.
fn pooling() -> impl Strategy<Value = (Axis, Case)> {
    axis(1..=3)
        .prop_filter("pooling does not dilate", |axis| axis.3 == 1)
        .prop_flat_map(|axis| (Just(axis), Case::any((axis.1, axis.1))))
}

fn modes() -> impl Strategy<Value = bool> {
    any::<bool>()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn conv2d(
        (config, case) in sliding(), groups in 1..=3i64, per_group in 1..=3i64, bias: bool,
    ) {
        let config = Conv2dConfig { groups, bias, ..config };
        let (from, to) = (groups * per_group, groups * 2);
        layer_agrees(&case, from, &train(), |path| Conv2d::new(path, from, to, config));
    }

    #[test]
    fn depthwise_conv2d((config, case) in sliding(), channels in 1..=4i64, multiplier in 1..=2i64) {
        let config = Conv2dConfig { groups: channels, bias: true, ..config };
        layer_agrees(&case, channels, &train(), |path| {
            Conv2d::new(path, channels, channels * multiplier, config)
        });
    }

    #[test]
    fn batch_norm(case in Case::any((1, 1)), channels in 1..=5i64, training in modes()) {
        // The unbiased variance of a single value does not exist.
        let visible = case.visible.iter().filter(|on| **on).count() as i64;
        prop_assume!(visible * case.patch.0 * case.patch.1 > 1);
        let mode = if training { train() } else { Mode::eval() };
        layer_agrees(&case, channels, &mode, |path| BatchNorm2d::new(path, channels));
    }

    #[test]
    fn layer_norm(case in Case::any((1, 1)), channels in 2..=5i64) {
        layer_agrees(&case, channels, &train(), |path| LayerNorm2d::new(path, channels, 1e-6));
    }

    #[test]
    fn group_norm(case in Case::any((1, 1)), groups in 1..=3i64, per_group in 2..=3i64) {
        let channels = groups * per_group;
        layer_agrees(&case, channels, &train(), |path| GroupNorm::new(path, groups, channels));
    }

    #[test]
    fn max_pool(((kernel, stride, padding, _), case) in pooling(), channels in 1..=4i64) {
        layer_agrees(&case, channels, &train(), |_| MaxPool2d::new(kernel, stride, padding));
    }

    #[test]
    fn avg_pool(
        ((kernel, stride, padding, _), case) in pooling(), channels in 1..=4i64, include_pad: bool,
    ) {
        layer_agrees(&case, channels, &train(), |_| {
            AvgPool2d::new(kernel, stride, padding, include_pad)
        });
    }

    #[test]
    fn global_average(case in Case::any((1, 1)), channels in 1..=4i64) {
        let store = VarStore::new(Device::Cpu);
        let (x, mask) = (case.input(channels), case.mask());
        let run = |execution: Execution| {
            execution.outcome(&store, &x, &mask, |x| vec![global_avg_pool(x)])
        };
        compare(&run(Execution::Packed), &run(Execution::Masked), FLOAT64);
        if case.all_visible() {
            compare(&run(Execution::Packed), &run(Execution::Grid), FLOAT64);
        }
    }

    #[test]
    fn squeeze_excite(case in Case::any((1, 1)), channels in 1..=5i64, reduced in 1..=3i64) {
        layer_agrees(&case, channels, &train(), |path| {
            SqueezeExcite::new(path, channels, reduced)
        });
    }

    #[test]
    fn linear(case in Case::any((1, 1)), from in 1..=5i64, to in 1..=5i64) {
        layer_agrees(&case, from, &train(), |path| Linear::new(path, from, to, Init::Default));
    }

    #[test]
    fn layer_scale(case in Case::any((1, 1)), channels in 1..=5i64) {
        layer_agrees(&case, channels, &train(), |path| LayerScale::new(path, channels, 0.5));
    }

    #[test]
    fn activation(case in Case::any((1, 1)), channels in 1..=3i64) {
        for activation in [
            Activation::Relu,
            Activation::Relu6,
            Activation::Gelu,
            Activation::Silu,
            Activation::Sigmoid,
            Activation::HardSwish,
            Activation::LeakyRelu(0.1),
            Activation::Identity,
        ] {
            layer_agrees(&case, channels, &train(), |_| activation);
        }
    }

    #[test]
    fn drop_path(case in Case::any((1, 1)), channels in 1..=3i64, rate in 0.0..0.9f64) {
        let draws = noise(case.seed ^ 1, &[3, case.batch]).abs();
        let mode = Mode::train().with_drop_path(DropPathDraws::Table(draws));
        layer_agrees(&case, channels, &mode, |_| DropPath::new(rate, 2));
    }

    #[test]
    fn layers_in_sequence(case in Case::any((2, 2)), channels in 1..=3i64) {
        let visible = case.visible.iter().filter(|on| **on).count() as i64;
        prop_assume!(visible * case.patch.0 * case.patch.1 > 4);
        layer_agrees(&case, channels, &train(), |path| -> Vec<Box<dyn Layer>> {
            vec![
                Box::new(Conv2d::new(&(path / 0), channels, 4, Conv2dConfig::square(3))),
                Box::new(BatchNorm2d::new(&(path / 1), 4)),
                Box::new(Activation::Relu),
                Box::new(MaxPool2d::new(3, 2, 1)),
                Box::new(Conv2d::new(&(path / 4), 4, 4, Conv2dConfig::square(5).groups(4).bias())),
                Box::new(SqueezeExcite::new(&(path / 5), 4, 2)),
            ]
        });
    }
}

/// Depthwise convolutions run on windows or on the whole grid, whichever costs
/// less; these two cases lie far on either side.
#[test]
fn depthwise_on_windows_and_on_the_grid() {
    let case = |patches: Size, patch: Size, every: usize| Case {
        batch: 2,
        patches,
        patch,
        visible: (0..2 * patches.0 * patches.1)
            .map(|i| (i as usize).is_multiple_of(every))
            .collect(),
        seed: 5,
    };
    for (case, kernel) in [(case((4, 4), (6, 6), 8), 3), (case((3, 3), (1, 2), 2), 7)] {
        layer_agrees(&case, 3, &train(), |path| {
            Conv2d::new(path, 3, 3, Conv2dConfig::square(kernel).groups(3).bias())
        });
    }
}

/// 1×1 kernels, and patches of few outputs, are computed as matrix products.
#[test]
fn convolution_as_a_matrix_product() {
    let square = Conv2dConfig::square;
    for (patch, config) in [
        ((4, 6), square(1)),
        ((4, 6), square(1).stride(2).bias()),
        ((1, 1), square(3)),
        ((2, 2), square(3).bias()),
        ((2, 4), square(3).stride(2)),
        ((4, 4), Conv2dConfig::patchify(2)),
        ((1, 2), square(7)),
    ] {
        let visible = (0..12).map(|i| i % 5 > 1).collect();
        let case = Case { batch: 2, patches: (2, 3), patch, visible, seed: 6 };
        layer_agrees(&case, 3, &train(), |path| Conv2d::new(path, 3, 4, config));
    }
}

/// Wide groups, of patches of one output, are one product each; narrower ones, and
/// more outputs, are not.
#[test]
fn grouped_convolution_as_products() {
    let square = Conv2dConfig::square;
    for (per_group, patch, config) in [
        (16, (1, 1), square(3)),
        (16, (2, 2), square(3).stride(2).bias()),
        (17, (1, 1), square(5).bias()),
        (16, (1, 1), square(1)),
        (15, (1, 1), square(3)),
        (16, (1, 2), square(3)),
    ] {
        let visible = (0..12).map(|i| i % 5 > 1).collect();
        let case = Case { batch: 2, patches: (2, 3), patch, visible, seed: 6 };
        layer_agrees(&case, 3 * per_group, &train(), |path| {
            Conv2d::new(path, 3 * per_group, 6, config.groups(3))
        });
    }
}

/// Equal values compete in max pooling: where visible ones and the zeros of
/// masked positions tie, both executions pass the gradient to the same place.
#[test]
fn max_pool_of_ties() {
    let visible = [true, false, true, true, false, false].repeat(2);
    let case = Case { batch: 2, patches: (2, 3), patch: (2, 4), visible, seed: 3 };
    let mask = case.mask();
    let store = VarStore::new(Device::Cpu);
    let layer = MaxPool2d::new(3, 2, 1);
    let x = (case.input(3) * 1.5).round().to_kind(Kind::Double);
    let run = |execution: Execution| {
        execution
            .outcome(&store, &x, &mask, |x: &FeatureMap| vec![layer.forward(x, &train()).to_grid()])
    };
    compare(&run(Execution::Packed), &run(Execution::Masked), FLOAT64);
}

/// A grid that strides do not divide among patches is refused with the rule.
#[test]
fn geometry_that_has_no_packed_form() {
    let visible = vec![true, false, true, true];
    let case = Case { batch: 1, patches: (2, 2), patch: (3, 3), visible, seed: 1 };
    let refusal = |config: Conv2dConfig| {
        let store = VarStore::new(Device::Cpu);
        let layer = Conv2d::new(&store.root(), 1, 1, config);
        let x = FeatureMap::patches(&case.input(1).to_kind(Kind::Float), &case.mask()).unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            layer.forward(&x, &Mode::eval());
        }));
        *panic.unwrap_err().downcast::<String>().unwrap()
    };
    let message = refusal(Conv2dConfig { padding: (0, 0), ..Conv2dConfig::square(3) });
    assert!(message.contains("does not map a grid of n positions to n/stride"), "{message}");
    let message = refusal(Conv2dConfig::square(3).stride(2));
    assert_eq!(message, "a patch of 3 positions cannot be divided by a stride of 2");
}
