//! Convolution of a map whose masked positions all hold one token.

use tch::{Device, Tensor};

use super::recompute::with_copy;
use super::sliding::patch_size;
use super::{Conv2d, Layer, Norm, Recomputable};
use crate::mode::cast;
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
    pub fn forward_with_mask_token(&self, x: &FeatureMap, token: &Tensor, mode: &Mode) -> Tensor {
        self.owned_with_mask_token(x.clone().into(), token, mode)
    }

    /// The same of `norm`'s output on `x`, which is not kept for the backward
    /// pass.
    pub fn forward_normed_with_mask_token(
        &self,
        norm: &Norm,
        x: &FeatureMap,
        token: &Tensor,
        mode: &Mode,
    ) -> Tensor {
        self.owned_with_mask_token(norm.forward_recomputable(x, mode), token, mode)
    }

    fn owned_with_mask_token(&self, x: Recomputable, token: &Tensor, mode: &Mode) -> Tensor {
        let mask = match x.map() {
            FeatureMap::Patches { packed, mask } if self.splits_products(packed) => mask.clone(),
            _ => {
                let filled = FeatureMap::Grid(fill_masked(&x.into_map(), token));
                return self.forward(&filled, mode).tensor().shallow_clone();
            }
        };
        self.add_to_token(x, &mask, token, mode)
    }

    /// Whether this is a convolution that keeps the size, on a processor;
    /// others have cuDNN, to which less arithmetic is not less time.
    fn splits_products(&self, packed: &Tensor) -> bool {
        packed.device() == Device::Cpu && self.groups == 1 && self.sliding.keeps_size()
    }

    fn add_to_token(
        &self,
        x: Recomputable,
        mask: &PatchMask,
        token: &Tensor,
        mode: &Mode,
    ) -> Tensor {
        let (patch, kernel) = (patch_size(x.map().tensor()), self.sliding.kernel);
        let [out, channels, ..] = self.weight.size()[..] else { unreachable!("four dimensions") };
        let (height, width) = (patch.0 * mask.patches().0, patch.1 * mask.patches().1);

        // A view, as kernels lie in channels-last memory.
        let rows = self.weight.permute([0, 2, 3, 1]).reshape([-1, channels]);
        let of_token = rows
            .mv(&token.view([-1]).to_kind(rows.kind()))
            .view([out, kernel.0, kernel.1, 1])
            .permute([0, 3, 1, 2]);
        let kind = (rows.kind(), rows.device());
        let ones = Tensor::ones([1, 1, height, width], kind);
        let padding = [self.sliding.padding.0, self.sliding.padding.1];
        let base = ones.conv2d(&of_token, self.bias.as_ref(), [1], padding, [1], 1);

        let compute = mode.compute;
        let subtracted = token.shallow_clone();
        let rows = move |packed: &Tensor| {
            let difference = cast(packed, compute) - cast(&subtracted, compute);
            difference.permute([0, 2, 3, 1]).reshape([-1, channels])
        };
        // [kh·kw·out, in]: a row for every tap and output.
        let taps = move |weight: &Tensor| {
            cast(weight, compute).permute([2, 3, 0, 1]).reshape([-1, channels])
        };
        let products = x.apply(rows, |rows| {
            with_copy(&self.weight, taps, |taps| kernels::linear(rows, taps, None))
        });
        let sums = mask.add_products(&products.view([-1, out]), patch, kernel);
        let grid =
            sums.view([mask.batch(), height, width, out]) + mode.cast(&base).permute([0, 2, 3, 1]);
        grid.permute([0, 3, 1, 2])
    }
}

/// The grid `[N, C, H, W]` that holds `x` where visible and `token` `[1, C, 1, 1]` where
/// masked.
pub fn fill_masked(x: &FeatureMap, token: &Tensor) -> Tensor {
    let grid = x.to_grid();
    let Some(mask) = x.mask() else { return grid };
    let (size, (rows, cols)) = (grid.size(), mask.patches());
    let active = mask.active((size[2] / rows, size[3] / cols));
    grid.where_self(&active, &token.to_kind(grid.kind()))
}
