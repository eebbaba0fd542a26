//! Each kernel against libtorch's operators, gradients included.

use tch::{Device, Kind, Tensor};

use super::*;

/// Float64 sums of at most some hundred terms of size one, in another order.
const FLOAT64: f64 = 1e-11;
/// The same in float32.
const FLOAT32: f64 = 2e-4;

fn draw(size: &[i64], kind: Kind) -> Tensor {
    Tensor::randn(size, (kind, Device::Cpu)).set_requires_grad(true)
}

/// The result and its gradients by `leaves` are the same both ways.
fn check(ours: &Tensor, theirs: &Tensor, leaves: &[&Tensor], tolerance: f64) {
    let difference =
        |a: &Tensor, b: &Tensor| (a.to_kind(Kind::Double) - b).abs().max().double_value(&[]);
    assert!(difference(ours, theirs) <= tolerance, "{}", difference(ours, theirs));
    let factor = theirs.randn_like();
    let gradients =
        |y: &Tensor| Tensor::run_backward(&[(y * &factor).sum(None)], leaves, true, false);
    for (number, (a, b)) in gradients(ours).iter().zip(gradients(theirs)).enumerate() {
        assert_eq!(a.size(), b.size(), "gradient {number}");
        let off = difference(a, &b);
        assert!(off <= tolerance * b.abs().max().double_value(&[]).max(1.0), "{number}: {off}");
    }
}

#[test]
fn matrix_products_equal_libtorchs() {
    tch::manual_seed(1);
    for (outputs, inputs) in [(7, 33), (40, 5), (16, 16)] {
        let rows = draw(&[3, 11, inputs], Kind::Float);
        let (weight, bias) = (draw(&[outputs, inputs], Kind::Float), draw(&[outputs], Kind::Float));
        let leaves = [&rows, &weight, &bias];
        let theirs = rows.linear(&weight, Some(&bias));
        check(&linear_by_onednn(&rows, &weight, Some(&bias)), &theirs, &leaves, FLOAT32);
        let leaves = [&rows, &weight];
        let theirs = rows.linear::<&Tensor>(&weight, None);
        check(&linear_by_onednn(&rows, &weight, None), &theirs, &leaves, FLOAT32);
        // A view whose rows do not follow each other.
        let strided = rows.transpose(0, 1);
        let theirs = strided.linear::<&Tensor>(&weight, None);
        check(&linear_by_onednn(&strided, &weight, None), &theirs, &leaves, FLOAT32);
    }
}

#[test]
fn matrix_products_have_gradients_of_gradients() {
    tch::manual_seed(2);
    let (rows, weight) = (draw(&[5, 4], Kind::Float), draw(&[3, 4], Kind::Float));
    let second = |product: Tensor| {
        let first = Tensor::run_backward(&[product.square().sum(None)], &[&rows], true, true);
        Tensor::run_backward(&[first[0].square().sum(None)], &[&weight], false, false).remove(0)
    };
    let (ours, theirs) = (
        second(linear_by_onednn(&rows, &weight, None)),
        second(rows.linear::<&Tensor>(&weight, None)),
    );
    assert!(
        (&ours - &theirs).abs().max().double_value(&[])
            < 1e-2 * theirs.abs().max().double_value(&[])
    );
}

#[test]
fn sums_of_rows_and_the_way_back() {
    tch::manual_seed(3);
    let source = draw(&[4, 6], Kind::Double);
    let names = [[0, 2], [NOTHING, NOTHING], [3, 3], [NOTHING, 1], [OUTSIDE, NOTHING]];
    let table = Tensor::from_slice(&names.concat()).view([5, 2]);
    let ours = RowTable::new(table, 4).sum(&source, 7.0);
    let nothing = Tensor::zeros([6], (Kind::Double, Device::Cpu));
    let row = |name: i64| source.get(name);
    let theirs = Tensor::stack(
        &[row(0) + row(2), nothing.shallow_clone(), row(3) + row(3), row(1), &nothing + 7.0],
        0,
    );
    check(&ours, &theirs, &[&source], FLOAT64);

    // Of narrow types sums are made in float32: 256 + 1 + 1 is 258 there, and
    // 256 in bfloat16.
    let narrow = Tensor::from_slice(&[256f32, 1.0, 1.0]).view([3, 1]).to_kind(Kind::BFloat16);
    let table = RowTable::new(Tensor::from_slice(&[0i64, 1, 2]).view([1, 3]), 3);
    assert_eq!(table.sum(&narrow, 0.0).double_value(&[0, 0]), 258.0);
}

