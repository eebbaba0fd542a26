//! 2-d convolution.

use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use super::recomputed::with_copy;
use super::sliding::{Sliding, patch_size, slide, strided_rows};
use super::{Layer, Recomputed, tiles};
use crate::kernels::{self, Recipe};
use crate::mask::{Border, PatchMask, Size};
use crate::mode::cast;
use crate::{FeatureMap, Init, Mode, Module};

/// What `torch.nn.Conv2d` takes besides its channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conv2dConfig {
    /// Height and width of the kernel.
    pub kernel: Size,
    /// Step along each side.
    pub stride: Size,
    /// Zeros added on each side.
    pub padding: Size,
    /// Distance between the kernel's elements.
    pub dilation: Size,
    /// Groups of channels convolved apart.
    pub groups: i64,
    /// Whether a bias is added.
    pub bias: bool,
    /// Initial weights; biases start at zero, or as PyTorch's default where
    /// the weights do.
    pub init: Init,
}

impl Conv2dConfig {
    /// A square kernel with stride 1, padding that keeps the size (odd
    /// kernels), no bias, and Kaiming fan-out weights.
    pub fn square(kernel: i64) -> Self {
        Self {
            kernel: (kernel, kernel),
            stride: (1, 1),
            padding: (kernel / 2, kernel / 2),
            dilation: (1, 1),
            groups: 1,
            bias: false,
            init: Init::KaimingFanOut,
        }
    }

    /// A square kernel as large as its stride, without padding: ConvNeXt's
    /// stem and down-samplers.
    pub fn patchify(stride: i64) -> Self {
        Self { padding: (0, 0), ..Self::square(stride).stride(stride) }
    }

    /// The same with this stride along both sides.
    pub fn stride(self, stride: i64) -> Self {
        Self { stride: (stride, stride), ..self }
    }

    /// The same with this many groups.
    pub fn groups(self, groups: i64) -> Self {
        Self { groups, ..self }
    }

    /// The same with a bias.
    pub fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// The same with these initial weights.
    pub fn init(self, init: Init) -> Self {
        Self { init, ..self }
    }
}

/// Outputs of a patch up to which a matrix product beats windows: measured on
/// ResNet-50 (x86, AVX-512), where 1, 4 and 16 take 75 %, 60 % and 63 % of the
/// time without, at more memory for more outputs.
const FEW_OUTPUTS: i64 = 4;

/// 2-d convolution; on patches, each sees its visible neighbours' values and
/// zero elsewhere, and only visible outputs are computed.
#[derive(Debug)]
pub struct Conv2d {
    /// `[out, in / groups, kh, kw]`.
    pub(super) weight: Tensor,
    /// `[out]`.
    pub(super) bias: Option<Tensor>,
    pub(super) groups: i64,
    pub(super) sliding: Sliding,
}

impl Conv2d {
    /// Parameters `weight` `[out_chans, in_chans / groups, kh, kw]` and, if
    /// configured, `bias` `[out_chans]`.
    pub fn new(path: &Path, in_chans: i64, out_chans: i64, config: Conv2dConfig) -> Self {
        let Conv2dConfig { kernel, stride, padding, dilation, groups, bias, init } = config;
        let size = [out_chans, in_chans / groups, kernel.0, kernel.1];
        Self {
            weight: init.parameter(path, "weight", &size),
            bias: bias.then(|| init.of_bias(&size).parameter(path, "bias", &[out_chans])),
            groups,
            sliding: Sliding { kernel, stride, padding, dilation },
        }
    }

    /// What a host sees.
    pub(crate) fn module(&self) -> Module {
        let size = self.weight.size();
        let Sliding { kernel, stride, padding, dilation } = self.sliding;
        Module::Conv2d {
            in_channels: size[1] * self.groups,
            out_channels: size[0],
            kernel_size: kernel,
            stride,
            padding,
            dilation,
            groups: self.groups,
            bias: self.bias.is_some(),
        }
    }

    /// The convolution of what [`Recomputed::prepared`] gives, in the type it is
    /// computed in.
    fn convolve(
        &self,
        (x, recipe): (Tensor, Option<Recipe>),
        padding: Size,
        mode: &Mode,
    ) -> Tensor {
        let stride = self.sliding.stride;
        let output = if self.is_3x3(padding)
            && mode.training
            && mode.compute.is_none()
            && tiles::is_faster(&x, &self.weight)
        {
            with_copy(&self.weight, channels_last, |weight| {
                tiles::convolve(&x, weight, self.bias.as_ref())
            })
        } else if self.is_pointwise()
            && x.stride()[1] == 1
            && kernels::is_linear_fast(&x, mode.compute, self.weight.size()[0])
        {
            self.multiply_rows(&strided_rows(&x, stride), mode)
        } else {
            return self.convolve_by_libtorch(x, recipe, padding, mode);
        };
        if let Some(recipe) = recipe {
            kernels::forget(&x, &output, recipe);
        }
        output
    }

