//! The geometry of kernels that slide over the grid (convolution, pooling),
//! and the window of a patch they see.

use super::Recomputable;
use crate::FeatureMap;
use crate::mask::{Axis, Border, PatchMask, Size, Window};
use tch::Tensor;

/// A kernel's extent and movement, (height, width) each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sliding {
    pub kernel: Size,
    pub stride: Size,
    /// Before the first position.
    pub padding: Size,
    /// Behind the last position.
    pub padding_after: Size,
    pub dilation: Size,
}

impl Sliding {
    /// Whether there is as much padding behind as before.
    pub fn is_symmetric(&self) -> bool {
        self.padding == self.padding_after
    }

    /// `[left, right, top, bottom]`, as libtorch's `pad` takes it.
    pub fn pads(&self) -> [i64; 4] {
        [self.padding.1, self.padding_after.1, self.padding.0, self.padding_after.0]
    }

    /// Along each side, what a patch of `patch` positions sees: a step for
    /// every output, a tap for every element of the kernel.
    ///
    /// # Panics
    /// The output grid would not be the input grid divided by the stride, so
    /// that a patch has no output of its own.
    pub fn taps(&self, patch: Size) -> Window {
        let axis = |patch: i64, kernel: i64, stride: i64, (padding, after): Size, dilation: i64| {
            let reach = dilation * (kernel - 1) + 1;
            assert!(
                (padding + after - reach).div_euclid(stride) == -1,
                "kernel {kernel} with stride {stride}, padding {padding} and {after}, dilation \
                 {dilation} does not map a grid of n positions to n/stride, as masked execution \
                 needs"
            );
            assert!(
                patch % stride == 0,
                "a patch of {patch} positions cannot be divided by a stride of {stride}"
            );
            Axis { start: -padding, steps: patch / stride, stride, taps: kernel, dilation }
        };
        let Self { kernel, stride, padding, padding_after: after, dilation } = *self;
        Window {
            y: axis(patch.0, kernel.0, stride.0, (padding.0, after.0), dilation.0),
            x: axis(patch.1, kernel.1, stride.1, (padding.1, after.1), dilation.1),
        }
    }

    /// Whether the output has the input's size, each position seeing as many
    /// neighbours on either side.
    pub fn keeps_size(&self) -> bool {
        (self.stride, self.dilation) == ((1, 1), (1, 1))
            && self.is_symmetric()
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
    ///
    /// Of packed patches `[V, C, p, q]` of `patch` positions.
    pub fn gather(
        &self,
        patch: Size,
        mask: &PatchMask,
        border: Border,
    ) -> impl Fn(&Tensor) -> Tensor + Send + use<> {
        let window = self.window(patch);
        let inside = within(window.y, patch.0) && within(window.x, patch.1);
        let windows = (!inside).then(|| mask.windows_of(patch, window, border));
        move |packed| match &windows {
            None => packed.shallow_clone(),
            Some(windows) => {
                windows.cut(packed).squeeze_dim(4).squeeze_dim(3).permute([0, 3, 1, 2])
            }
        }
    }

    /// The inputs of every output as a row, `[V, h, w, kh·kw·C]`: a matrix
    /// product with these rows is the convolution.
    ///
    /// Of packed patches `[V, C, p, q]` of `patch` positions.
    pub fn columns(
        &self,
        patch: Size,
        mask: &PatchMask,
    ) -> impl Fn(&Tensor) -> Tensor + Send + use<> {
        let pointwise = self.kernel == (1, 1) && self.pads() == [0; 4];
        let windows = (!pointwise).then(|| mask.windows_of(patch, self.taps(patch), Border::Zero));
        let stride = self.stride;
        move |packed| match &windows {
            None => strided_rows(packed, stride),
            Some(windows) => windows.cut(packed).flatten(3, 5),
        }
    }
}

/// The positions `[N, h, w, C]` that a stride leaves of a map `[N, C, H, W]`.
/// Channels go last first, so that the gradient, which is zero elsewhere, lies in
/// channels-last memory as well.
pub(super) fn strided_rows(map: &Tensor, stride: Size) -> Tensor {
    map.permute([0, 2, 3, 1]).slice(1, None, None, stride.0).slice(2, None, None, stride.1)
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
/// packed form `on_patches`, of patches of that many positions (without
/// padding, on gathered windows).
pub(super) fn slide(
    x: Recomputable,
    on_grid: impl FnOnce(Recomputable) -> Tensor,
    on_patches: impl FnOnce(Recomputable, Size, &PatchMask) -> Tensor,
) -> FeatureMap {
    match x.map() {
        FeatureMap::Grid(_) => FeatureMap::Grid(on_grid(x)),
        FeatureMap::Masked { mask, .. } => {
            let mask = mask.clone();
            FeatureMap::remask(on_grid(x), &mask)
        }
        FeatureMap::Patches { packed, mask } => {
            let (patch, mask) = (patch_size(packed), mask.clone());
            FeatureMap::Patches { packed: on_patches(x, patch, &mask), mask }
        }
    }
}
