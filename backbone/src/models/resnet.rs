//! ResNet, ResNeXt and wide ResNet.
//!
//! "Deep Residual Learning for Image Recognition" (He et al. 2015), with the
//! stride on the 3×3 convolution; parameter names are those of timm's
//! `models/resnet.py` (and torchvision's).

use tch::nn::Path;

use super::staged::{self, Body, Staged};
use super::{BuildOptions, Cost};
use crate::layers::{
    Activation, BatchNorm2d, Conv2d, Conv2dConfig, DropPath, Layer, MaxPool2d, Recomputable,
};
use crate::{FeatureMap, Init, Mode, Module};

/// The two kinds of residual block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 and 1×1 convolutions, the last four times as wide.
    Bottleneck,
}

impl BlockKind {
    fn expansion(self) -> i64 {
        match self {
            Self::Basic => 1,
            Self::Bottleneck => 4,
        }
    }
}

/// A member of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Kind of every block.
    pub block: BlockKind,
    /// Blocks of each of the four stages.
    pub layers: [usize; 4],
    /// Groups of the bottleneck's 3×3 convolution (cardinality).
    pub groups: i64,
    /// Width of a group in the first stage; 64 for plain ResNets.
    pub base_width: i64,
}

impl Config {
    /// Plain ResNet.
    pub const fn plain(block: BlockKind, layers: [usize; 4]) -> Self {
        Self { block, layers, groups: 1, base_width: 64 }
    }

    /// The same with other groups and group width (ResNeXt, wide ResNet).
    pub const fn grouped(self, groups: i64, base_width: i64) -> Self {
        Self { groups, base_width, ..self }
    }

    /// Output channels of stage 0–3.
    fn out_chans(&self, stage: usize) -> i64 {
        (64 << stage) * self.block.expansion()
    }

    /// Channels between a block's convolutions.
    fn width(&self, stage: usize) -> i64 {
        match self.block {
            BlockKind::Basic => 64 << stage,
            BlockKind::Bottleneck => (64 << stage) * self.base_width / 64 * self.groups,
        }
    }

    /// Every block's stage, input channels, and stride, in order.
    fn blocks(&self) -> Vec<BlockPlan> {
        let mut in_chans = 64;
        let mut plans = Vec::new();
        for (stage, &count) in self.layers.iter().enumerate() {
            for index in 0..count {
                let stride = if index == 0 && stage > 0 { 2 } else { 1 };
                plans.push(BlockPlan { stage, index, in_chans, stride });
                in_chans = self.out_chans(stage);
            }
        }
        plans
    }

    /// The block's convolutions as (in, out, configuration), the shortcut's
    /// apart.
    fn convolutions(&self, plan: &BlockPlan) -> (Vec<Convolution>, Option<Convolution>) {
        let (width, out) = (self.width(plan.stage), self.out_chans(plan.stage));
        let pointwise = Conv2dConfig::square(1);
        let spatial = Conv2dConfig::square(3);
        let main = match self.block {
            BlockKind::Basic => {
                vec![(plan.in_chans, width, spatial.stride(plan.stride)), (width, out, spatial)]
            }
            BlockKind::Bottleneck => vec![
                (plan.in_chans, width, pointwise),
                (width, width, spatial.stride(plan.stride).groups(self.groups)),
                (width, out, pointwise),
            ],
        };
        let changes = plan.stride != 1 || plan.in_chans != out;
        (main, changes.then(|| (plan.in_chans, out, pointwise.stride(plan.stride))))
    }

    /// Parameters and multiply-adds with a classifier of `classes` on an image
    /// of `height × width`.
    pub(crate) fn cost(&self, in_chans: i64, classes: i64, height: i64, width: i64) -> Cost {
        let mut cost = Cost::default();
        let mut size = (height / 2, width / 2);
        cost.convolution(in_chans, 64, STEM, size);
        cost.batch_norm(64);
        size = (size.0 / 2, size.1 / 2);
        for plan in self.blocks() {
            let (main, shortcut) = self.convolutions(&plan);
            for (from, to, config) in main {
                size = (size.0 / config.stride.0, size.1 / config.stride.1);
                cost.convolution(from, to, config, size);
                cost.batch_norm(to);
            }
            if let Some((from, to, config)) = shortcut {
                cost.convolution(from, to, config, size);
                cost.batch_norm(to);
            }
        }
        cost.linear(self.out_chans(3), classes, 1);
        cost
    }
}

type Convolution = (i64, i64, Conv2dConfig);

const STEM: Conv2dConfig = Conv2dConfig {
    kernel: (7, 7),
    stride: (2, 2),
    padding: (3, 3),
    dilation: (1, 1),
    groups: 1,
    bias: false,
    init: Init::KaimingFanOut,
};

struct BlockPlan {
    stage: usize,
    index: usize,
    in_chans: i64,
    stride: i64,
}

