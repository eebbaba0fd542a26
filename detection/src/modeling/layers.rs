//! Convolutions as detectron2 writes them: the norm belongs to the convolution
//! (`conv.weight`, `conv.norm.weight`) and takes its bias's place.
//! Reference: detectron2 `layers/wrappers.py`, fvcore `nn/weight_init.py`.

use backbone::layers::{BatchNorm2d, Conv2d, Conv2dConfig, GroupNorm, Layer};
use backbone::{FeatureMap, Init, Mode};
use tch::Tensor;
use tch::nn::Path;

use super::config::HeadNorm;

/// Groups of a group norm (Wu and He 2018).
const GROUPS: i64 = 32;

/// `c2_xavier_fill`: uniform with variance 1 / fan_in.
pub(crate) fn xavier(fan_in: i64) -> Init {
    Init::Uniform { bound: (3.0 / fan_in as f64).sqrt() }
}

/// Normal with this deviation, not cut.
pub(crate) fn normal(std: f64) -> Init {
    Init::TruncatedNormal { std, bound: f64::MAX }
}

/// A convolution that keeps the size, with its norm, or a bias.
#[derive(Debug)]
pub(crate) struct NormConv {
    conv: Conv2d,
    norm: Option<Box<dyn Layer>>,
}

impl NormConv {
    /// `weight` `[to, from, kernel, kernel]` and `norm.*` or `bias`.
    pub(crate) fn new(
        path: &Path,
        (from, to): (i64, i64),
        kernel: i64,
        norm: HeadNorm,
        init: Init,
    ) -> Self {
        let config = Conv2dConfig { bias: norm == HeadNorm::None, ..Conv2dConfig::square(kernel) };
        let conv = Conv2d::new(path, from, to, config.init(init));
        let path = path / "norm";
        let norm: Option<Box<dyn Layer>> = match norm {
            HeadNorm::None => None,
            HeadNorm::Batch => Some(Box::new(BatchNorm2d::new(&path, to))),
            HeadNorm::Group => Some(Box::new(GroupNorm::new(&path, GROUPS, to))),
        };
        Self { conv, norm }
    }

    /// So many of 3×3, called `name` and their number from 1 under `path`: the first takes `from`
    /// channels, each puts out `width`.
    pub(crate) fn chain(
        path: &Path,
        (name, count): (&str, i64),
        (from, width): (i64, i64),
        norm: HeadNorm,
    ) -> Vec<Self> {
        let conv = |number: i64| {
            let ends = (if number == 1 { from } else { width }, width);
            let path = path / format!("{name}{number}");
            Self::new(&path, ends, 3, norm, Init::KaimingFanOut)
        };
        (1..=count).map(conv).collect()
    }

    /// `x` through one after the other, a ReLU behind each.
    pub(crate) fn forward_chain(chain: &[Self], x: &Tensor, mode: &Mode) -> Tensor {
        chain.iter().fold(x.shallow_clone(), |x, conv| conv.forward(&x, mode).relu())
    }

    /// `[N, from, H, W]` to `[N, to, H, W]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: &Mode) -> Tensor {
        let y = self.conv.forward(&FeatureMap::Grid(x.shallow_clone()), mode);
        match &self.norm {
            Some(norm) => norm.forward(&y, mode).to_grid(),
            None => y.to_grid(),
        }
    }
}

/// The pass `mode` with batch norms on running statistics.
pub(crate) fn on_running_statistics(mode: &Mode) -> Mode {
    Mode {
        training: mode.training,
        compute: mode.compute,
        bf16_weight_grads: mode.bf16_weight_grads,
        drop_path: match &mode.drop_path {
            backbone::DropPathDraws::Off => backbone::DropPathDraws::Off,
            backbone::DropPathDraws::Generator => backbone::DropPathDraws::Generator,
            backbone::DropPathDraws::Table(table) => {
                backbone::DropPathDraws::Table(table.shallow_clone())
            }
        },
        norm_eval: true,
        freeze_at: mode.freeze_at,
        stages: mode.stages,
        sync_batch_norm: None,
    }
}

/// `[N, C, H, W]` in channels-last memory, which convolutions then keep: they
/// are faster in it, and so is reading all channels of a position.
pub(crate) fn channels_last(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// `x` in float32 at least: losses and boxes are not computed in half precision.
pub(crate) fn in_full(x: Tensor) -> Tensor {
    use tch::Kind;
    match x.kind() {
        Kind::BFloat16 | Kind::Half => x.to_kind(Kind::Float),
        _ => x,
    }
}
