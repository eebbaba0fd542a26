//! RegNetY.
//!
//! "Designing Network Design Spaces" (Radosavovic et al. 2020); parameter names
//! are those of timm's `models/regnet.py`.
//!
//! Under a mask, squeeze-and-excitation pools the visible positions of an image
//! alone, so that its gate does not depend on how many are masked.

use tch::nn::Path;

use super::staged::{self, Body, Staged};
use super::{BuildOptions, Cost};
use crate::layers::{
    Activation, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, Layer, Recomputable, SqueezeExcite,
};
use crate::{FeatureMap, Init, Mode, Module};

/// Channels of the stem.
const STEM_WIDTH: i64 = 32;
/// A block's input channels for every channel that its squeeze-and-excitation
/// squeezes to.
const SQUEEZE: i64 = 4;

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Blocks of each stage.
    pub depths: [usize; 4],
    /// Channels of each stage; the bottleneck is no narrower.
    pub widths: [i64; 4],
    /// Channels of a group of the 3×3 convolutions; it divides every width.
    pub group_width: i64,
}

impl Config {
    /// Every block's stage, number in it, input channels and stride, in order.
    fn blocks(&self) -> Vec<BlockShape> {
        let mut in_chans = STEM_WIDTH;
        let mut shapes = Vec::new();
        for (stage, (&count, &width)) in self.depths.iter().zip(&self.widths).enumerate() {
            for index in 0..count {
                let stride = if index == 0 { 2 } else { 1 };
                let groups = width / self.group_width;
                shapes.push(BlockShape { stage, index, in_chans, width, stride, groups });
                in_chans = width;
            }
        }
        shapes
    }

    /// Parameters and multiply-adds with a classifier of `classes` on an image
    /// of `height × width`.
    pub(crate) fn cost(&self, in_chans: i64, classes: i64, height: i64, width: i64) -> Cost {
        let mut cost = Cost::default();
        let mut size = (height / 2, width / 2);
        let add = |cost: &mut Cost, (from, to, config): Convolution, size| {
            cost.convolution(from, to, config, size);
            cost.batch_norm(to);
        };
        add(&mut cost, (in_chans, STEM_WIDTH, stem_config()), size);
        for shape in self.blocks() {
            let [conv1, conv2, conv3] = shape.convolutions();
            add(&mut cost, conv1, size);
            size = (size.0 / shape.stride, size.1 / shape.stride);
            add(&mut cost, conv2, size);
            cost.linear(shape.width, shape.squeezed(), 1);
            cost.linear(shape.squeezed(), shape.width, 1);
            add(&mut cost, conv3, size);
            if let Some(shortcut) = shape.shortcut() {
                add(&mut cost, shortcut, size);
            }
        }
        cost.linear(self.widths[3], classes, 1);
        cost
    }
}

/// Input channels, output channels, and the rest.
type Convolution = (i64, i64, Conv2dConfig);

fn stem_config() -> Conv2dConfig {
    Conv2dConfig::square(3).stride(2)
}

struct BlockShape {
    stage: usize,
    index: usize,
    in_chans: i64,
    width: i64,
    stride: i64,
    groups: i64,
}

impl BlockShape {
    /// Channels between the two layers of the squeeze-and-excitation.
    fn squeezed(&self) -> i64 {
        self.in_chans / SQUEEZE
    }

    fn convolutions(&self) -> [Convolution; 3] {
        let pointwise = Conv2dConfig::square(1);
        // Kaiming fan-out counts the outputs of a group alone, as timm does here.
        let fan_out = 9 * self.width / self.groups;
        let init = Init::normal((2.0 / fan_out as f64).sqrt());
        let grouped = Conv2dConfig::square(3).stride(self.stride).groups(self.groups).init(init);
        [
            (self.in_chans, self.width, pointwise),
            (self.width, self.width, grouped),
            (self.width, self.width, pointwise),
        ]
    }

    fn shortcut(&self) -> Option<Convolution> {
        let changes = self.stride != 1 || self.in_chans != self.width;
        let pointwise = Conv2dConfig::square(1).stride(self.stride);
        changes.then_some((self.in_chans, self.width, pointwise))
    }
}

/// A convolution and its batch norm: timm's `ConvNormAct`, whose activation
/// is given to `forward`.
#[derive(Debug)]
struct ConvNorm {
    conv: Conv2d,
    bn: BatchNorm2d,
}

impl ConvNorm {
    /// Parameters `conv` and `bn` under `path`; the norm's weights start at
    /// `weight`.
    fn new(
        path: &Path,
        (from, to, config): Convolution,
        weight: f64,
        options: &BuildOptions,
    ) -> Self {
        let config = config.init(options.init(config.init));
        Self {
            conv: Conv2d::new(&(path / "conv"), from, to, config),
            bn: BatchNorm2d::with_weight(&(path / "bn"), to, weight),
        }
    }

