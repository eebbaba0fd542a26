//! What a tensor is called elsewhere. A model's own names are the *canonical*
//! ones: timm's for a ResNet or RegNet, the official repository's for a ConvNeXt. Each
//! naming is a pair of pure functions between those and its own.

mod detectron2;
mod mmdet;
mod regnet;
mod timm;
mod torchvision;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use crate::Error;
use crate::models::Family;

/// Channels of the first stage of ConvNeXt-T; each stage has twice those before.
const TINY_WIDTH: i64 = 96;

/// A framework's way to name tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Naming {
    /// timm: `layer1.0.conv1`, `stages.0.blocks.0.conv_dw`.
    Timm,
    /// The papers' own code: `layer1.0.conv1`, `stages.0.0.dwconv`; for a RegNet,
    /// whose authors' names nobody else uses, timm's.
    Official,
    /// torchvision: `layer1.0.conv1`, `features.1.0.block.0`.
    Torchvision,
    /// detectron2: `res2.0.conv1`. ResNet alone.
    Detectron2,
    /// mmdet and mmpretrain: `layer1.0.conv1`, `stages.0.0.depthwise_conv`. Their RegNet
    /// has no squeeze-and-excitation.
    Mmdet,
}

impl Naming {
    /// Every naming; of those that fit a file equally, the first is taken.
    pub const ALL: [Naming; 5] =
        [Naming::Timm, Naming::Official, Naming::Torchvision, Naming::Detectron2, Naming::Mmdet];

    /// Whether the framework has networks of `family`. A custom network is
    /// called the same everywhere.
    pub fn has(self, family: Family) -> bool {
        match family {
            Family::ResNet | Family::Custom => true,
            Family::ConvNeXt => self != Naming::Detectron2,
            Family::RegNet => !matches!(self, Naming::Detectron2 | Naming::Mmdet),
        }
    }

    /// What the tensor `canonical` is called here; `None` if it is no tensor of
    /// such a network, or has no counterpart.
    pub fn to(self, family: Family, canonical: &str) -> Option<String> {
        match family {
            Family::Custom => Some(canonical.to_owned()),
            Family::ResNet => {
                let name = resnet(canonical)?;
                match self {
                    Naming::Detectron2 => detectron2::to(name),
                    _ => Some(name.to_owned()),
                }
            }
            Family::ConvNeXt => {
                let part = ConvNeXtPart::parse(canonical)?;
                match self {
                    Naming::Official => Some(canonical.to_owned()),
                    Naming::Timm => timm::to(&part),
                    Naming::Torchvision => torchvision::to(&part),
                    Naming::Mmdet => mmdet::to(&part),
                    Naming::Detectron2 => None,
                }
            }
            Family::RegNet => match self {
                Naming::Timm | Naming::Official => regnet::canonical(canonical).map(str::to_owned),
                Naming::Torchvision => regnet::to_torchvision(canonical),
                Naming::Detectron2 | Naming::Mmdet => None,
            },
        }
    }

    /// What the tensor called `foreign` here is called in memory; `None` if it
    /// is no tensor of such a network. Other spellings that the framework's
    /// files are known to use are understood too.
    pub fn from(self, family: Family, foreign: &str) -> Option<String> {
        let unwrapped = without_wrappers(foreign);
        let foreign = if family == Family::Custom { foreign } else { &unwrapped };
        match family {
            Family::Custom => Some(foreign.to_owned()),
            Family::ResNet => match self {
                Naming::Detectron2 => detectron2::from(foreign),
                Naming::Mmdet => mmdet::resnet_from(foreign),
                Naming::Torchvision => torchvision::resnet_from(foreign),
                _ => resnet(foreign).map(str::to_owned),
            },
            Family::ConvNeXt => {
                let part = match self {
                    Naming::Official => ConvNeXtPart::parse(foreign),
                    Naming::Timm => timm::from(foreign),
                    Naming::Torchvision => torchvision::from(foreign),
                    Naming::Mmdet => mmdet::from(foreign),
                    Naming::Detectron2 => None,
                };
                part.map(|part| part.canonical())
            }
            Family::RegNet => match self {
                Naming::Timm | Naming::Official => regnet::canonical(foreign).map(str::to_owned),
                Naming::Torchvision => regnet::from_torchvision(foreign),
                Naming::Detectron2 | Naming::Mmdet => None,
            },
        }
    }

    /// The shape here of the tensor `canonical`, whose shape in memory is
    /// `shape`: torchvision scales layers by `[C, 1, 1]` where others have `[C]`,
    /// and timm builds the ConvNeXts narrower than Tiny of 1×1 convolutions
    /// where others have linear layers.
    pub fn shape(self, family: Family, canonical: &str, shape: &[i64]) -> Vec<i64> {
        let part = ConvNeXtPart::parse(canonical).filter(|_| family == Family::ConvNeXt);
        match (self, part, shape) {
            (Naming::Torchvision, Some(ConvNeXtPart::Scale { .. }), &[channels]) => {
                vec![channels, 1, 1]
            }
            (Naming::Timm, Some(ConvNeXtPart::Block { stage, .. }), &[to, from])
                if to.min(from) >> stage < TINY_WIDTH =>
            {
                vec![to, from, 1, 1]
            }
            _ => shape.to_vec(),
        }
    }
}

impl fmt::Display for Naming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Naming::Timm => "timm",
            Naming::Official => "official",
            Naming::Torchvision => "torchvision",
            Naming::Detectron2 => "detectron2",
            Naming::Mmdet => "mmdet",
        })
    }
}

impl FromStr for Naming {
    type Err = Error;