#[test]
fn packed_kernels_refuse_gradients_of_gradients() {
    let source = draw(&[2, 3], Kind::Double);
    let sum = RowTable::new(Tensor::from_slice(&[1i64]).view([1, 1]), 2).sum(&source, 0.0);
    let error = Tensor::f_run_backward(&[sum.square().sum(None)], &[&source], true, true);
    assert!(error.unwrap_err().to_string().contains("differentiable once"));
}

/// Channels that fill all widths of vectors, and leave some over.
#[test]
fn depthwise_convolutions_equal_libtorchs() {
    tch::manual_seed(4);
    for (channels, kernel, biased) in [(131, 3, true), (17, 5, false), (8, 7, true), (3, 3, false)]
    {
        let (height, width) = (6, 5);
        let map = draw(&[1, channels, height, width], Kind::Double);
        let weight = draw(&[channels, 1, kernel, kernel], Kind::Double);
        let bias = draw(&[channels], Kind::Double);
        let mut windows = Vec::new();
        for place in 0..height * width {
            for tap in 0..kernel * kernel {
                let y = place / width + tap / kernel - kernel / 2;
                let x = place % width + tap % kernel - kernel / 2;
                let inside = (0..height).contains(&y) && (0..width).contains(&x);
                windows.push(if inside { y * width + x } else { OUTSIDE });
            }
        }
        let neighbours = Neighbours::new(&windows, (kernel * kernel) as usize);
        let rows = map.permute([0, 2, 3, 1]).reshape([-1, channels]);
        let bias = biased.then_some(&bias);
        let ours = neighbours.convolve(&rows, &weight, bias);
        let ours = ours.view([1, height, width, channels]).permute([0, 3, 1, 2]);
        let padding = kernel / 2;
        let theirs = map.conv2d(&weight, bias, [1], [padding], [1], channels);
        let mut leaves = vec![&map, &weight];
        leaves.extend(bias);
        check(&ours, &theirs, &leaves, FLOAT64);
    }
}

#[test]
fn one_row_leaves_the_bias_as_it_is() {
    let (row, weight) = (draw(&[1, 5], Kind::Double), draw(&[5, 1, 3, 3], Kind::Double));
    let bias = draw(&[5], Kind::Double);
    let before = bias.copy();
    let windows = [-1, -1, -1, -1, 0, -1, -1, -1, -1];
    let ours = Neighbours::new(&windows, 9).convolve(&row, &weight, Some(&bias));
    assert_eq!(bias, before);
    let theirs = &row * weight.reshape([5, 9]).select(1, 4) + &bias;
    check(&ours, &theirs, &[&row, &weight, &bias], FLOAT64);
}

/// Of maps with an inside, and of such that are nothing but edges; narrowing,
/// as the decoder's is not, so that in and out cannot be taken for each other.
#[test]
fn a_transposed_convolution_and_the_one_behind_it_are_one() {
    tch::manual_seed(9);
    for (channels, outputs, height, width) in
        [(3, 5, 4, 5), (4, 2, 1, 1), (5, 3, 7, 2), (2, 2, 1, 3)]
    {
        let map = draw(&[2, channels, height, width], Kind::Double);
        let up = draw(&[channels, channels, 4, 4], Kind::Double);
        let bias = draw(&[channels], Kind::Double);
        let conv = draw(&[outputs, channels, 3, 3], Kind::Double);
        let kept = map.detach();
        let recompute = RecomputeFn::new(move || kept.shallow_clone());
        // In place, as activations are.
        let ours = relu6_in_place(&up_conv(&map, [&up, &bias, &conv], recompute));
        let between = map.conv_transpose2d(&up, Some(&bias), [2, 2], [1, 1], [0, 0], 1, [1, 1]);
        let theirs = relu6(&between.conv2d::<&Tensor>(&conv, None, [1], [1], [1], 1));
        check(&ours, &theirs, &[&map, &up, &bias, &conv], FLOAT64);
    }
}