    fn forward(&self, x: Recomputable, activation: Activation, mode: &Mode) -> Recomputable {
        self.bn.forward_act(activation, self.conv.forward_for_norm(x, mode), mode)
    }

    /// The layers, called as those of `name`.
    fn modules(&self, name: &str) -> [(String, Module); 2] {
        [(format!("{name}.conv"), self.conv.module()), (format!("{name}.bn"), self.bn.module())]
    }
}

/// 1×1, grouped 3×3 and 1×1 convolution with batch norms, ReLU behind the first
/// two, squeeze-and-excitation before the last; then the shortcut and a ReLU.
#[derive(Debug)]
struct Block {
    conv1: ConvNorm,
    conv2: ConvNorm,
    se: SqueezeExcite,
    conv3: ConvNorm,
    downsample: Option<ConvNorm>,
    drop_path: DropPath,
}

impl Block {
    fn new(path: &Path, shape: &BlockShape, drop_path: DropPath, options: &BuildOptions) -> Self {
        let [conv1, conv2, conv3] = shape.convolutions();
        let downsample = shape.shortcut();
        Self {
            conv1: ConvNorm::new(&(path / "conv1"), conv1, 1.0, options),
            conv2: ConvNorm::new(&(path / "conv2"), conv2, 1.0, options),
            se: SqueezeExcite::with_init(
                &(path / "se"),
                shape.width,
                shape.squeezed(),
                options.init(Init::KaimingFanOut),
            ),
            // The last norm starts at 0, so that the block starts as identity.
            conv3: ConvNorm::new(&(path / "conv3"), conv3, 0.0, options),
            downsample: downsample
                .map(|shortcut| ConvNorm::new(&(path / "downsample"), shortcut, 1.0, options)),
            drop_path,
        }
    }
}

impl staged::Block for Block {
    fn modules(&self, name: &str) -> Vec<(String, Module)> {
        let [conv1, conv2, conv3] =
            [("conv1", &self.conv1), ("conv2", &self.conv2), ("conv3", &self.conv3)]
                .map(|(layer, convolution)| convolution.modules(&format!("{name}.{layer}")));
        let downsample =
            self.downsample.iter().flat_map(|layers| layers.modules(&format!("{name}.downsample")));
        let se = self.se.modules(&format!("{name}.se"));
        conv1.into_iter().chain(conv2).chain(se).chain(conv3).chain(downsample).collect()
    }
}

impl Layer for Block {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let linear = Activation::Identity;
        let shortcut = match &self.downsample {
            Some(layers) => layers.forward(x.clone().into(), linear, mode).into_map(),
            None => x.clone(),
        };
        let y = self.conv1.forward(x.clone().into(), Activation::Relu, mode);
        let y = self.conv2.forward(y, Activation::Relu, mode);
        let y = self.se.forward_recomputable(y, mode);
        let y = self.conv3.forward(y, linear, mode).into_map();
        self.drop_path.add_relu(&y, &shortcut, mode)
    }
}

/// A RegNetY without its classifier.
#[derive(Debug)]
pub struct RegNet {
    stem: ConvNorm,
    /// `s1` to `s4`, of blocks `b1`, `b2`, ….
    body: Body,
}

impl RegNet {
    /// A randomly initialised network under `path`.
    pub fn new(path: &Path, config: &Config, options: &BuildOptions) -> Self {
        let body = Body::new(config.blocks(), config.widths, options, |shape, drop_path| {
            let stage = path / format!("s{}", shape.stage + 1);
            let path = stage / format!("b{}", shape.index + 1);
            (shape.stage, Block::new(&path, &shape, drop_path, options))
        });
        let stem = (options.in_chans, STEM_WIDTH, stem_config());
        Self { stem: ConvNorm::new(&(path / "stem"), stem, 1.0, options), body }
    }
}

impl Staged for RegNet {
    fn body(&self) -> &Body {
        &self.body
    }

    fn stage_index(&self, name: &str) -> Option<usize> {
        match name.split('.').next()? {
            "stem" => Some(0),
            stage => stage.strip_prefix('s')?.parse().ok(),
        }
    }

    fn outer_modules(&self) -> Vec<(String, Module)> {
        self.stem.modules("stem").into()
    }

    fn block_name(stage: usize, index: usize) -> String {
        format!("s{}.b{}", stage + 1, index + 1)
    }

    fn stem(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        self.stem.forward(x.clone().into(), Activation::Relu, mode).into_map()
    }
}
