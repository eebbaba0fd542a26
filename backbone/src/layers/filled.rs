//! Convolution of a map whose masked positions all hold one token.

use tch::{Device, Tensor};

use super::sliding::patch_size;
use super::{Conv2d, Layer};
use crate::{FeatureMap, Mode, PatchMask, kernels};

impl Conv2d {
    /// The convolution of the grid that holds `x` where visible and `token`
    /// `[1, C, 1, 1]` where masked (SparK's densification): `[N, out, H, W]`.
    ///
    /// A convolution is linear: that of the token alone is the same for every
    /// image and needs one multiplication a tap; on top of it come the visible
    /// positions' differences from the token. So the masked positions, which
    /// are most of the grid, cost nothing. In narrow types the product with each
    /// tap is rounded before they are added up (in float32).
    pub fn forward_filled(&self, x: &FeatureMap, token: &Tensor, mode: &Mode) -> Tensor {
        match x {
            FeatureMap::Patches { packed, mask } if self.splits_products(packed) => {
                self.add_to_token(packed, mask, token, mode)
            }
            _ => {
                let filled = FeatureMap::Grid(fill(x, token));
                self.forward(&filled, mode).tensor().shallow_clone()
            }
        }
    }

    /// Whether this is a convolution that keeps the size, on a processor;
    /// others have cuDNN, to which less arithmetic is not less time.
    fn splits_products(&self, packed: &Tensor) -> bool {
        packed.device() == Device::Cpu && self.groups == 1 && self.sliding.keeps_size()
    }

    fn add_to_token(
        &self,
        packed: &Tensor,
        mask: &PatchMask,
        token: &Tensor,
        mode: &Mode,
    ) -> Tensor {
        let (patch, kernel) = (patch_size(packed), self.sliding.kernel);
        let [out, channels, ..] = self.weight.size()[..] else { unreachable!("four dimensions") };
        let (height, width) = (patch.0 * mask.patches().0, patch.1 * mask.patches().1);

        // [kh·kw·out, in]: a row for every tap and output.
        let taps = self.weight.permute([2, 3, 0, 1]).reshape([-1, channels]);
        let of_token = taps
            .mv(&token.view([-1]).to_kind(taps.kind()))
            .view([kernel.0, kernel.1, out, 1])
            .permute([2, 3, 0, 1]);
        let ones = Tensor::ones([1, 1, height, width], (taps.kind(), taps.device()));
        let padding = [self.sliding.padding.0, self.sliding.padding.1];
        let base = ones.conv2d(&of_token, self.bias.as_ref(), [1], padding, [1], 1);

        let difference = mode.cast(packed) - mode.cast(token);
        let rows = difference.permute([0, 2, 3, 1]).reshape([-1, channels]);
        let products = kernels::linear(&rows, &mode.cast(&taps), None);
        let sums = mask.add_products(&products.view([-1, out]), patch, kernel);
        let grid =
            sums.view([mask.batch(), height, width, out]) + mode.cast(&base).permute([0, 2, 3, 1]);
        grid.permute([0, 3, 1, 2])
    }
}

/// The grid that holds `x` where visible and `token` where masked.
pub fn fill(x: &FeatureMap, token: &Tensor) -> Tensor {
    let grid = x.to_grid();
    let Some(mask) = x.mask() else { return grid };
    let (size, (rows, cols)) = (grid.size(), mask.patches());
    let active = mask.active((size[2] / rows, size[3] / cols));
    grid.where_self(&active, &token.to_kind(grid.kind()))
}