#[test]
fn relu6_in_place_or_not() {
    let x = Tensor::from_slice(&[-1.0, 0.0, 0.5, 6.0, 7.0]).set_requires_grad(true);
    for y in [relu6(&x), relu6_in_place(&(&x * 1.0))] {
        assert_eq!(Vec::<f64>::try_from(&y).unwrap(), [0.0, 0.0, 0.5, 6.0, 6.0]);
        let gradient = Tensor::run_backward(&[y.sum(None)], &[&x], false, false).remove(0);
        assert_eq!(Vec::<f64>::try_from(gradient).unwrap(), [0.0, 0.0, 1.0, 0.0, 0.0]);
    }
}

/// Maps whose channels fill vectors and leave some over, of several chunks of
/// rows and of one, in either memory format.
#[test]
fn batch_norms_equal_libtorchs() {
    tch::manual_seed(6);
    let (infinite, momentum, eps) = (f64::INFINITY, 0.1, 1e-5);
    for (channels, height, width, kind, tolerance) in [
        (37, 24, 25, Kind::Double, FLOAT64),
        (5, 1, 2, Kind::Double, FLOAT64),
        (64, 40, 40, Kind::Float, FLOAT32),
    ] {
        for bounds in [[-infinite, infinite], [0.0, infinite], [0.0, 6.0]] {
            // Means far from zero: the variance must not be lost against them.
            let map = (Tensor::randn([3, channels, height, width], (kind, Device::Cpu)) * 4 + 9)
                .set_requires_grad(true);
            let (weight, bias) = (draw(&[channels], kind), draw(&[channels], kind));
            let [ours, theirs] = [(); 2].map(|()| {
                [Tensor::zeros([channels], (kind, Device::Cpu)), weight.detach().abs() + 0.5]
            });
            let statistics = batch_statistics(&map, ours.each_ref(), momentum, eps);
            let y = batch_norm(&map, [&weight, &bias], &statistics, bounds);
            let [mean, variance] = theirs.each_ref().map(Some);
            let (weight, bias) = (Some(&weight), Some(&bias));
            let plain = map.batch_norm(weight, bias, mean, variance, true, momentum, eps, true);
            check(&y, &clamped(&plain, bounds), &[&map, weight.unwrap(), bias.unwrap()], tolerance);
            for (ours, theirs) in ours.iter().zip(&theirs) {
                assert!((ours - theirs).abs().max().double_value(&[]) <= tolerance);
            }
        }
    }
}

/// Gradients are zero on the bounds, as those of relu and relu6; clamp's are not.
fn clamped(x: &Tensor, [lower, upper]: [f64; 2]) -> Tensor {
    let within = x.gt(lower).logical_and(&x.lt(upper));
    x.where_self(&within, &x.detach().clamp(lower, upper))
}

#[test]
fn a_batch_norm_in_bfloat16_has_float32_statistics() {
    tch::manual_seed(7);
    let channels = 40;
    let map = (Tensor::randn([2, channels, 30, 30], (Kind::Float, Device::Cpu)) + 3)
        .to_kind(Kind::BFloat16)
        .set_requires_grad(true);
    let (weight, bias) = (draw(&[channels], Kind::Float), draw(&[channels], Kind::Float));
    let [mean, variance] = [(); 2].map(|()| Tensor::ones([channels], (Kind::Float, Device::Cpu)));
    let statistics = batch_statistics(&map, [&mean, &variance], 1.0, 1e-5);
    let wide = map.detach().to_kind(Kind::Double);
    let dims: &[i64] = &[0, 2, 3];
    let (var, expected) = wide.var_mean_dim(dims, true, false);
    assert!((mean - expected).abs().max().double_value(&[]) < 1e-5);
    assert!((variance - var).abs().max().double_value(&[]) < 1e-5);

    let wide = wide.set_requires_grad(true);
    let ours = batch_norm(&map, [&weight, &bias], &statistics, [0.0, f64::INFINITY]);
    assert_eq!(ours.kind(), Kind::BFloat16);
    let [w, b] = [&weight, &bias].map(|tensor| tensor.detach().to_kind(Kind::Double));
    let theirs = wide.batch_norm::<&Tensor>(Some(&w), Some(&b), None, None, true, 0.1, 1e-5, true);
    let gradient = |y: Tensor, x: &Tensor| {
        Tensor::run_backward(&[y.square().sum(None)], &[x], false, false).remove(0)
    };
    // Results of size one to five, and gradients that are about as large, are
    // stored with eight bits.
    let off = |a: &Tensor, b: &Tensor| {
        (a.to_kind(Kind::Double) - b).abs().max().double_value(&[])
            / b.abs().max().double_value(&[])
    };
    assert!(off(&ours, &theirs.relu()) < 1.0 / 256.0);
    let (a, b) = (gradient(ours.to_kind(Kind::Float), &map), gradient(theirs.relu(), &wide));
    assert!(off(&a, &b) < 1.0 / 64.0, "{}", off(&a, &b));
}

