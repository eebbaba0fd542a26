//! The masked-dense reference against plain tensor operations, written without
//! the crate's masks and layers.

use backbone::layers::{
    Activation, AvgPool2d, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, GroupNorm, Layer,
    LayerNorm2d, LayerScale, Linear, MaxPool2d, SqueezeExcite, drop_path_rates, global_avg_pool,
};
use backbone::{DropPathDraws, Init, Mode};
use proptest::prelude::*;
use tch::nn::{Path, VarStore};
use tch::{Device, Kind, Tensor};

use crate::support::{Case, Execution, FLOAT64, close, fill, train};

/// A layer with filled parameters, its store, and its output on the masked
/// grid of `case`.
fn masked_output<L: Layer>(
    case: &Case,
    channels: i64,
    new: impl Fn(&Path) -> L,
) -> (VarStore, Tensor) {
    let mut store = VarStore::new(Device::Cpu);
    let layer = new(&store.root());
    fill(&mut store, case.seed);
    let (_, x) = Execution::Masked.input(&case.input(channels), &case.mask());
    let y = layer.forward(&x, &train()).to_grid();
    (store, y)
}

fn variable(store: &VarStore, name: &str) -> Tensor {
    store.variables()[name].shallow_clone()
}

/// The input with zeros where masked.
fn visible_input(case: &Case, channels: i64) -> Tensor {
    case.input(channels) * case.active(case.patch)
}

/// Visible positions of the input, as [`rows_of`].
fn visible_rows(case: &Case, channels: i64, n: Option<i64>) -> Tensor {
    rows_of(case, &case.input(channels), n)
}

/// Visible positions of image `n` (all images: `None`) of a map `[N, C, H, W]`
/// of the size of `case`'s input, as rows `[M, C]`.
fn rows_of(case: &Case, map: &Tensor, n: Option<i64>) -> Tensor {
    let rows = |t: &Tensor| {
        let t = n.map_or(t.shallow_clone(), |n| t.narrow(0, n, 1));
        t.permute([0, 2, 3, 1]).reshape([-1, t.size()[1]])
    };
    let on = rows(&case.active(case.patch)).flatten(0, -1).nonzero().flatten(0, -1);
    rows(map).index_select(0, &on)
}

