//! ConvNeXt.
//!
//! "A ConvNet for the 2020s" (Liu et al. 2022); parameter names are those of
//! the official repository's `models/convnext.py`.

use tch::nn::Path;

use super::staged::{self, Body, Staged};
use super::{BuildOptions, Cost};
use crate::layers::{
    Activation, Conv2d, Conv2dConfig, DropPath, Layer, LayerNorm2d, LayerScale, Linear,
};
use crate::{FeatureMap, Init, Mode, Module, NormKind};

/// Epsilon of every layer norm.
const EPS: f64 = 1e-6;
/// Initial value of every layer scale.
const LAYER_SCALE_INIT: f64 = 1e-6;

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Blocks of each stage.
    pub depths: [usize; 4],
    /// Channels of each stage.
    pub dims: [i64; 4],
}

impl Config {
    /// Widths double from `dim`.
    pub const fn doubling(depths: [usize; 4], dim: i64) -> Self {
        Self { depths, dims: [dim, dim * 2, dim * 4, dim * 8] }
    }

    /// Parameters and multiply-adds with a classifier of `classes` on an image
    /// of `height × width`.
    pub(crate) fn cost(&self, in_chans: i64, classes: i64, height: i64, width: i64) -> Cost {
        let mut cost = Cost::default();
        let mut from = in_chans;
        for (stage, (&dim, &depth)) in self.dims.iter().zip(&self.depths).enumerate() {
            let size = (height / (4 << stage), width / (4 << stage));
            cost.convolution(from, dim, downsample_config(stage), size);
            cost.layer_norm(if stage == 0 { dim } else { from });
            for _ in 0..depth {
                cost.convolution(dim, dim, depthwise_config(dim), size);
                cost.layer_norm(dim);
                cost.linear(dim, 4 * dim, size.0 * size.1);
                cost.linear(4 * dim, dim, size.0 * size.1);
                cost.params += dim;
            }
            from = dim;
        }
        cost.layer_norm(from);
        cost.linear(from, classes, 1);
        cost
    }
}

fn depthwise_config(dim: i64) -> Conv2dConfig {
    Conv2dConfig::square(7).groups(dim).bias().init(Init::TRUNC_NORMAL_02)
}

fn downsample_config(stage: usize) -> Conv2dConfig {
    Conv2dConfig::patchify(if stage == 0 { 4 } else { 2 }).bias().init(Init::TRUNC_NORMAL_02)
}

/// The numbers of convolution and norm in their `downsample_layers`.
fn downsample_places(stage: usize) -> (usize, usize) {
    if stage == 0 { (0, 1) } else { (1, 0) }
}

/// The stem, or the down-sampler before a later stage.
fn downsample_layer(
    path: &Path,
    stage: usize,
    (from, to): (i64, i64),
    init: Init,
) -> (Conv2d, LayerNorm2d) {
    let (conv, norm) = downsample_places(stage);
    (
        Conv2d::new(&(path / conv), from, to, downsample_config(stage).init(init)),
        LayerNorm2d::new(&(path / norm), if stage == 0 { to } else { from }, EPS),
    )
}

/// 7×7 depthwise convolution, layer norm, and a two-layer perceptron of each
/// position, scaled and added to the input.
#[derive(Debug)]
struct Block {
    dwconv: Conv2d,
    norm: LayerNorm2d,
    pwconv1: Linear,
    pwconv2: Linear,
    gamma: LayerScale,
    drop_path: DropPath,
}

impl Block {
    fn new(path: &Path, dim: i64, drop_path: DropPath, init: Init) -> Self {
        let depthwise = depthwise_config(dim).init(init);
        Self {
            dwconv: Conv2d::new(&(path / "dwconv"), dim, dim, depthwise),
            norm: LayerNorm2d::new(&(path / "norm"), dim, EPS),
            pwconv1: Linear::new(&(path / "pwconv1"), dim, 4 * dim, init),
            pwconv2: Linear::new(&(path / "pwconv2"), 4 * dim, dim, init),
            gamma: LayerScale::new(path, dim, LAYER_SCALE_INIT),
            drop_path,
        }
    }
}

