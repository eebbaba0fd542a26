//! 2-d convolution.

mod layout;
mod plan;

use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use self::layout::{as_matrix, channels_last};
use self::plan::ConvPlan;
use super::recompute::with_copy;
use super::sliding::{Sliding, slide, strided_rows};
use super::{Layer, Recomputable, tiles};
use crate::kernels::{self, RecomputeFn};
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
            sliding: Sliding { kernel, stride, padding, padding_after: padding, dilation },
        }
    }

    /// The convolution by these tensors, a parameter or what was computed of one.
    pub(crate) fn by(weight: Tensor, bias: Option<Tensor>, groups: i64, sliding: Sliding) -> Self {
        Self { weight, bias, groups, sliding }
    }

    /// What a host sees.
    pub(crate) fn module(&self) -> Module {
        let size = self.weight.size();
        let Sliding { kernel, stride, padding, dilation, .. } = self.sliding;
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

    /// The convolution of a map that nobody else needs, so that it is not kept
    /// for the backward pass where it can be recomputed.
    pub(crate) fn forward_owned(&self, x: Recomputable, mode: &Mode) -> FeatureMap {
        let plan = self.plan(x.map(), mode);
        slide(
            x,
            |x| self.on_grid(plan, x, mode),
            |x, patch, mask| self.on_patches(plan, x, patch, mask, mode),
        )
    }

    /// [`Conv2d::forward_owned`] for a norm, which would keep the output: it is
    /// recomputed where that takes a product whose rows are shorter than those it
    /// saves, of visible patches.
    pub(crate) fn forward_for_norm(&self, x: Recomputable, mode: &Mode) -> Recomputable {
        let [outputs, inputs, ..] = self.weight.size()[..] else { unreachable!("four dimensions") };
        let packed = matches!(x.map(), FeatureMap::Patches { .. });
        if !(packed && self.is_pointwise() && self.bias.is_none() && outputs > inputs) {
            return self.forward_owned(x, mode).into();
        }
        let (input, weight) = (x.recompute_fn(), self.weight.detach());
        let (stride, compute) = (self.sliding.stride, mode.compute);
        Recomputable::new(self.forward_owned(x, mode), move || {
            let rows = strided_rows(&cast(&input.call(), compute), stride);
            let weight = as_matrix(&cast(&weight, compute));
            kernels::linear(&rows, &weight, None).permute([0, 3, 1, 2])
        })
    }

    /// `[N, in, H, W]` to `[N, out, H', W']`.
    fn on_grid(&self, plan: ConvPlan, x: Recomputable, mode: &Mode) -> Tensor {
        let compute = mode.compute;
        let (x, recompute) = x.prepared(move |x| cast(x, compute));
        let output = match plan {
            ConvPlan::Tiles => with_copy(&self.weight, channels_last, |weight| {
                tiles::convolve(&x, weight, self.bias.as_ref())
            }),
            ConvPlan::MatrixProduct => {
                self.multiply_rows(&strided_rows(&x, self.sliding.stride), mode)
            }
            _ if !self.sliding.is_symmetric() => {
                let padded = x.constant_pad_nd(self.sliding.pads());
                return self.by_libtorch(padded, None, (0, 0), mode);
            }
            _ => return self.by_libtorch(x, recompute, self.sliding.padding, mode),
        };
        if let Some(recompute) = recompute {
            kernels::free_and_recompute(&x, &output, recompute);
        }
        output
    }

    /// Visible patches `[V, in, p, q]` to `[V, out, p', q']`.
    fn on_patches(
        &self,
        plan: ConvPlan,
        x: Recomputable,
        patch: Size,
        mask: &PatchMask,
        mode: &Mode,
    ) -> Tensor {
        let compute = mode.compute;
        match plan {
            ConvPlan::Direct => self.by_neighbours(x, patch, mask, mode),
            ConvPlan::OnGrid => {
                let grid = mask.unpack(&mode.cast(x.map().tensor()));
                let (grid, padding) = match self.sliding.is_symmetric() {
                    true => (grid, self.sliding.padding),
                    false => (grid.constant_pad_nd(self.sliding.pads()), (0, 0)),
                };
                mask.pack(&self.by_libtorch(grid, None, padding, mode))
            }
            ConvPlan::MatrixProduct => {
                let columns = self.sliding.columns(patch, mask);
                x.apply(
                    move |x| columns(&cast(x, compute)),
                    |columns| self.multiply_rows(columns, mode),
                )
            }
            ConvPlan::GroupedProduct => {
                let (columns, groups) = (self.sliding.columns(patch, mask), self.groups);
                let channels = x.map().channels();
                x.apply(
                    move |x| rows_of_groups(&columns(&cast(x, compute)), channels, groups),
                    |rows| self.multiply_groups(rows, mode),
                )
            }
            _ => {
                let windows = self.sliding.gather(patch, mask, Border::Zero);
                let (x, recompute) = x.prepared(move |x| windows(&cast(x, compute)));
                self.by_libtorch(x, recompute, (0, 0), mode)
            }
        }
    }

    /// Of a map in the type that it is computed in.
    fn by_libtorch(
        &self,
        x: Tensor,
        recompute: Option<RecomputeFn>,
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
            |weight| match recompute {
                Some(recompute) if x.device() == Device::Cpu => {
                    let geometry = [stride, padding, dilation];
                    let bias = bias.as_ref();
                    kernels::convolution(&x, weight, bias, geometry, self.groups, recompute)
                }
                Some(recompute) => {
                    let output = plain(weight);
                    kernels::free_and_recompute(&x, &output, recompute);
                    output
                }
                None => plain(weight),
            },
        )
    }

    /// The depthwise convolution, in float32 at least: a narrower type would be
    /// no faster.
    fn by_neighbours(&self, x: Recomputable, patch: Size, mask: &PatchMask, mode: &Mode) -> Tensor {
        let channels = x.map().channels();
        let neighbours = mask.neighbours(patch, self.sliding.taps(patch));
        let kind = mode.compute.unwrap_or(x.map().kind());
        let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let (weight, bias) =
            (self.weight.to_kind(wide), self.bias.as_ref().map(|bias| bias.to_kind(wide)));
        let rows = move |packed: &Tensor| {
            packed.to_kind(wide).permute([0, 2, 3, 1]).reshape([-1, channels])
        };
        x.apply(rows, |rows| {
            let convolved = neighbours.convolve(rows, &weight, bias.as_ref()).to_kind(kind);
            convolved.view([-1, patch.0, patch.1, channels]).permute([0, 3, 1, 2])
        })
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

    /// `rows` `[groups, V, kh·kw·in / groups]`, of patches with one output each, to
    /// `[V, out, 1, 1]`.
    fn multiply_groups(&self, rows: &Tensor, mode: &Mode) -> Tensor {
        let (weights, groups) = (mode.weights(), self.groups);
        let product = with_copy(
            &self.weight,
            move |weight| as_matrix(&weights.cast(weight)).unflatten(0, [groups, -1]),
            |weight| rows.bmm(&weight.transpose(1, 2)).permute([1, 0, 2]).flatten(1, 2),
        );
        let product = match &self.bias {
            Some(bias) => product + mode.cast(bias),
            None => product,
        };
        product.unsqueeze(-1).unsqueeze(-1)
    }
}

/// Rows `[V, 1, 1, kh·kw·in]` of all `channels`, apart for each group:
/// `[groups, V, kh·kw·in / groups]`.
fn rows_of_groups(rows: &Tensor, channels: i64, groups: i64) -> Tensor {
    rows.reshape([rows.size()[0], -1, groups, channels / groups])
        .permute([2, 0, 1, 3])
        .flatten(2, 3)
}

impl Layer for Conv2d {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.forward_owned(x.clone().into(), mode)
    }
}