    fn convolve_by_libtorch(
        &self,
        x: Tensor,
        recipe: Option<Recipe>,
        padding: Size,
        mode: &Mode,
    ) -> Tensor {
        let Sliding { stride, dilation, .. } = self.sliding;
        let bias = self.bias.as_ref().map(|bias| mode.cast(bias));
        let weights = mode.weights();
        // Kernels lie as a host lays them out; libtorch turns them to the memory format of
        // the map in every pass, which is slower, and so are gradients in another format.
        let plain = |weight: &Tensor| {
            let [stride, padding, dilation] =
                [stride, padding, dilation].map(|(vertical, horizontal)| [vertical, horizontal]);
            x.conv2d(weight, bias.as_ref(), stride, padding, dilation, self.groups)
        };
        with_copy(
            &self.weight,
            move |weight| channels_last(&weights.cast(weight)),
            |weight| match recipe {
                Some(recipe) if x.device() == Device::Cpu => {
                    let geometry = [stride, padding, dilation];
                    kernels::convolution(&x, weight, bias.as_ref(), geometry, self.groups, recipe)
                }
                Some(recipe) => {
                    let output = plain(weight);
                    kernels::forget(&x, &output, recipe);
                    output
                }
                None => plain(weight),
            },
        )
    }

    /// Whether this is a 3×3 convolution of all channels that keeps a grid's
    /// size when it is given `padding`.
    fn is_3x3(&self, padding: Size) -> bool {
        let Sliding { kernel, stride, dilation, .. } = self.sliding;
        (kernel, stride, padding, dilation) == ((3, 3), (1, 1), (1, 1), (1, 1)) && self.groups == 1
    }

    /// The same with its own padding, and without a bias.
    pub(super) fn is_plain_3x3(&self) -> bool {
        self.is_3x3(self.sliding.padding) && self.bias.is_none()
    }

    /// Whether every output depends on one position.
    fn is_pointwise(&self) -> bool {
        let Sliding { kernel, padding, .. } = self.sliding;
        (kernel, padding, self.groups) == ((1, 1), (0, 0), 1)
    }

    /// Whether there is a kernel that reads visible neighbours alone: for
    /// depthwise convolutions that keep the size, on processors.
    fn is_direct(&self, packed: &Tensor) -> bool {
        let channels = packed.size()[1];
        packed.device() == Device::Cpu
            && (self.groups, self.weight.size()[0]) == (channels, channels)
            && self.sliding.keeps_size()
    }

    /// The depthwise convolution, in float32 at least: a narrower type would be
    /// no faster.
    fn convolve_neighbours(
        &self,
        x: Recomputed,
        patch: Size,
        mask: &PatchMask,
        mode: &Mode,
    ) -> Tensor {
        let channels = x.map().channels();
        let neighbours = mask.neighbours(patch, self.sliding.taps(patch));
        let kind = mode.compute.unwrap_or(x.map().kind());
        let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let (weight, bias) =
            (self.weight.to_kind(wide), self.bias.as_ref().map(|bias| bias.to_kind(wide)));
        let rows = move |packed: &Tensor| {
            packed.to_kind(wide).permute([0, 2, 3, 1]).reshape([-1, channels])
        };
        x.consume(rows, |rows| {
            let convolved = neighbours.convolve(rows, &weight, bias.as_ref()).to_kind(kind);
            convolved.view([-1, patch.0, patch.1, channels]).permute([0, 3, 1, 2])
        })
    }

    /// A depthwise convolution does so little arithmetic that reading the
    /// windows can cost more than convolving the whole grid.
    fn is_cheaper_on_grid(&self, packed: &Tensor, patches_in_grid: i64) -> bool {
        let size = packed.size();
        let window = self.sliding.window(patch_size(packed));
        self.groups == size[1]
            && size[0] * window.y.steps * window.x.steps > patches_in_grid * size[2] * size[3]
    }

    /// Whether to compute as one matrix product: always for 1×1 kernels, and
    /// for patches of few outputs, since convolution kernels are made for large
    /// images and the windows of such patches are hardly smaller than the
    /// matrix.
    fn is_matrix_product(&self, packed: &Tensor) -> bool {
        let Sliding { kernel, stride, .. } = self.sliding;
        let (height, width) = patch_size(packed);
        let outputs = height / stride.0 * (width / stride.1);
        self.groups == 1 && (kernel == (1, 1) || outputs <= FEW_OUTPUTS)
    }

