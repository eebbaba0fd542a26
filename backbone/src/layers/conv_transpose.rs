//! The transposed convolution that doubles a map's sides.

use tch::Tensor;
use tch::nn::Path;

use super::recomputed::with_copy;
use super::{Conv2d, Layer, Recomputed};
use crate::kernels::{self, Recipe};
use crate::mode::cast;
use crate::{FeatureMap, Init, Mode};

/// Channels up to which the result is made again rather than kept: a value takes
/// as many multiplications as there are channels.
const NARROW: i64 = 96;

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

    /// `conv` of the result, with nothing between them: where they are one
    /// operator, that is fewer multiplications.
    pub fn then(&self, conv: &Conv2d, x: Recomputed, mode: &Mode) -> FeatureMap {
        let grid = matches!(x.map(), FeatureMap::Grid(_));
        if !(grid && conv.is_plain_3x3() && kernels::is_up_conv_fast(x.map().tensor())) {
            return conv.consume(self.between(x, mode), mode);
        }
        let compute = mode.compute;
        let kept = x.map().tensor().detach();
        let (x, recipe) = x.prepared(move |x| cast(x, compute));
        let recipe = recipe.unwrap_or_else(|| Recipe::new(move || cast(&kept, compute)));
        let weights = [&self.weight, &self.bias, &conv.weight].map(|weight| mode.cast(weight));
        FeatureMap::Grid(kernels::up_conv(&x, weights.each_ref(), recipe))
    }

    /// [`Layer::consume`] for one other layer. The result is made again in the
    /// backward pass where that costs less than keeping it.
    pub fn between(&self, x: Recomputed, mode: &Mode) -> Recomputed {
        let (recipe, compute) = (x.recipe(), mode.compute);
        let run = move |x: &Tensor, weight: &Tensor, bias: &Tensor| {
            kernels::conv_transpose_4x4(x, weight, &cast(bias, compute))
        };
        let grid = with_copy(
            &self.weight,
            move |weight| cast(weight, compute),
            |weight| x.consume(move |x| cast(x, compute), |x| run(x, weight, &self.bias)),
        );
        let grid = FeatureMap::Grid(grid);
        if self.weight.size()[0] > NARROW {
            return grid.into();
        }
        let (weight, bias) = (self.weight.detach(), self.bias.detach());
        Recomputed::new(grid, move || {
            run(&cast(&recipe.follow(), compute), &cast(&weight, compute), &bias)
        })
    }
}

impl Layer for ConvTranspose4x4 {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.between(x.clone().into(), mode).into_map()
    }
}
