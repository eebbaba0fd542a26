//! Convolution of a large map tile by tile.
//!
//! On processors without AVX-512, oneDNN's weight gradient in channels-last
//! memory falls out of the cache on large maps: for a 3×3 convolution of 256
//! channels on 120×160 positions it took 2.6 s, and 0.5 s on 16×16 tiles (AMD
//! EPYC, two threads), where forward and the input's gradient took as long as
//! before.

use tch::{Device, Kind, Tensor};

/// Side of a tile, halo left out.
const SIDE: i64 = 16;
/// Positions of a map from which on tiles are faster.
const LARGE: i64 = 4096;

/// Whether [`convolve`] is faster than a convolution of the whole of `x`
/// (`[N, C, H, W]`) whose `weight` is learned.
pub(super) fn is_faster(x: &Tensor, weight: &Tensor) -> bool {
    !has_avx512() && is_worth_cutting(x, weight)
}

/// Whether the tensors are of the kind that falls out of the cache.
fn is_worth_cutting(x: &Tensor, weight: &Tensor) -> bool {
    let size = x.size();
    let channels_last = x.stride()[1] == 1 && size[1] > 1;
    x.device() == Device::Cpu
        && x.kind() == Kind::Float
        && channels_last
        && size[2] * size[3] >= LARGE
        && weight.requires_grad()
}

/// Whether oneDNN has the wide vectors with which it needs no tiles: there the
/// gather and its way back are all that tiles do.
fn has_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// The 3×3 convolution of `x` (`[N, C, H, W]`) with stride 1 and zeros beyond
/// its edges.
pub(super) fn convolve(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let size = x.size();
    let (images, height, width) = (size[0], size[2], size[3]);
    let (down, across) = ((height + SIDE - 1) / SIDE, (width + SIDE - 1) / SIDE);
    let rows = x.permute([0, 2, 3, 1]).reshape([-1, size[1]]);
    let nothing = Tensor::zeros([1, size[1]], (x.kind(), x.device()));
    let table = table(images, height, width);
    let tiles = Tensor::embedding(&Tensor::cat(&[rows, nothing], 0), &table, -1, false, false);
    let tiles = tiles.permute([0, 3, 1, 2]).conv2d(weight, bias, [1], [0], [1], 1);
    tiles
        .permute([0, 2, 3, 1])
        .reshape([images, down, across, SIDE, SIDE, -1])
        .permute([0, 1, 3, 2, 4, 5])
        .reshape([images, down * SIDE, across * SIDE, -1])
        .narrow(1, 0, height)
        .narrow(2, 0, width)
        .permute([0, 3, 1, 2])
}

/// For every position of every tile with its halo, `[tiles, SIDE + 2, SIDE + 2]`,
/// its row among the maps' positions; the row behind them all where it lies
/// outside.
fn table(images: i64, height: i64, width: i64) -> Tensor {
    let nothing = images * height * width;
    let mut rows = Vec::new();
    for image in 0..images {
        for top in (0..height).step_by(SIDE as usize) {
            for left in (0..width).step_by(SIDE as usize) {
                for y in top - 1..=top + SIDE {
                    let row = (image * height + y) * width;
                    let inside = (0..height).contains(&y);
                    rows.extend((left - 1..=left + SIDE).map(|x| {
                        if inside && (0..width).contains(&x) { row + x } else { nothing }
                    }));
                }
            }
        }
    }
    Tensor::from_slice(&rows).view([-1, SIDE + 2, SIDE + 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equals_the_convolution_of_the_whole_and_so_do_its_gradients() {
        tch::manual_seed(0);
        let options = (Kind::Double, Device::Cpu);
        for (height, width) in [(32, 48), (17, 33), (5, 3), (1, 40)] {
            let draw = |size: &[i64]| Tensor::randn(size, options).set_requires_grad(true);
            let (x, weight, bias) = (draw(&[2, 3, height, width]), draw(&[4, 3, 3, 3]), draw(&[4]));
            let leaves = [&x, &weight, &bias];
            let factor = Tensor::randn([2, 4, height, width], options);
            let whole = x.conv2d(&weight, Some(&bias), [1], [1], [1], 1);
            let tiled = convolve(&x, &weight, Some(&bias));
            // Sums of 27 products (a gradient's of 3,000) in another order.
            assert!((&tiled - &whole).abs().max().double_value(&[]) < 1e-12);
            let gradients = |y: Tensor| {
                Tensor::run_backward(&[(y * &factor).sum(Kind::Double)], &leaves, false, false)
            };
            for (ours, theirs) in gradients(tiled).iter().zip(gradients(whole)) {
                assert!((ours - theirs).abs().max().double_value(&[]) < 1e-10);
            }
        }
    }

    #[test]
    fn only_large_channels_last_maps_of_learned_weights_are_cut() {
        let weight = Tensor::zeros([4, 3, 3, 3], (Kind::Float, Device::Cpu));
        let map = |side: i64| Tensor::zeros([1, side, side, 3], (Kind::Float, Device::Cpu));
        let large = map(80).permute([0, 3, 1, 2]);
        assert!(!is_worth_cutting(&large, &weight), "nothing is learned");
        let weight = weight.set_requires_grad(true);
        assert!(is_worth_cutting(&large, &weight));
        assert!(!is_worth_cutting(&large.contiguous(), &weight), "other memory");
        assert!(!is_worth_cutting(&map(16).permute([0, 3, 1, 2]), &weight), "small");
        assert!(!is_worth_cutting(&large.to_kind(Kind::Double), &weight), "no oneDNN");
    }
}