fn mean_of(rows: &Tensor) -> Tensor {
    rows.mean_dim([0i64].as_slice(), false, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn convolution(case in Case::any((2, 2)), kernel in 1..=3i64, channels in 1..=3i64) {
        let config = Conv2dConfig {
            kernel: (2 * kernel, 2 * kernel - 1),
            stride: (2, 1),
            padding: (kernel - 1, kernel - 1),
            ..Conv2dConfig::square(1).bias()
        };
        let (store, y) = masked_output(&case, channels, |path| Conv2d::new(path, channels, 2, config));
        let dense = visible_input(&case, channels).conv2d(
            &variable(&store, "weight"),
            Some(&variable(&store, "bias")),
            [2, 1],
            [kernel - 1, kernel - 1],
            [1, 1],
            1,
        );
        close("conv", &y, &(dense * case.active((case.patch.0 / 2, case.patch.1))), FLOAT64);
    }

    #[test]
    fn max_pooling(case in Case::any((2, 2)), channels in 1..=3i64) {
        let (_, y) = masked_output(&case, channels, |_| MaxPool2d::new(3, 2, 1));
        let dense =
            visible_input(&case, channels).max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        let active = case.active((case.patch.0 / 2, case.patch.1 / 2));
        close("max pool", &y, &(dense * active), FLOAT64);
    }

    /// Sums and counts by convolution with a kernel of ones.
    #[test]
    fn average_pooling(case in Case::any((1, 1)), include_pad: bool) {
        let (_, y) = masked_output(&case, 1, |_| AvgPool2d::new(3, 1, 1, include_pad));
        let ones = Tensor::ones([1, 1, 3, 3], (Kind::Double, Device::Cpu));
        let sum = |x: &Tensor| x.conv2d(&ones, None::<&Tensor>, 1, 1, 1, 1);
        let x = visible_input(&case, 1);
        let mean = if include_pad { sum(&x) / 9.0 } else { sum(&x) / sum(&x.ones_like()) };
        close("average pool", &y, &(mean * case.active(case.patch)), FLOAT64);
    }

    /// PyTorch's rule on the gathered rows: the biased variance normalises, the
    /// unbiased one moves the running variance by a tenth.
    #[test]
    fn batch_norm(case in Case::any((1, 1)), channels in 1..=4i64) {
        let rows = visible_rows(&case, channels, None);
        let count = rows.size()[0] as f64;
        prop_assume!(count > 1.0);
        let mut start = VarStore::new(Device::Cpu);
        BatchNorm2d::new(&start.root(), channels);
        fill(&mut start, case.seed);
        let (store, y) = masked_output(&case, channels, |path| BatchNorm2d::new(path, channels));

        let centred = &rows - mean_of(&rows);
        let variance = mean_of(&centred.square());
        let expected = centred / (&variance + 1e-5).sqrt() * variable(&store, "weight")
            + variable(&store, "bias");
        close("batch norm", &rows_of(&case, &y, None), &expected, FLOAT64);
        let moved = |name, batch: Tensor| variable(&start, name) * 0.9 + batch * 0.1;
        let mean = moved("running_mean", mean_of(&rows));
        close("running mean", &variable(&store, "running_mean"), &mean, FLOAT64);
        let variance = moved("running_var", variance * (count / (count - 1.0)));
        close("running variance", &variable(&store, "running_var"), &variance, FLOAT64);
        prop_assert_eq!(variable(&store, "num_batches_tracked").int64_value(&[]), 1);
    }

    #[test]
    fn layer_norm(case in Case::any((1, 1)), channels in 2..=4i64) {
        let (store, y) =
            masked_output(&case, channels, |path| LayerNorm2d::new(path, channels, 1e-6));
        let rows = visible_rows(&case, channels, None);
        let centred = &rows - rows.mean_dim([1i64].as_slice(), true, None);
        let variance = centred.square().mean_dim([1i64].as_slice(), true, None);
        let expected = centred / (variance + 1e-6).sqrt() * variable(&store, "weight")
            + variable(&store, "bias");
        close("layer norm", &rows_of(&case, &y, None), &expected, FLOAT64);
    }

    /// Image by image, group by group.
    #[test]
    fn group_norm(case in Case::any((1, 1)), groups in 1..=3i64, per_group in 1..=3i64) {
        let channels = groups * per_group;
        prop_assume!(case.patch.0 * case.patch.1 * per_group > 1);
        let (store, y) =
            masked_output(&case, channels, |path| GroupNorm::new(path, groups, channels));
        for n in 0..case.batch {
            let rows = visible_rows(&case, channels, Some(n));
            if rows.numel() == 0 {
                continue;
            }
            let normed = (0..groups).map(|group| {
                let part = rows.narrow(1, group * per_group, per_group);
                let centred = &part - part.mean(None);
                let variance = centred.square().mean(None);
                centred / (variance + 1e-5).sqrt()
            });
            let expected = Tensor::cat(&normed.collect::<Vec<_>>(), 1) * variable(&store, "weight")
                + variable(&store, "bias");
            close("group norm", &rows_of(&case, &y, Some(n)), &expected, FLOAT64);
        }
    }

    #[test]
    fn global_average_and_squeeze_excite(case in Case::any((1, 1)), channels in 1..=4i64) {
        let (store, y) =
            masked_output(&case, channels, |path| SqueezeExcite::new(path, channels, 2));
        let (_, x) = Execution::Masked.input(&case.input(channels), &case.mask());
        let pooled = global_avg_pool(&x);
        for n in 0..case.batch {
            let rows = visible_rows(&case, channels, Some(n));
            if rows.numel() == 0 {
                close("empty image", &pooled.get(n), &Tensor::zeros_like(&pooled.get(n)), 0.0);
                continue;
            }
            let mean = mean_of(&rows);
            close("global average", &pooled.get(n), &mean, FLOAT64);
            let matrix = |name| variable(&store, name).flatten(1, -1);
            let squeezed = (matrix("fc1.weight").mv(&mean) + variable(&store, "fc1.bias")).relu();
            let gate = matrix("fc2.weight").mv(&squeezed) + variable(&store, "fc2.bias");
            close("gated", &rows_of(&case, &y, Some(n)), &(rows * gate.sigmoid()), FLOAT64);
        }
    }
}

/// Image by image: dropped where the draw is below the rate, else divided by
/// what is kept on average; untouched in evaluation.
#[test]
fn drop_path() {
    let visible = vec![true, false, true, true, true, true];
    let case = Case { batch: 3, patches: (1, 2), patch: (2, 2), visible, seed: 9 };
    let draws = Tensor::from_slice(&[0.9, 0.9, 0.9, 0.3, 0.25, 0.24]).view([2, 3]);
    let table = |mode: Mode| mode.with_drop_path(DropPathDraws::Table(draws.shallow_clone()));
    let x = visible_input(&case, 2);
    for execution in [Execution::Masked, Execution::Packed] {
        let (_, map) = execution.input(&x, &case.mask());
        let layer = DropPath::new(0.25, 1);
        let kept = Tensor::from_slice(&[1.0 / 0.75, 1.0 / 0.75, 0.0]).view([3, 1, 1, 1]);
        let trained = layer.forward(&map, &table(Mode::train())).to_grid();
        close("training", &trained, &(&x * kept), FLOAT64);
        let evaluated = layer.forward(&map, &table(Mode::eval())).to_grid();
        close("evaluation", &evaluated, &x, 0.0);
    }
    let rates = drop_path_rates(0.3, 4);
    assert!(rates.iter().zip([0.0, 0.1, 0.2, 0.3]).all(|(a, b)| (a - b).abs() < 1e-15));
}

#[test]
fn linear_and_layer_scale() {
    let mut store = VarStore::new(Device::Cpu);
    let linear = Linear::new(&store.root(), 3, 2, Init::Default);
    let scale = LayerScale::new(&store.root(), 2, 0.5);
    fill(&mut store, 4);
    let visible = vec![true, false, true, true];
    let case = Case { batch: 2, patches: (2, 1), patch: (2, 3), visible, seed: 9 };
    let (_, x) = Execution::Packed.input(&case.input(3), &case.mask());
    let y = scale.forward(&linear.forward(&x, &train()), &train()).to_grid();
    let rows = visible_rows(&case, 3, None);
    let product = rows.matmul(&variable(&store, "weight").tr()) + variable(&store, "bias");
    let expected = product * variable(&store, "gamma");
    close("scaled", &rows_of(&case, &y, None), &expected, FLOAT64);
}

/// Values from the definitions, with erf(√2) = 0.954 499 736… and
/// erf(1/√8) = 0.382 924 922…
#[test]
fn activations() {
    let x = Tensor::from_slice(&[-4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 7.0]);
    let check = |activation: Activation, expected: [f64; 7]| {
        let name = format!("{activation:?}");
        close(&name, &activation.apply(&x), &Tensor::from_slice(&expected), 1e-7);
    };
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let points = [-4.0, -2.0, -0.5, 0.0, 0.5, 2.0, 7.0];
    check(Activation::Relu, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 7.0]);
    check(Activation::Relu6, [0.0, 0.0, 0.0, 0.0, 0.5, 2.0, 6.0]);
    check(Activation::Sigmoid, points.map(sigmoid));
    check(Activation::Silu, points.map(|x| x * sigmoid(x)));
    check(Activation::HardSwish, [0.0, -1.0 / 3.0, -1.25 / 6.0, 0.0, 1.75 / 6.0, 5.0 / 3.0, 7.0]);
    check(Activation::LeakyRelu(0.1), [-0.4, -0.2, -0.05, 0.0, 0.5, 2.0, 7.0]);
    check(Activation::Identity, points);
    let gelu = |x: f64, erf: f64| x * (1.0 + erf) / 2.0;
    let (one, four) = (0.382_924_922_548_026, 0.954_499_736_103_642);
    check(
        Activation::Gelu,
        [
            gelu(-4.0, -0.999_936_657_516_334),
            gelu(-2.0, -four),
            gelu(-0.5, -one),
            0.0,
            gelu(0.5, one),
            gelu(2.0, four),
            7.0,
        ],
    );
}

/// `masked_patches` and `visible_count` split every grid between them.
#[test]
fn masked_patches_are_those_not_visible() {
    let visible = vec![true, false, false, true, false, false, true, false];
    let case = Case { batch: 2, patches: (2, 2), patch: (1, 1), visible, seed: 0 };
    let mask = case.mask();
    assert_eq!(Vec::<i64>::try_from(mask.masked_patches()).unwrap(), [1, 2, 4, 5, 7]);
    assert_eq!(mask.visible_count(), 3);
    assert_eq!(Vec::<f64>::try_from(mask.visible_per_image()).unwrap(), [2.0, 1.0]);
    assert_eq!(Vec::<i64>::try_from(mask.image_of_patch()).unwrap(), [0, 0, 1]);
}
