//! The geometry of kernels that slide over the grid (convolution, pooling),
//! and the window of a patch they see.

use crate::FeatureMap;
use crate::mask::{Border, PatchMask, Size, Window};
use tch::Tensor;

/// A kernel's extent and movement, (height, width) each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sliding {
    pub kernel: Size,
    pub stride: Size,
    pub padding: Size,
    pub dilation: Size,
}

impl Sliding {
    /// The inputs that a patch of `patch` positions needs.
    ///
    /// # Panics
    /// The output grid would not be the input grid divided by the stride, so
    /// that a patch has no output of its own.
    pub fn window(&self, patch: Size) -> Window {
        let axis = |patch: i64, kernel: i64, stride: i64, padding: i64, dilation: i64| {
            let reach = dilation * (kernel - 1) + 1;
            assert!(
                (2 * padding - reach).div_euclid(stride) == -1,
                "kernel {kernel} with stride {stride}, padding {padding}, dilation {dilation} does \
                 not map a grid of n positions to n/stride, as masked execution needs"
            );
            assert!(
                patch % stride == 0,
                "a patch of {patch} positions cannot be divided by a stride of {stride}"
            );
            (-padding, (patch / stride - 1) * stride + reach)
        };
        let y = axis(patch.0, self.kernel.0, self.stride.0, self.padding.0, self.dilation.0);
        let x = axis(patch.1, self.kernel.1, self.stride.1, self.padding.1, self.dilation.1);
        Window { start: (y.0, x.0), len: (y.1, x.1) }
    }

    /// What the kernel, now without padding, slides over to give each patch's
    /// outputs: the patch itself where that is all it needs, else its window.
    pub fn gather(&self, packed: &Tensor, mask: &PatchMask, border: Border) -> Tensor {
        let patch = patch_size(packed);
        let window = self.window(patch);
        if window.start == (0, 0) && window.len.0 <= patch.0 && window.len.1 <= patch.1 {
            packed.shallow_clone()
        } else {
            mask.windows(packed, window, border)
        }
    }
}

/// Height and width of the patches in `[V, C, p, q]`.
pub(super) fn patch_size(packed: &Tensor) -> Size {
    let size = packed.size();
    (size[2], size[3])
}

/// Runs a grid operation `on_grid` (with the kernel's own padding) or its
/// packed form `on_windows` (without padding, on gathered windows).
pub(super) fn slide(
    x: &FeatureMap,
    on_grid: impl Fn(&Tensor) -> Tensor,
    on_patches: impl Fn(&Tensor, &PatchMask) -> Tensor,
) -> FeatureMap {
    match x {
        FeatureMap::Grid(grid) => FeatureMap::Grid(on_grid(grid)),
        FeatureMap::Masked { grid, mask } => FeatureMap::remask(on_grid(grid), mask),
        FeatureMap::Patches { packed, mask } => {
            FeatureMap::Patches { packed: on_patches(packed, mask), mask: mask.clone() }
        }
    }
}