impl staged::Block for Block {
    fn modules(&self, name: &str) -> Vec<(String, Module)> {
        vec![
            (format!("{name}.dwconv"), self.dwconv.module()),
            (format!("{name}.norm"), self.norm.module()),
            (format!("{name}.pwconv1"), self.pwconv1.module()),
            (format!("{name}.pwconv2"), self.pwconv2.module()),
        ]
    }
}

impl Layer for Block {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let y = self.norm.forward_recomputable(&self.dwconv.forward(x, mode));
        let y = Activation::Gelu.forward_owned(self.pwconv1.forward_owned(y, mode).into());
        let y = self.gamma.forward(&self.pwconv2.forward_owned(y, mode), mode);
        self.drop_path.forward(&y, mode).add(x)
    }
}

/// A ConvNeXt without its classifier.
#[derive(Debug)]
pub struct ConvNeXt {
    /// The stem (convolution, norm) and three down-samplers (norm, convolution).
    downsample_layers: Vec<(Conv2d, LayerNorm2d)>,
    body: Body,
}

impl ConvNeXt {
    /// A randomly initialised network under `path`. Besides what the pyramid
    /// uses, the classifier's `norm` is kept, as the official encoder has it.
    pub fn new(path: &Path, config: &Config, options: &BuildOptions) -> Self {
        let init = options.init(Init::TRUNC_NORMAL_02);
        let mut from = options.in_chans;
        let mut downsample_layers = Vec::new();
        let stages = config.depths.iter().enumerate();
        let places = stages.flat_map(|(stage, &depth)| (0..depth).map(move |index| (stage, index)));
        let places: Vec<(usize, usize)> = places.collect();
        let body = Body::new(places, config.dims, options, |(stage, index), drop_path| {
            let dim = config.dims[stage];
            if index == 0 {
                let path = path / "downsample_layers" / stage;
                downsample_layers.push(downsample_layer(&path, stage, (from, dim), init));
                from = dim;
            }
            (stage, Block::new(&(path / "stages" / stage / index), dim, drop_path, init))
        });
        LayerNorm2d::new(&(path / "norm"), from, EPS);
        Self { downsample_layers, body }
    }
}

impl Staged for ConvNeXt {
    const NORM: NormKind = NormKind::Layer;

    fn body(&self) -> &Body {
        &self.body
    }

    /// A down-sampler belongs to the stage behind it, the norm that only a
    /// classifier uses to the last.
    fn stage_index(&self, name: &str) -> Option<usize> {
        let mut parts = name.split('.');
        let module = parts.next()?;
        let mut number = || parts.next()?.parse::<usize>().ok();
        match module {
            "downsample_layers" => match number()? {
                0 => Some(0),
                stage => Some(stage + 1),
            },
            "stages" => Some(number()? + 1),
            "norm" => Some(4),
            _ => None,
        }
    }

    /// No map depends on the classifier's norm.
    fn is_used(&self, name: &str) -> bool {
        !name.starts_with("norm.")
    }

    fn outer_modules(&self) -> Vec<(String, Module)> {
        let layers = self.downsample_layers.iter().enumerate();
        let downsample = layers.flat_map(|(stage, (conv, norm))| {
            let (first, second) = downsample_places(stage);
            [
                (format!("downsample_layers.{stage}.{first}"), conv.module()),
                (format!("downsample_layers.{stage}.{second}"), norm.module()),
            ]
        });
        downsample.collect()
    }

    fn block_name(stage: usize, index: usize) -> String {
        format!("stages.{stage}.{index}")
    }

    fn enter(&self, stage: usize, x: FeatureMap, mode: &Mode) -> FeatureMap {
        let (conv, norm) = &self.downsample_layers[stage];
        if stage == 0 {
            norm.forward(&conv.forward(&x, mode), mode)
        } else {
            conv.forward(&norm.forward(&x, mode), mode)
        }
    }
}