    /// The name as `Display` writes it, in any case; `mmpretrain` is `mmdet`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let lower = text.to_lowercase();
        let same = |naming: &Naming| naming.to_string() == lower;
        match Naming::ALL.into_iter().find(same) {
            Some(naming) => Ok(naming),
            None if lower == "mmpretrain" => Ok(Naming::Mmdet),
            None => {
                let names = Naming::ALL.map(|naming| naming.to_string()).join(", ");
                Err(Error::invalid("naming", format!("{text:?}"), format!("it is one of {names}")))
            }
        }
    }
}

/// What PyTorch puts between modules that it compiles, shards or recomputes.
const WRAPPERS: [&str; 4] =
    ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"];

/// Whether `name` begins with a wrapper, which belongs to what stands before names.
pub(super) fn begins_with_wrapper(name: &str) -> bool {
    name.split_once('.').is_some_and(|(first, _)| WRAPPERS.contains(&first))
}

/// `name` less all wrappers.
fn without_wrappers(name: &str) -> Cow<'_, str> {
    if !WRAPPERS.iter().any(|wrapper| name.contains(wrapper)) {
        return Cow::Borrowed(name);
    }
    let kept: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    Cow::Owned(kept.join("."))
}

/// `name` itself, if a ResNet's tensors are called like it.
fn resnet(name: &str) -> Option<&str> {
    let (first, rest) = name.split_once('.')?;
    let stage = first.strip_prefix("layer").is_some_and(|n| matches!(n, "1" | "2" | "3" | "4"));
    let block =
        || rest.split_once('.').is_some_and(|(n, rest)| number(n).is_some() && !rest.is_empty());
    match first {
        "conv1" | "bn1" | "fc" => Some(name),
        _ if stage && block() => Some(name),
        _ => None,
    }
}

/// A block's, stage's or layer's number, written as Python would.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if digits && !padded { text.parse().ok() } else { None }
}

/// A ConvNeXt's tensor, taken apart: what every naming says in its own words.
/// `parameter` is `weight` or `bias`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ConvNeXtPart<'a> {
    /// `downsample_layers.STAGE.LAYER.parameter`; stage 0 is the stem. Layers
    /// are convolution and norm in the stem, norm and convolution after it.
    Down { stage: usize, layer: usize, parameter: &'a str },
    /// `stages.STAGE.BLOCK.LAYER.parameter`.
    Block { stage: usize, block: usize, layer: BlockLayer, parameter: &'a str },
    /// `stages.STAGE.BLOCK.gamma`.
    Scale { stage: usize, block: usize },
    /// `norm.parameter`, behind the last stage.
    Norm { parameter: &'a str },
    /// `head.parameter`, the classifier.
    Head { parameter: &'a str },
}

/// The layers of a ConvNeXt block that have parameters, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockLayer {
    Depthwise,
    Norm,
    Expand,
    Project,
}

impl BlockLayer {
    const ALL: [BlockLayer; 4] =
        [BlockLayer::Depthwise, BlockLayer::Norm, BlockLayer::Expand, BlockLayer::Project];

    /// The layer's name, out of a naming's four.
    fn name(self, names: [&'static str; 4]) -> &'static str {
        names[self as usize]
    }

    fn find(names: [&str; 4], name: &str) -> Option<Self> {
        Some(Self::ALL[names.iter().position(|known| *known == name)?])
    }
}

impl<'a> ConvNeXtPart<'a> {
    const LAYERS: [&'static str; 4] = ["dwconv", "norm", "pwconv1", "pwconv2"];

    /// Takes the official name apart.
    fn parse(name: &'a str) -> Option<Self> {
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["downsample_layers", stage, layer, parameter] => Self::down(stage, layer, parameter),
            ["stages", stage, block, "gamma"] => Self::scale(stage, block),
            ["stages", stage, block, layer, parameter] => {
                Self::block(stage, block, BlockLayer::find(Self::LAYERS, layer)?, parameter)
            }
            ["norm", parameter] => Some(Self::Norm { parameter: affine(parameter)? }),
            ["head", parameter] => Some(Self::Head { parameter: affine(parameter)? }),
            _ => None,
        }
    }

    fn canonical(&self) -> String {
        match *self {
            Self::Down { stage, layer, parameter } => {
                format!("downsample_layers.{stage}.{layer}.{parameter}")
            }
            Self::Block { stage, block, layer, parameter } => {
                format!("stages.{stage}.{block}.{}.{parameter}", layer.name(Self::LAYERS))
            }
            Self::Scale { stage, block } => format!("stages.{stage}.{block}.gamma"),
            Self::Norm { parameter } => format!("norm.{parameter}"),
            Self::Head { parameter } => format!("head.{parameter}"),
        }
    }

    fn down(stage: &str, layer: &str, parameter: &'a str) -> Option<Self> {
        let layer = number(layer).filter(|&layer| layer < 2)?;
        Some(Self::Down { stage: stage_number(stage)?, layer, parameter: affine(parameter)? })
    }

    fn block(stage: &str, block: &str, layer: BlockLayer, parameter: &'a str) -> Option<Self> {
        let (stage, block) = (stage_number(stage)?, number(block)?);
        Some(Self::Block { stage, block, layer, parameter: affine(parameter)? })
    }

    fn scale(stage: &str, block: &str) -> Option<Self> {
        Some(Self::Scale { stage: stage_number(stage)?, block: number(block)? })
    }
}

/// One of the four stages.
fn stage_number(text: &str) -> Option<usize> {
    number(text).filter(|&stage| stage < 4)
}

fn affine(parameter: &str) -> Option<&str> {
    matches!(parameter, "weight" | "bias").then_some(parameter)
}

#[cfg(test)]
mod tests;
