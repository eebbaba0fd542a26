//! Batch, layer and group norm over visible positions.

use tch::nn::Path;
use tch::{Device, Kind, Tensor};

use super::{Activation, Layer, Recomputable};
use crate::{Error, FeatureMap, Init, Mode, Module, NormControl, NormKind, Result, kernels};

/// The share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;
/// What a batch norm adds to the variance before its root.
const EPS: f64 = 1e-5;
/// The same of [`NormKind::Layer`].
const LAYER_NORM_EPS: f64 = 1e-6;

/// Refuses to let a batch norm learn from one value a channel: there is no unbiased
/// variance of it (PyTorch's `_verify_batch_size`). `size` is the norm's input
/// `[N, C, H, W]`, `input` what the caller gave for it. Norms that share their
/// statistics have other processes' values besides.
///
/// # Errors
/// [`Error::Invalid`] naming both.
pub fn check_batch_statistics(input: &str, size: &[i64], mode: &Mode) -> Result<()> {
    let alone = mode.uses_batch_statistics() && mode.sync_batch_norm.is_none();
    if alone { check_values(input, size) } else { Ok(()) }
}

/// [`check_batch_statistics`] of a norm that uses its own batch's.
pub(crate) fn check_values(input: &str, size: &[i64]) -> Result<()> {
    let values: i64 = size[..1].iter().chain(&size[2..]).product();
    if values != 1 {
        return Ok(());
    }
    let rule = format!(
        "batch norm expected more than 1 value per channel when training, got input size \
         {size:?}: give more or larger images, or run the norms on their running statistics"
    );
    Err(Error::invalid("input", input, rule))
}

/// `weight` `[C]`, every value of which starts at `start`, and `bias` `[C]` under `path`.
fn affine(path: &Path, channels: i64, start: f64) -> [Tensor; 2] {
    [("weight", start), ("bias", 0.0)]
        .map(|(name, value)| Init::Constant(value).parameter(path, name, &[channels]))
}

/// `torch.nn.BatchNorm2d` with momentum 0.1 and eps 1e-5; statistics are of
/// visible positions alone, or those of all processes with [`Mode::sync_batch_norm`].
#[derive(Debug)]
pub struct BatchNorm2d {
    /// Weight and bias `[C]`, unless it only normalises.
    affine: Option<[Tensor; 2]>,
    /// `[C]`.
    running_mean: Tensor,
    /// `[C]`.
    running_var: Tensor,
    /// Scalar, int64: forwards in training mode.
    num_batches_tracked: Option<Tensor>,
    momentum: f64,
    eps: f64,
    /// How the host runs it.
    control: NormControl,
}

/// The tensors and numbers of a [`BatchNorm2d`] that was made elsewhere.
#[derive(Debug)]
pub(crate) struct BatchNormParts {
    /// Weight and bias `[C]`.
    pub affine: Option<[Tensor; 2]>,
    /// Mean and variance `[C]`.
    pub running: [Tensor; 2],
    pub num_batches_tracked: Option<Tensor>,
    pub momentum: f64,
    pub eps: f64,
}

impl BatchNorm2d {
    /// Weight 1, bias 0.
    pub fn new(path: &Path, channels: i64) -> Self {
        Self::with_weight(path, channels, 1.0)
    }

    /// Every weight starts at `weight`: 0 makes a residual block start as the
    /// identity.
    pub fn with_weight(path: &Path, channels: i64, weight: f64) -> Self {
        let size = [channels];
        let tracked = Tensor::zeros([0; 0], (Kind::Int64, path.device()));
        Self {
            affine: Some(affine(path, channels, weight)),
            running_mean: Init::Constant(0.0).buffer(path, "running_mean", &size),
            running_var: Init::Constant(1.0).buffer(path, "running_var", &size),
            num_batches_tracked: Some(path.add("num_batches_tracked", tracked, false)),
            momentum: MOMENTUM,
            eps: EPS,
            control: NormControl::default(),
        }
    }

    /// The norm of these tensors.
    pub(crate) fn by(parts: BatchNormParts) -> Self {
        let BatchNormParts { affine, running, num_batches_tracked, momentum, eps } = parts;
        let [running_mean, running_var] = running;
        let control = NormControl::default();
        Self { affine, running_mean, running_var, num_batches_tracked, momentum, eps, control }
    }

    /// Weight and bias; ones and zeros where it only normalises.
    fn affine(&self) -> [Tensor; 2] {
        match &self.affine {
            Some(affine) => affine.each_ref().map(Tensor::shallow_clone),
            None => [self.running_mean.ones_like(), self.running_mean.zeros_like()],
        }
    }

