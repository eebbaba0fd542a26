//! How a convolution runs, decided in one place.

use tch::{Device, Tensor};

use super::Conv2d;
use crate::kernels;
use crate::layers::sliding::{Sliding, patch_size};
use crate::layers::tiles;
use crate::{FeatureMap, Mode};

/// Outputs of a patch up to which a matrix product beats windows: measured on
/// ResNet-50 (x86, AVX-512), where 1, 4 and 16 take 75 %, 60 % and 63 % of the
/// time without, at more memory for more outputs.
const FEW_OUTPUTS: i64 = 4;
/// Input channels of a group from which on a product for each group beats windows
/// for patches of one output: measured forward and backward on one thread (x86),
/// where groups of 16 take 70 % of the time without, those of 24 to 112 take 27 to
/// 55 %. With more outputs it is no faster.
const WIDE_GROUP: i64 = 16;

/// How a convolution runs. All ways give the same values but for rounding;
/// [`Conv2d::plan`] takes the first row that applies:
///
/// | plan | map | convolution | reason |
/// |---|---|---|---|
/// | [`Direct`](Self::Direct) | patches, on a processor | depthwise, stride 1, keeps the size | reads the visible neighbours alone |
/// | [`OnGrid`](Self::OnGrid) | patches | one input channel a group, windows larger than the grid | reading the windows costs more than convolving the masked positions |
/// | [`MatrixProduct`](Self::MatrixProduct) | patches | one group; 1×1, or at most 4 outputs a patch | convolution kernels are made for large images |
/// | [`GroupedProduct`](Self::GroupedProduct) | patches, on a processor | groups of 16 input channels or more, one output a patch | the same; grouped kernels are slower still |
/// | [`Windows`](Self::Windows) | patches | any other | |
/// | [`Tiles`](Self::Tiles) | grid, masked grid | one group, 3×3, stride 1, padding 1; float32 training on a processor without AVX-512, from 4096 positions on | oneDNN's weight gradient falls out of the cache |
/// | [`MatrixProduct`](Self::MatrixProduct) | grid, masked grid in channels-last memory | one group, 1×1, no padding; float32 on a processor, from 2²⁵ multiplications on | oneDNN's product is faster than its convolution |
/// | [`Libtorch`](Self::Libtorch) | grid, masked grid | any other | |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConvPlan {
    /// A kernel of ours reads every output's visible neighbours.
    Direct,
    /// Patches are laid out on the grid, convolved by libtorch, and packed again.
    OnGrid,
    /// The inputs of every output are a row of a matrix, which is multiplied by
    /// the weights.
    MatrixProduct,
    /// The same with a matrix for each group.
    GroupedProduct,
    /// Libtorch convolves every patch with its halo, without padding.
    Windows,
    /// Libtorch convolves the grid tile by tile.
    Tiles,
    /// Libtorch convolves the whole grid.
    Libtorch,
}

impl Conv2d {
    /// How the convolution of `x` runs.
    ///
    /// # Panics
    /// `x` is packed, and the output grid would not be the input grid divided by
    /// the stride.
    pub(super) fn plan(&self, x: &FeatureMap, mode: &Mode) -> ConvPlan {
        let FeatureMap::Patches { packed, mask } = x else {
            return self.plan_of_grid(x.tensor(), mode);
        };
        let (rows, cols) = mask.patches();
        if self.is_depthwise(packed) && self.sliding.keeps_size() && packed.device() == Device::Cpu
        {
            ConvPlan::Direct
        } else if self.is_cheaper_on_grid(packed, mask.batch() * rows * cols) {
            ConvPlan::OnGrid
        } else if self.is_matrix_product(packed) {
            ConvPlan::MatrixProduct
        } else if self.is_grouped_product(packed) {
            ConvPlan::GroupedProduct
        } else {
            ConvPlan::Windows
        }
    }

    fn plan_of_grid(&self, grid: &Tensor, mode: &Mode) -> ConvPlan {
        if self.is_3x3()
            && mode.training
            && mode.compute.is_none()
            && tiles::is_faster(grid, &self.weight)
        {
            ConvPlan::Tiles
        } else if self.is_pointwise()
            && grid.stride()[1] == 1
            && kernels::is_linear_fast(grid, mode.compute, self.weight.size()[0])
        {
            ConvPlan::MatrixProduct
        } else {
            ConvPlan::Libtorch
        }
    }

    /// Whether each output channel depends on the input channel of its number alone.
    fn is_depthwise(&self, x: &Tensor) -> bool {
        let channels = x.size()[1];
        (self.groups, self.weight.size()[0]) == (channels, channels)
    }

    /// Whether this is a 3×3 convolution of all channels that keeps a grid's
    /// size.
    fn is_3x3(&self) -> bool {
        let Sliding { kernel, stride, padding, dilation, .. } = self.sliding;
        (kernel, stride, padding, dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
            && self.sliding.is_symmetric()
            && self.groups == 1
    }

    /// The same without a bias.
    pub(in crate::layers) fn is_plain_3x3(&self) -> bool {
        self.is_3x3() && self.bias.is_none()
    }

    /// Whether every output depends on one position, of all channels.
    pub(super) fn is_pointwise(&self) -> bool {
        let Sliding { kernel, .. } = self.sliding;
        (kernel, self.sliding.pads(), self.groups) == ((1, 1), [0; 4], 1)
    }

    /// A depthwise convolution does so little arithmetic that reading the
    /// windows can cost more than convolving the whole grid.
    fn is_cheaper_on_grid(&self, packed: &Tensor, patches_in_grid: i64) -> bool {
        let size = packed.size();
        let window = self.sliding.window(patch_size(packed));
        self.groups == size[1]
            && size[0] * window.y.steps * window.x.steps > patches_in_grid * size[2] * size[3]
    }

    /// Whether to compute patches as one matrix product: always for 1×1 kernels,
    /// and for patches of few outputs, since convolution kernels are made for
    /// large images and the windows of such patches are hardly smaller than the
    /// matrix.
    fn is_matrix_product(&self, packed: &Tensor) -> bool {
        let is_few = self.outputs_of_patch(packed) <= FEW_OUTPUTS;
        self.groups == 1 && (self.sliding.kernel == (1, 1) || is_few)
    }

    /// Whether to compute patches as one matrix product a group. Measured on
    /// processors alone.
    fn is_grouped_product(&self, packed: &Tensor) -> bool {
        packed.device() == Device::Cpu
            && self.groups > 1
            && self.weight.size()[1] >= WIDE_GROUP
            && self.outputs_of_patch(packed) == 1
    }

    fn outputs_of_patch(&self, packed: &Tensor) -> i64 {
        let ((height, width), stride) = (patch_size(packed), self.sliding.stride);
        height / stride.0 * (width / stride.1)
    }
}
