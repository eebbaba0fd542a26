//! Pooling: max, average, and global average over visible positions.

use tch::{Kind, Tensor};

use super::sliding::{Sliding, slide};
use super::{Layer, Recomputable};
use crate::mask::{Border, Size};
use crate::{FeatureMap, Mode};

fn square(kernel: i64, stride: i64, padding: i64) -> Sliding {
    Sliding {
        kernel: (kernel, kernel),
        stride: (stride, stride),
        padding: (padding, padding),
        padding_after: (padding, padding),
        dilation: (1, 1),
    }
}

/// `torch.nn.MaxPool2d`. Masked positions take part as zeros, as in the
/// official sparse max-pool; positions beyond the grid do not take part.
#[derive(Debug)]
pub struct MaxPool2d(Sliding);

impl MaxPool2d {
    /// A square kernel.
    pub fn new(kernel: i64, stride: i64, padding: i64) -> Self {
        Self(square(kernel, stride, padding))
    }

    /// A kernel of any shape; on grids it is as far padded behind as before.
    pub(crate) fn of(sliding: Sliding) -> Self {
        Self(sliding)
    }

    /// Of a map that nobody else needs: it is not kept for the backward pass
    /// where it can be recomputed.
    pub(crate) fn forward_owned(&self, x: Recomputable) -> FeatureMap {
        slide(
            x,
            |x| x.apply(Tensor::shallow_clone, |grid| self.pool(grid, self.0.padding)),
            |x, patch, mask| {
                let windows = self.0.gather(patch, mask, Border::NegativeInfinity);
                x.apply(windows, |windows| self.pool(windows, (0, 0)))
            },
        )
    }

    fn pool(&self, x: &Tensor, padding: Size) -> Tensor {
        let Sliding { kernel, stride, dilation, .. } = self.0;
        x.max_pool2d(
            [kernel.0, kernel.1],
            [stride.0, stride.1],
            [padding.0, padding.1],
            [dilation.0, dilation.1],
            false,
        )
    }
}

impl Layer for MaxPool2d {
    fn forward(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        self.forward_owned(x.clone().into())
    }
}

/// `torch.nn.AvgPool2d`. Masked positions take part as zeros.
#[derive(Debug)]
pub struct AvgPool2d {
    sliding: Sliding,
    count_include_pad: bool,
}

impl AvgPool2d {
    /// A square kernel; `count_include_pad` says whether positions beyond the
    /// grid count as zeros (PyTorch's default) or not at all.
    pub fn new(kernel: i64, stride: i64, padding: i64, count_include_pad: bool) -> Self {
        Self { sliding: square(kernel, stride, padding), count_include_pad }
    }

    /// A kernel of any shape; on grids it is as far padded behind as before.
    pub(crate) fn of(sliding: Sliding, count_include_pad: bool) -> Self {
        Self { sliding, count_include_pad }
    }

    fn pool(&self, x: &Tensor, padding: Size) -> Tensor {
        let Sliding { kernel, stride, .. } = self.sliding;
        x.avg_pool2d(
            [kernel.0, kernel.1],
            [stride.0, stride.1],
            [padding.0, padding.1],
            false,
            self.count_include_pad,
            None,
        )
    }
}

impl Layer for AvgPool2d {
    fn forward(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        slide(
            x.clone().into(),
            |x| self.pool(x.map().tensor(), self.sliding.padding),
            |x, patch, mask| {
                let windows = self.sliding.gather(patch, mask, Border::Zero);
                let mean = x.apply(windows, |windows| self.pool(windows, (0, 0)));
                if self.count_include_pad || self.sliding.pads() == [0; 4] {
                    return mean;
                }
                let inside = mask.inside(patch, self.sliding.window(patch));
                let share = self.pool(&inside, (0, 0)).to_kind(mean.kind());
                mean / share
            },
        )
    }
}

/// Mean over the visible positions of every image, `[N, C]`; zero for an image
/// without any. Sums in float32 or wider.
pub fn global_avg_pool(x: &FeatureMap) -> Tensor {
    let wide = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let sums = x.sum_images(&x.tensor().sum_dim_intlist([2, 3].as_slice(), false, wide));
    (sums / x.positions_per_image(wide).unsqueeze(1)).to_kind(x.kind())
}