/// Basic or bottleneck block: convolutions with batch norms, ReLU between,
/// then the shortcut and a last ReLU.
#[derive(Debug)]
struct Block {
    convolutions: Vec<(Conv2d, BatchNorm2d)>,
    downsample: Option<(Conv2d, BatchNorm2d)>,
    drop_path: DropPath,
}

impl Block {
    fn new(
        path: &Path,
        config: &Config,
        plan: &BlockPlan,
        drop_path: DropPath,
        options: &BuildOptions,
    ) -> Self {
        let (main, shortcut) = config.convolutions(plan);
        let init = options.init(Init::KaimingFanOut);
        let last = main.len();
        let convolutions = main.into_iter().zip(1..).map(|((from, to, conv), number)| {
            // The last norm starts at 0, so that the block starts as identity.
            let weight = if number == last { 0.0 } else { 1.0 };
            (
                Conv2d::new(&(path / format!("conv{number}")), from, to, conv.init(init)),
                BatchNorm2d::with_weight(&(path / format!("bn{number}")), to, weight),
            )
        });
        let convolutions = convolutions.collect();
        let downsample = shortcut.map(|(from, to, conv)| {
            let path = path / "downsample";
            (
                Conv2d::new(&(&path / 0), from, to, conv.init(init)),
                BatchNorm2d::new(&(&path / 1), to),
            )
        });
        Self { convolutions, downsample, drop_path }
    }
}

impl staged::Block for Block {
    fn modules(&self, name: &str) -> Vec<(String, Module)> {
        let convolutions = self.convolutions.iter().zip(1..).flat_map(|((conv, norm), number)| {
            [
                (format!("{name}.conv{number}"), conv.module()),
                (format!("{name}.bn{number}"), norm.module()),
            ]
        });
        let downsample = self.downsample.iter().flat_map(|(conv, norm)| {
            [
                (format!("{name}.downsample.0"), conv.module()),
                (format!("{name}.downsample.1"), norm.module()),
            ]
        });
        convolutions.chain(downsample).collect()
    }
}

/// The convolution and norm whose output is added to the other branch's.
fn last_of_branch(
    (conv, norm): &(Conv2d, BatchNorm2d),
    x: Recomputable,
    mode: &Mode,
) -> FeatureMap {
    norm.forward_act(Activation::Identity, conv.forward_for_norm(x, mode), mode).into_map()
}

impl Layer for Block {
    fn forward(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let shortcut = match &self.downsample {
            Some(layers) => last_of_branch(layers, x.clone().into(), mode),
            None => x.clone(),
        };
        let (last, inner) = self.convolutions.split_last().expect("a block has convolutions");
        let y = inner.iter().fold(Recomputable::from(x.clone()), |y, (conv, norm)| {
            norm.forward_act(Activation::Relu, conv.forward_owned(y, mode).into(), mode)
        });
        let y = last_of_branch(last, y, mode);
        self.drop_path.add_relu(&y, &shortcut, mode)
    }
}

/// A ResNet without its classifier.
#[derive(Debug)]
pub struct ResNet {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    maxpool: MaxPool2d,
    /// `layer1` to `layer4`.
    body: Body,
}

impl ResNet {
    /// A randomly initialised network under `path`.
    pub fn new(path: &Path, config: &Config, options: &BuildOptions) -> Self {
        let channels = [0, 1, 2, 3].map(|stage| config.out_chans(stage));
        let body = Body::new(config.blocks(), channels, options, |plan, drop_path| {
            let path = path / format!("layer{}", plan.stage + 1) / plan.index;
            (plan.stage, Block::new(&path, config, &plan, drop_path, options))
        });
        let stem = STEM.init(options.init(STEM.init));
        Self {
            conv1: Conv2d::new(&(path / "conv1"), options.in_chans, 64, stem),
            bn1: BatchNorm2d::new(&(path / "bn1"), 64),
            maxpool: MaxPool2d::new(3, 2, 1),
            body,
        }
    }
}

impl Staged for ResNet {
    fn body(&self) -> &Body {
        &self.body
    }

    fn stage_index(&self, name: &str) -> Option<usize> {
        let module = name.split('.').next()?;
        match module {
            "conv1" | "bn1" => Some(0),
            _ => module.strip_prefix("layer")?.parse().ok(),
        }
    }

    fn outer_modules(&self) -> Vec<(String, Module)> {
        vec![("conv1".into(), self.conv1.module()), ("bn1".into(), self.bn1.module())]
    }

    fn block_name(stage: usize, index: usize) -> String {
        format!("layer{}.{index}", stage + 1)
    }

    fn stem(&self, x: &FeatureMap, mode: &Mode) -> FeatureMap {
        let x = self.conv1.forward(x, mode);
        let x = self.bn1.forward_act(Activation::Relu, x.into(), mode);
        self.maxpool.forward_owned(x)
    }
}