/// The product of a tensor that is freed and recomputed by `make`, which
/// counts.
fn freed(weight: &Tensor, make: impl Fn() -> Tensor + Send + 'static) -> (Tensor, Tensor) {
    let x = make();
    let y = x.matmul(weight);
    free_and_recompute(&x, &y, RecomputeFn::new(make));
    (x, y)
}

#[test]
fn a_forgotten_tensor_is_back_when_its_gradient_needs_it() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    tch::manual_seed(8);
    let weight = draw(&[6, 5], Kind::Double);
    let kept = Tensor::randn([4, 6], (Kind::Double, Device::Cpu));
    let made = Arc::new(AtomicUsize::new(0));
    let make = || {
        let (kept, made) = (kept.shallow_clone(), Arc::clone(&made));
        move || {
            made.fetch_add(1, Ordering::Relaxed);
            &kept * 2.0
        }
    };
    let (x, y) = freed(&weight, make());
    assert!(x.data_ptr().is_null());
    drop(x);
    let theirs = (&kept * 2.0).matmul(&weight);
    // Twice: with retain_graph the tensor stays.
    check(&y, &theirs, &[&weight], FLOAT64);
    check(&y, &theirs, &[&weight], FLOAT64);
    assert_eq!(made.load(Ordering::Relaxed), 2);

    // Where no gradient is wanted, nothing is freed.
    let (x, y) = freed(&weight.detach(), make());
    assert!(!x.data_ptr().is_null() && !y.requires_grad());
    let (x, _) = tch::no_grad(|| freed(&weight, make()));
    assert!(!x.data_ptr().is_null());
}

#[test]
fn a_recomputation_that_fails_is_an_error_of_the_backward_pass() {
    let weight = draw(&[6, 5], Kind::Double);
    let x = Tensor::ones([4, 6], (Kind::Double, Device::Cpu));
    let backward = |recompute: RecomputeFn| {
        let x = &x * 1.0;
        let y = x.matmul(&weight);
        free_and_recompute(&x, &y, recompute);
        drop(x);
        y.sum(None).f_backward().unwrap_err().to_string()
    };
    let error = backward(RecomputeFn::new(|| panic!("no")));
    assert!(error.contains("could not be recomputed"), "{error}");
    let shape = Tensor::ones([6, 4], (Kind::Double, Device::Cpu));
    let error = backward(RecomputeFn::new(move || &shape * 1.0));
    assert!(error.contains("[4, 6]") && error.contains("[6, 4]"), "{error}");
}

#[test]
fn convolutions_that_recompute_their_input_equal_libtorchs() {
    tch::manual_seed(9);
    for (groups, stride, dilation, biased, kind, tolerance) in [
        (1, 1, 1, true, Kind::Double, FLOAT64),
        (2, 2, 1, false, Kind::Double, FLOAT64),
        (1, 1, 2, true, Kind::Float, FLOAT32),
    ] {
        let x = draw(&[3, 8, 12, 9], kind);
        let (weight, bias) = (draw(&[6, 8 / groups, 3, 3], kind), draw(&[6], kind));
        let bias = biased.then_some(&bias);
        let kept = x.detach();
        let recompute = RecomputeFn::new(move || &kept * 2.0);
        let geometry = [(stride, stride), (1, 1), (dilation, dilation)];
        let ours = convolution(&(&x * 2.0), &weight, bias, geometry, groups, recompute);
        let theirs = (&x * 2.0).conv2d(&weight, bias, [stride], [1], [dilation], groups);
        let mut leaves = vec![&x, &weight];
        leaves.extend(bias);
        check(&ours, &theirs, &leaves, tolerance);
        // With retain_graph, as check() has it, the recompute stays; then it is gone.
        ours.sum(kind).backward();
        let error = ours.sum(kind).f_backward().unwrap_err().to_string();
        assert!(error.contains("retain_graph") || error.contains("second time"), "{error}");
    }
}
