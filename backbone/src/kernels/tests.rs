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

#[test]
fn the_transposed_convolution_equals_libtorchs() {
    tch::manual_seed(5);
    for (channels, height, width) in [(3, 4, 5), (8, 1, 1), (5, 7, 2)] {
        let map = draw(&[2, channels, height, width], Kind::Double);
        let weight = draw(&[channels, channels, 4, 4], Kind::Double);
        let bias = draw(&[channels], Kind::Double);
        let ours = conv_transpose_4x4(&map, &weight, &bias);
        let theirs = map.conv_transpose2d(&weight, Some(&bias), [2, 2], [1, 1], [0, 0], 1, [1, 1]);
        check(&ours, &theirs, &[&map, &weight, &bias], FLOAT64);
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
