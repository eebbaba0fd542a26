//! torchvision's ConvNeXt: one list of features, in which stem, stages and
//! down-samplers alternate. Its ResNet has the canonical names. Both are often taken
//! apart, `nn.Sequential(*model.children())`, which leaves numbers in place of names
//! (lightly's backbones among them).
//! Reference: torchvision `models/convnext.py`.

use super::{BlockLayer, ConvNeXtPart, affine, number, resnet};

/// Indices within a block; the rest of them are permutations and the GELU.
const LAYERS: [&str; 4] = ["0", "2", "3", "5"];

pub(super) fn to(part: &ConvNeXtPart) -> Option<String> {
    Some(match *part {
        ConvNeXtPart::Down { stage, layer, parameter } => {
            format!("features.{}.{layer}.{parameter}", 2 * stage)
        }
        ConvNeXtPart::Block { stage, block, layer, parameter } => {
            let layer = layer.name(LAYERS);
            format!("features.{}.{block}.block.{layer}.{parameter}", 2 * stage + 1)
        }
        ConvNeXtPart::Scale { stage, block } => {
            format!("features.{}.{block}.layer_scale", 2 * stage + 1)
        }
        ConvNeXtPart::Norm { parameter } => format!("classifier.0.{parameter}"),
        ConvNeXtPart::Head { parameter } => format!("classifier.2.{parameter}"),
    })
}

/// A ResNet's children are `conv1`, `bn1`, ReLU and pooling, then the four stages;
/// timm's are the same.
pub(super) fn resnet_from(name: &str) -> Option<String> {
    let (child, rest) = name.split_once('.')?;
    let is_parameter = !rest.contains('.');
    match number(child) {
        Some(0) if is_parameter => Some(format!("conv1.{rest}")),
        Some(1) if is_parameter => Some(format!("bn1.{rest}")),
        Some(stage @ 4..=7) => resnet(&format!("layer{}.{rest}", stage - 3)).map(str::to_owned),
        Some(_) => None,
        None => resnet(name).map(str::to_owned),
    }
}

pub(super) fn from(name: &str) -> Option<ConvNeXtPart<'_>> {
    let mut parts: Vec<&str> = name.split('.').collect();
    if parts[0] == "0" {
        // The first child of a model that was taken apart.
        parts[0] = "features";
    }
    match parts[..] {
        ["features", index, layer, parameter @ ("weight" | "bias")] => {
            ConvNeXtPart::down(&half(index, 0)?, layer, parameter)
        }
        ["features", index, block, "layer_scale"] => ConvNeXtPart::scale(&half(index, 1)?, block),
        ["features", index, block, "block", layer, parameter] => {
            let layer = BlockLayer::find(LAYERS, layer)?;
            ConvNeXtPart::block(&half(index, 1)?, block, layer, parameter)
        }
        ["classifier", "0", parameter] => {
            Some(ConvNeXtPart::Norm { parameter: affine(parameter)? })
        }
        ["classifier", "2", parameter] => {
            Some(ConvNeXtPart::Head { parameter: affine(parameter)? })
        }
        _ => None,
    }
}

/// The stage of the feature `index`: down-samplers are even (`parity` 0),
/// stages are odd.
fn half(index: &str, parity: usize) -> Option<String> {
    let index = number(index).filter(|index| index % 2 == parity)?;
    Some((index / 2).to_string())
}