    /// `activation` of the normalised map, for one layer, which need not keep it
    /// for the backward pass.
    pub(crate) fn forward_act(
        &self,
        activation: Activation,
        x: Recomputable,
        mode: &Mode,
    ) -> Recomputable {
        let map = x.map();
        let fused = self.uses_batch_statistics(mode)
            && mode.sync_batch_norm.is_none()
            && !matches!(map, FeatureMap::Masked { .. })
            && kernels::is_batch_norm_fused(map.tensor(), self.running_mean.kind());
        match activation.bounds() {
            Some(bounds) if fused => self.clamped(bounds, x),
            _ => activation.forward_in_place(self.normalised(map, mode)).into(),
        }
    }

    /// The normalised map, for one layer, which need not keep it.
    fn forward_recomputable(&self, x: &FeatureMap, mode: &Mode) -> Recomputable {
        self.forward_act(Activation::Identity, x.clone().into(), mode)
    }

    /// The normalised map, clamped, by kernels of our own.
    fn clamped(&self, bounds: [f64; 2], x: Recomputable) -> Recomputable {
        refuse_one_value(x.map());
        self.count();
        let running = [&self.running_mean, &self.running_var];
        let statistics =
            kernels::batch_statistics(x.map().tensor(), running, self.momentum(), self.eps);
        let affine = self.affine();
        let affine = affine.each_ref();
        let input = x.recompute_fn();
        let map =
            x.apply_to_map(|map| map.map(|x| kernels::batch_norm(x, affine, &statistics, bounds)));
        let [weight, bias] = affine.map(Tensor::detach);
        Recomputable::new(map, move || {
            kernels::batch_norm(&input.call(), [&weight, &bias], &statistics, bounds)
        })
    }

    /// What a host sees.
    pub(crate) fn module(&self) -> Module {
        let control = self.control.clone();
        let num_features = self.running_mean.size()[0];
        Module::BatchNorm2d { num_features, eps: self.eps, momentum: self.momentum, control }
    }

    /// Whether it uses the batch's statistics.
    fn uses_batch_statistics(&self, mode: &Mode) -> bool {
        self.control.uses_batch_statistics(mode)
    }

    /// The share of this batch in the running statistics, once it is counted.
    fn momentum(&self) -> f64 {
        self.control.momentum(self.momentum, self.num_batches_tracked.as_ref())
    }

    /// Counts a forward in training mode.
    fn count(&self) {
        if let Some(count) = &self.num_batches_tracked {
            let _ = count.shallow_clone().g_add_scalar_(1);
        }
    }

    /// The normalised map by libtorch's operators, or those of several processes.
    fn normalised(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let uses_batch = self.uses_batch_statistics(mode);
        if uses_batch {
            if mode.sync_batch_norm.is_none() {
                refuse_one_value(x);
            }
            self.count();
        }
        if let (true, Some(sync)) = (uses_batch, &mode.sync_batch_norm) {
            let affine = self.affine();
            let running = [&self.running_mean, &self.running_var];
            let momentum = self.momentum();
            return x.map_visible(|x| {
                sync.batch_norm(x, affine.each_ref(), running, momentum, self.eps)
            });
        }
        let momentum = if uses_batch { self.momentum() } else { self.momentum };
        x.map_visible(|x| {
            x.batch_norm(
                self.affine.as_ref().map(|[weight, _]| weight),
                self.affine.as_ref().map(|[_, bias]| bias),
                Some(&self.running_mean),
                Some(&self.running_var),
                uses_batch,
                momentum,
                self.eps,
                true,
            )
        })
    }
}

/// Layers have no other way to refuse; a backbone's boundary refuses before.
fn refuse_one_value(x: &FeatureMap) {
    let size = x.visible_size();
    if let Err(refusal) = check_values(&format!("{size:?}"), &size) {
        panic!("{refusal}");
    }
}

impl Layer for BatchNorm2d {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.forward_recomputable(x, mode).into_map()
    }
}

/// Layer norm over the channels of each position (`channels_first` of the
/// official ConvNeXt).
#[derive(Debug)]
pub struct LayerNorm2d {
    /// `[C]`.
    weight: Tensor,
    /// `[C]`.
    bias: Tensor,
    eps: f64,
}

impl LayerNorm2d {
    /// Weight 1, bias 0.
    pub fn new(path: &Path, channels: i64, eps: f64) -> Self {
        let [weight, bias] = affine(path, channels, 1.0);
        Self { weight, bias, eps }
    }

