//! mmpretrain's ConvNeXt, which mmdet uses too. The norm behind the last stage
//! is `norm3`, since any stage may have one. Their ResNet has the canonical names.
//! Reference: mmpretrain `models/backbones/convnext.py`.

use super::{BlockLayer, ConvNeXtPart, affine, resnet};

const LAYERS: [&str; 4] = ["depthwise_conv", "norm", "pointwise_conv1", "pointwise_conv2"];

pub(super) fn to(part: &ConvNeXtPart) -> Option<String> {
    Some(match *part {
        ConvNeXtPart::Block { stage, block, layer, parameter } => {
            format!("stages.{stage}.{block}.{}.{parameter}", layer.name(LAYERS))
        }
        ConvNeXtPart::Norm { parameter } => format!("norm3.{parameter}"),
        ConvNeXtPart::Head { parameter } => format!("head.fc.{parameter}"),
        _ => part.canonical(),
    })
}

pub(super) fn from(name: &str) -> Option<ConvNeXtPart<'_>> {
    let parts: Vec<&str> = name.split('.').collect();
    match parts[..] {
        ["stages", stage, block, layer, parameter] => {
            ConvNeXtPart::block(stage, block, BlockLayer::find(LAYERS, layer)?, parameter)
        }
        ["norm3", parameter] => Some(ConvNeXtPart::Norm { parameter: affine(parameter)? }),
        ["head", "fc", parameter] => Some(ConvNeXtPart::Head { parameter: affine(parameter)? }),
        ["norm" | "head", ..] => None,
        _ => ConvNeXtPart::parse(name),
    }
}

/// A classifier of mmpretrain calls its last layer `head.fc`.
pub(super) fn resnet_from(name: &str) -> Option<String> {
    resnet(name.strip_prefix("head.").filter(|rest| rest.starts_with("fc.")).unwrap_or(name))
        .map(str::to_owned)
}
