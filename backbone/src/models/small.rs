//! Networks of few blocks, for checks of every kind of block in many settings.

use tch::nn::Path;

use super::{
    BlockKind, BuildOptions, ConvNeXt, ConvNeXtConfig, RegNet, RegNetConfig, ResNet, ResNetConfig,
};
use crate::Backbone;

/// What makes a network below a path.
pub type Build = fn(&Path, &BuildOptions) -> Box<dyn Backbone>;

/// One network of each kind of block.
pub const SMALL: [(&str, Build); 6] = [
    ("basic blocks", |path, options| {
        resnet(ResNetConfig::plain(BlockKind::Basic, [1; 4]), path, options)
    }),
    ("bottlenecks", |path, options| {
        resnet(ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]), path, options)
    }),
    ("grouped bottlenecks", |path, options| {
        resnet(ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]).grouped(8, 4), path, options)
    }),
    ("wide bottlenecks", |path, options| {
        resnet(ResNetConfig::plain(BlockKind::Bottleneck, [1; 4]).grouped(1, 96), path, options)
    }),
    ("ConvNeXt blocks", |path, options| {
        Box::new(ConvNeXt::new(path, &ConvNeXtConfig::doubling([1, 1, 2, 1], 12), options))
    }),
    ("RegNet blocks", |path, options| {
        let config =
            RegNetConfig { depths: [1, 2, 1, 1], widths: [16, 24, 32, 48], group_width: 8 };
        Box::new(RegNet::new(path, &config, options))
    }),
];

fn resnet(config: ResNetConfig, path: &Path, options: &BuildOptions) -> Box<dyn Backbone> {
    Box::new(ResNet::new(path, &config, options))
}
