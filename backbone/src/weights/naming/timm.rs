//! timm's ConvNeXt; its ResNet has the canonical names.
//! Reference: timm `models/convnext.py`.

use super::{BlockLayer, ConvNeXtPart, affine};

const LAYERS: [&str; 4] = ["conv_dw", "norm", "mlp.fc1", "mlp.fc2"];

pub(super) fn to(part: &ConvNeXtPart) -> Option<String> {
    Some(match *part {
        ConvNeXtPart::Down { stage: 0, layer, parameter } => format!("stem.{layer}.{parameter}"),
        ConvNeXtPart::Down { stage, layer, parameter } => {
            format!("stages.{stage}.downsample.{layer}.{parameter}")
        }
        ConvNeXtPart::Block { stage, block, layer, parameter } => {
            format!("stages.{stage}.blocks.{block}.{}.{parameter}", layer.name(LAYERS))
        }
        ConvNeXtPart::Scale { stage, block } => format!("stages.{stage}.blocks.{block}.gamma"),
        ConvNeXtPart::Norm { parameter } => format!("head.norm.{parameter}"),
        ConvNeXtPart::Head { parameter } => format!("head.fc.{parameter}"),
    })
}

/// Understands `stem_0.…` and `stages_0.…` too: what a `features_only` model
/// calls its modules. And `0.…`, `1.…`: the first children of a model that was taken
/// apart.
pub(super) fn from(name: &str) -> Option<ConvNeXtPart<'_>> {
    let mut parts: Vec<&str> = name.split('.').collect();
    if let Some((module @ ("stem" | "stages"), index)) = parts[0].split_once('_') {
        parts.splice(0..1, [module, index]);
    }
    match parts[0] {
        "0" => parts[0] = "stem",
        "1" => parts[0] = "stages",
        _ => {}
    }
    match parts[..] {
        ["stem", layer, parameter] => ConvNeXtPart::down("0", layer, parameter),
        ["stages", stage, "downsample", layer, parameter] if stage != "0" => {
            ConvNeXtPart::down(stage, layer, parameter)
        }
        ["stages", stage, "blocks", block, "gamma"] => ConvNeXtPart::scale(stage, block),
        ["stages", stage, "blocks", block, ref layer @ .., parameter] => {
            let layer = BlockLayer::find(LAYERS, &layer.join("."))?;
            ConvNeXtPart::block(stage, block, layer, parameter)
        }
        ["head", "norm", parameter] => Some(ConvNeXtPart::Norm { parameter: affine(parameter)? }),
        ["head", "fc", parameter] => Some(ConvNeXtPart::Head { parameter: affine(parameter)? }),
        _ => None,
    }
}