    /// The norm of these tensors.
    pub(crate) fn by(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// What a host sees.
    pub(crate) fn module(&self) -> Module {
        Module::LayerNorm { normalized_shape: self.weight.size()[0], eps: self.eps }
    }

    /// The normalised map, for one layer, which need not keep it for the
    /// backward pass.
    pub(crate) fn forward_recomputable(&self, x: &FeatureMap) -> Recomputable {
        let [kept, weight, bias] = [x.tensor(), &self.weight, &self.bias].map(Tensor::detach);
        let eps = self.eps;
        let map = x.map(|x| layer_norm(x, &self.weight, &self.bias, eps));
        Recomputable::new(map, move || layer_norm(&kept, &weight, &bias, eps))
    }
}

/// Of a map `[N, C, H, W]`.
fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    // CUDA's kernel wants one type for input and weights; the CPU's takes
    // half-precision input and computes in float32.
    let mixed = x.kind() != weight.kind() && x.device() != Device::Cpu;
    let input = if mixed { x.to_kind(weight.kind()) } else { x.shallow_clone() };
    input
        .permute([0, 2, 3, 1])
        .layer_norm(weight.size(), Some(weight), Some(bias), eps, true)
        .permute([0, 3, 1, 2])
}

impl Layer for LayerNorm2d {
    fn forward(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        x.map(|x| layer_norm(x, &self.weight, &self.bias, self.eps))
    }
}

/// The norm of a [`NormKind`].
#[derive(Debug)]
pub enum Norm {
    /// Over visible positions.
    Batch(BatchNorm2d),
    /// Over the channels of a position.
    Layer(LayerNorm2d),
}

impl Norm {
    /// Weight 1, bias 0.
    pub fn new(path: &Path, kind: NormKind, channels: i64) -> Self {
        match kind {
            NormKind::Batch => Self::Batch(BatchNorm2d::new(path, channels)),
            NormKind::Layer => Self::Layer(LayerNorm2d::new(path, channels, LAYER_NORM_EPS)),
        }
    }

    /// The normalised map, for one layer, which need not keep it for the
    /// backward pass.
    pub(super) fn forward_recomputable(&self, x: &FeatureMap, mode: &Mode) -> Recomputable {
        match self {
            Self::Batch(norm) => norm.forward_recomputable(x, mode),
            Self::Layer(norm) => norm.forward_recomputable(x),
        }
    }
}

impl Layer for Norm {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        match self {
            Self::Batch(norm) => norm.forward(x, mode),
            Self::Layer(norm) => norm.forward(x, mode),
        }
    }
}

/// `torch.nn.GroupNorm`; statistics are of an image's visible positions.
#[derive(Debug)]
pub struct GroupNorm {
    /// `[C]`.
    weight: Tensor,
    /// `[C]`.
    bias: Tensor,
    groups: i64,
    eps: f64,
}

impl GroupNorm {
    /// Weight 1, bias 0, eps 1e-5.
    pub fn new(path: &Path, groups: i64, channels: i64) -> Self {
        let [weight, bias] = affine(path, channels, 1.0);
        Self { weight, bias, groups, eps: 1e-5 }
    }

    /// Means of `values` (like `x`'s tensor) over each image's visible
    /// positions and each group's channels, repeated for every patch and
    /// channel: `[V, C, 1, 1]`.
    fn group_means(&self, x: &FeatureMap, values: &Tensor) -> Tensor {
        let per_group = x.channels() / self.groups;
        let sums = values.sum_dim_intlist([2, 3].as_slice(), false, None);
        let sums = sums.view([-1, self.groups, per_group]).sum_dim_intlist(2, false, None);
        let count = x.positions_per_image(values.kind()) * per_group;
        let means = x.sum_images(&sums) / count.unsqueeze(1);
        let rows = match x.mask() {
            Some(mask) => means.index_select(0, mask.image_of_patch()),
            None => means,
        };
        rows.repeat_interleave_self_int(per_group, 1, None).unsqueeze(-1).unsqueeze(-1)
    }

    fn on_patches(&self, x: &FeatureMap) -> FeatureMap {
        let wide = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        x.map(|packed| {
            let values = packed.to_kind(wide);
            // Two passes: the mean of squares minus the squared mean cancels.
            let centred = &values - self.group_means(x, &values);
            let variance = self.group_means(x, &(&centred * &centred));
            let weight = self.weight.view([1, -1, 1, 1]);
            let bias = self.bias.view([1, -1, 1, 1]);
            (centred * (variance + self.eps).rsqrt() * weight + bias).to_kind(packed.kind())
        })
    }
}

impl Layer for GroupNorm {
    fn forward(&self, x: &FeatureMap, _mode: &Mode) -> FeatureMap {
        match x {
            FeatureMap::Grid(_) => x.map(|x| {
                x.group_norm(self.groups, Some(&self.weight), Some(&self.bias), self.eps, true)
            }),
            FeatureMap::Patches { .. } => self.on_patches(x),
            FeatureMap::Masked { grid, mask } => {
                let patches = FeatureMap::Patches { packed: mask.pack(grid), mask: mask.clone() };
                let grid = self.on_patches(&patches).to_grid();
                FeatureMap::Masked { grid, mask: mask.clone() }
            }
        }
    }
}
