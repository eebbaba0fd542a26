//! The transposed convolution that doubles a map's sides.

use tch::nn::Path;
use tch::{Device, Tensor};

use super::recompute::with_copy;
use super::{Conv2d, Layer, Recomputable};
use crate::kernels::{self, NOTHING, RecomputeFn, RowTable};
use crate::mode::cast;
use crate::{FeatureMap, Init, Mode};

/// `torch.nn.ConvTranspose2d(c, c, 4, stride=2, padding=1)`, of whole grids.
#[derive(Debug)]
pub struct ConvTranspose4x4 {
    /// `[in, out, 4, 4]`.
    weight: Tensor,
    /// `[out]`.
    bias: Tensor,
}

impl ConvTranspose4x4 {
    /// Parameters `weight` `[c, c, 4, 4]`, Kaiming fan-out, and `bias` `[c]`,
    /// zero.
    pub fn new(path: &Path, channels: i64) -> Self {
        Self {
            weight: Init::KaimingFanOut.parameter(path, "weight", &[channels, channels, 4, 4]),
            bias: Init::Constant(0.0).parameter(path, "bias", &[channels]),
        }
    }

    /// `conv` of the result, with nothing between them. Both are fused into one
    /// operator where that takes fewer multiplications.
    pub(crate) fn forward_fused(&self, conv: &Conv2d, x: Recomputable, mode: &Mode) -> FeatureMap {
        let grid = matches!(x.map(), FeatureMap::Grid(_));
        if !(grid && conv.is_plain_3x3() && kernels::is_up_conv_fast(x.map().tensor())) {
            return conv.forward_owned(self.forward_owned(x, mode).into(), mode);
        }
        let compute = mode.compute;
        let kept = x.map().tensor().detach();
        let (x, recompute) = x.prepared(move |x| cast(x, compute));
        let recompute = recompute.unwrap_or_else(|| RecomputeFn::new(move || cast(&kept, compute)));
        let weights = mode.weights();
        let [up, conv] = [&self.weight, &conv.weight].map(|weight| weights.cast(weight));
        FeatureMap::Grid(kernels::up_conv(&x, [&up, &mode.cast(&self.bias), &conv], recompute))
    }

    /// Of a map that nobody else needs.
    fn forward_owned(&self, x: Recomputable, mode: &Mode) -> FeatureMap {
        FeatureMap::Grid(match x.map().tensor().device() {
            Device::Cpu => self.by_product(x, mode),
            _ => {
                let x = mode.cast(x.into_map().tensor());
                let [weight, bias] = [&self.weight, &self.bias].map(|tensor| mode.cast(tensor));
                x.conv_transpose2d(&weight, Some(&bias), [2, 2], [1, 1], [0, 0], 1, [1, 1])
            }
        })
    }

    /// On a processor, where convolution kernels are slow on maps as small as
    /// those that come here: what every input adds to its 4×4 outputs by a matrix
    /// product, then the sums.
    fn by_product(&self, x: Recomputable, mode: &Mode) -> Tensor {
        let size = x.map().tensor().size();
        let (images, height, width) = (size[0], size[2], size[3]);
        let (channels, compute) = (self.bias.numel() as i64, mode.compute);
        let weights = mode.weights();
        let rows = move |x: &Tensor| cast(x, compute).permute([0, 2, 3, 1]).flatten(0, 2);
        let sums = with_copy(
            &self.weight,
            move |weight| weights.cast(weight),
            |weight| {
                let wide = weight.permute([2, 3, 1, 0]).flatten(0, 2);
                let parts = x.apply(rows, |rows| kernels::linear(rows, &wide, None));
                parts_of_outputs(images, height, width).sum(&parts.view([-1, channels]), 0.0)
            },
        );
        (sums + mode.cast(&self.bias))
            .view([images, 2 * height, 2 * width, channels])
            .permute([0, 3, 1, 2])
    }
}

/// Which of the rows `[N, height, width, 4, 4]` each output `[N, 2 · height, 2 ·
/// width]` is the sum of: two of each side's four, but for those beyond the edges.
fn parts_of_outputs(images: i64, height: i64, width: i64) -> RowTable {
    let inputs = |output: i64, size: i64| {
        let taps = [(output + 1) % 2, (output + 1) % 2 + 2];
        let inputs = taps.map(|tap| ((output + 1 - tap) / 2, tap));
        inputs.into_iter().filter(move |(input, _)| (0..size).contains(input))
    };
    let mut names = Vec::with_capacity((images * height * width * 16) as usize);
    for image in 0..images {
        for (y, x) in (0..2 * height).flat_map(|y| (0..2 * width).map(move |x| (y, x))) {
            let before = names.len();
            for (row, tap_y) in inputs(y, height) {
                for (column, tap_x) in inputs(x, width) {
                    let input = (image * height + row) * width + column;
                    names.push((input * 4 + tap_y) * 4 + tap_x);
                }
            }
            names.resize(before + 4, NOTHING);
        }
    }
    let table = Tensor::from_slice(&names).view([-1, 4]);
    RowTable::new(table, images * height * width * 16)
}

impl Layer for ConvTranspose4x4 {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.forward_owned(x.clone().into(), mode)
    }
}