    /// `rows` `[N, h, w, kh·kw·in]` to maps `[N, out, h, w]`.
    fn multiply_rows(&self, rows: &Tensor, mode: &Mode) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| mode.cast(bias));
        let weights = mode.weights();
        with_copy(
            &self.weight,
            move |weight| as_matrix(&weights.cast(weight)),
            |weight| kernels::linear(&mode.cast(rows), weight, bias.as_ref()).permute([0, 3, 1, 2]),
        )
    }

    /// The output for a norm, which would keep it: made again where that takes a
    /// product whose rows are shorter than those it saves, of visible patches.
    pub fn for_norm(&self, x: Recomputed, mode: &Mode) -> Recomputed {
        let [outputs, inputs, ..] = self.weight.size()[..] else { unreachable!("four dimensions") };
        let packed = matches!(x.map(), FeatureMap::Patches { .. });
        if !(packed && self.is_pointwise() && self.bias.is_none() && outputs > inputs) {
            return self.consume(x, mode).into();
        }
        let (again, weight) = (x.recipe(), self.weight.detach());
        let (stride, compute) = (self.sliding.stride, mode.compute);
        Recomputed::new(self.consume(x, mode), move || {
            let rows = strided_rows(&cast(&again.follow(), compute), stride);
            let weight = as_matrix(&cast(&weight, compute));
            kernels::linear(&rows, &weight, None).permute([0, 3, 1, 2])
        })
    }
}

/// `tensor` in channels-last memory; itself if it lies there.
fn channels_last(tensor: &Tensor) -> Tensor {
    if is_channels_last(tensor) {
        return tensor.shallow_clone();
    }
    let learned = tensor.requires_grad() && kernels::records_gradients();
    if !learned && tensor.device() == Device::Cpu && tensor.is_contiguous() {
        return kernels::channels_last(tensor);
    }
    tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Whether a map or kernel lies in channels-last memory; the stride of a side of one
/// element says nothing.
fn is_channels_last(tensor: &Tensor) -> bool {
    let (size, stride) = (tensor.size(), tensor.stride());
    let mut dense = 1;
    [1, 3, 2, 0].into_iter().all(|side| {
        let fits = size[side] == 1 || stride[side] == dense;
        dense *= size[side];
        fits
    })
}

/// The kernel `[out, in, kh, kw]` as a matrix `[out, kh·kw·in]`: a view where kernels
/// lie in channels-last memory, or are 1×1.
fn as_matrix(weight: &Tensor) -> Tensor {
    weight.permute([0, 2, 3, 1]).flatten(1, 3)
}

impl Layer for Conv2d {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.consume(x.clone().into(), mode)
    }

    fn consume(&self, x: Recomputed, mode: &Mode) -> FeatureMap {
        let (padding, compute) = (self.sliding.padding, mode.compute);
        slide(
            x,
            |x| self.convolve(x.prepared(move |x| cast(x, compute)), padding, mode),
            |x, patch, mask| {
                let (packed, (rows, cols)) = (x.map().tensor(), mask.patches());
                if self.is_direct(packed) {
                    self.convolve_neighbours(x, patch, mask, mode)
                } else if self.is_cheaper_on_grid(packed, mask.batch() * rows * cols) {
                    let grid = mask.unpack(&mode.cast(packed));
                    mask.pack(&self.convolve((grid, None), padding, mode))
                } else if self.is_matrix_product(packed) {
                    let columns = self.sliding.columns(patch, mask);
                    x.consume(
                        move |x| columns(&cast(x, compute)),
                        |columns| self.multiply_rows(columns, mode),
                    )
                } else {
                    let windows = self.sliding.gather(patch, mask, Border::Zero);
                    let prepared = x.prepared(move |x| windows(&cast(x, compute)));
                    self.convolve(prepared, (0, 0), mode)
                }
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_tensor_is_told_from_its_strides() {
        let plain = |size: [i64; 4]| {
            let count = size.iter().product::<i64>();
            Tensor::arange(count, (Kind::Float, Device::Cpu)).view(size)
        };
        for (size, is_last) in [
            ([2, 3, 4, 5], false),
            ([2, 3, 1, 1], true),
            ([2, 1, 4, 5], true),
            ([1, 3, 1, 5], false),
            ([1, 1, 1, 1], true),
        ] {
            let tensor = plain(size);
            assert_eq!(is_channels_last(&tensor), is_last, "{size:?}");
            let laid_out = channels_last(&tensor);
            assert!(is_channels_last(&laid_out) && laid_out.size() == size, "{size:?}");
            // What lies there already is not copied.
            assert_eq!(laid_out.data_ptr() == tensor.data_ptr(), is_last, "{size:?}");
        }
        for kind in [Kind::BFloat16, Kind::Float, Kind::Double] {
            let kernel = plain([3, 5, 3, 2]).to_kind(kind);
            let learned = kernel.detach().set_requires_grad(true);
            for laid_out in [channels_last(&kernel), channels_last(&learned)] {
                assert!(is_channels_last(&laid_out) && laid_out.equal(&kernel), "{kind:?}");
            }
        }
        // Without gradients their memory is taken again, but not while somebody has it.
        tch::no_grad(|| {
            let (large, small) = (plain([3, 5, 3, 2]), plain([2, 4, 2, 2]) + 100);
            let [first, second] = [&large, &small].map(channels_last);
            assert!(first.equal(&large) && second.equal(&small));
            drop(second);
            let third = channels_last(&(&small * 2));
            assert!(is_channels_last(&third) && third.equal(&(&small * 2)) && first.equal(&large));
        });
        let part = channels_last(&plain([2, 4, 4, 4])).narrow(1, 0, 3);
        assert!(!is_channels_last(&part), "its channels lie among others");
    }
}
