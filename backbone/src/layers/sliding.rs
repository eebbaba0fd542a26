//! The geometry of kernels that slide over the grid (convolution, pooling),
//! and the window of a patch they see.

use crate::FeatureMap;
use crate::mask::{Axis, Border, PatchMask, Size, Window};
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
    /// Along each side, what a patch of `patch` positions sees: a step for
    /// every output, a tap for every element of the kernel.
    ///
    /// # Panics
    /// The output grid would not be the input grid divided by the stride, so
    /// that a patch has no output of its own.
    pub fn taps(&self, patch: Size) -> Window {
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
            Axis { start: -padding, steps: patch / stride, stride, taps: kernel, dilation }
        };
        Window {
            y: axis(patch.0, self.kernel.0, self.stride.0, self.padding.0, self.dilation.0),
            x: axis(patch.1, self.kernel.1, self.stride.1, self.padding.1, self.dilation.1),
        }
    }

    /// Whether the output has the input's size, each position seeing as many
    /// neighbours on either side.
    pub fn keeps_size(&self) -> bool {
        (self.stride, self.dilation) == ((1, 1), (1, 1))
            && (2 * self.padding.0 + 1, 2 * self.padding.1 + 1) == self.kernel
    }

    /// The contiguous window that holds what a patch of `patch` positions sees.
    ///
    /// # Panics
    /// As [`Sliding::taps`].
    pub fn window(&self, patch: Size) -> Window {
        let Window { y, x } = self.taps(patch);
        let whole = |axis: Axis| Axis::contiguous(axis.start, axis.end() - axis.start);
        Window { y: whole(y), x: whole(x) }
    }

    /// What the kernel, now without padding, slides over to give each patch's
    /// outputs, `[V, C, h, w]` in channels-last memory: the patch itself where
    /// that is all it needs, else its window.
    pub fn gather(&self, packed: &Tensor, mask: &PatchMask, border: Border) -> Tensor {
        let patch = patch_size(packed);
        let window = self.window(patch);
        if within(window.y, patch.0) && within(window.x, patch.1) {
            packed.shallow_clone()
        } else {
            let windows = mask.windows(packed, window, border);
            windows.squeeze_dim(4).squeeze_dim(3).permute([0, 3, 1, 2])
        }
    }

    /// The inputs of every output as a row, `[V, h, w, kh·kw·C]`: a matrix
    /// product with these rows is the convolution.
    pub fn columns(&self, packed: &Tensor, mask: &PatchMask) -> Tensor {
        let taps = self.taps(patch_size(packed));
        if self.kernel == (1, 1) && self.padding == (0, 0) {
            let strided = packed.slice(2, None, None, self.stride.0);
            strided.slice(3, None, None, self.stride.1).permute([0, 2, 3, 1])
        } else {
            mask.windows(packed, taps, Border::Zero).flatten(3, 5)
        }
    }
}

/// Whether `axis` stays within a patch of `size` positions, from its first on.
fn within(axis: Axis, size: i64) -> bool {
    axis.start == 0 && axis.end() <= size
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
