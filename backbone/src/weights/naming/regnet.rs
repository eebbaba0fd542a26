//! RegNetY: the canonical names are timm's; torchvision's differ.
//! References: timm and torchvision `models/regnet.py`.

use super::{affine, number};

/// A RegNet's tensor, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part<'a> {
    /// `stem.LAYER.parameter`, LAYER `conv` or `bn`.
    Stem { layer: Layer, parameter: &'a str },
    /// `sSTAGE.bBLOCK.CONV.LAYER.parameter`; stages and blocks count from 1.
    Block { stage: usize, block: usize, conv: usize, layer: Layer, parameter: &'a str },
    /// `sSTAGE.bBLOCK.se.fcNUMBER.parameter`.
    Squeeze { stage: usize, block: usize, fc: &'a str, parameter: &'a str },
    /// `head.fc.parameter`, the classifier.
    Head { parameter: &'a str },
}

/// The two layers of a `ConvNormAct`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layer {
    Conv,
    Norm,
}

/// A block's convolutions, and torchvision's names for them.
const CONVOLUTIONS: [(&str, &str); 4] =
    [("conv1", "f.a"), ("conv2", "f.b"), ("conv3", "f.c"), ("downsample", "proj")];

/// `name` itself, if a RegNet's tensors are called like it.
pub(super) fn canonical(name: &str) -> Option<&str> {
    parse(name).map(|_| name)
}

pub(super) fn to_torchvision(canonical: &str) -> Option<String> {
    let index = |layer: Layer| layer as usize;
    Some(match parse(canonical)? {
        Part::Stem { layer, parameter } => format!("stem.{}.{parameter}", index(layer)),
        Part::Block { stage, block, conv, layer, parameter } => {
            let (_, conv) = CONVOLUTIONS[conv];
            format!("{}.{conv}.{}.{parameter}", torchvision_block(stage, block), index(layer))
        }
        Part::Squeeze { stage, block, fc, parameter } => {
            format!("{}.f.se.{fc}.{parameter}", torchvision_block(stage, block))
        }
        Part::Head { parameter } => format!("fc.{parameter}"),
    })
}

pub(super) fn from_torchvision(name: &str) -> Option<String> {
    let (first, rest) = name.split_once('.')?;
    let canonical = match first {
        "stem" => {
            let (index, parameter) = rest.split_once('.')?;
            format!("stem.{}.{parameter}", layer_of(index)?)
        }
        "fc" => format!("head.fc.{rest}"),
        "trunk_output" => {
            let (stage, rest) = rest.split_once('.')?;
            let (block, rest) = rest.split_once('.')?;
            let stage = stage.strip_prefix("block")?;
            let (again, block) = block.strip_prefix("block")?.split_once('-')?;
            let block = number(block).filter(|_| again == stage)? + 1;
            let rest = match rest.strip_prefix("f.se.") {
                Some(rest) => format!("se.{rest}"),
                None => {
                    let convolution = |(own, foreign): &(&'static str, &str)| {
                        Some((*own, rest.strip_prefix(foreign)?.strip_prefix('.')?))
                    };
                    let (conv, rest) = CONVOLUTIONS.iter().find_map(convolution)?;
                    let (index, parameter) = rest.split_once('.')?;
                    format!("{conv}.{}.{parameter}", layer_of(index)?)
                }
            };
            format!("s{stage}.b{block}.{rest}")
        }
        _ => return None,
    };
    parse(&canonical)?;
    Some(canonical)
}

/// What torchvision calls a block; it counts them from 0.
fn torchvision_block(stage: usize, block: usize) -> String {
    format!("trunk_output.block{stage}.block{stage}-{}", block - 1)
}

/// The layer that torchvision numbers so.
fn layer_of(index: &str) -> Option<&'static str> {
    match index {
        "0" => Some("conv"),
        "1" => Some("bn"),
        _ => None,
    }
}

fn parse(name: &str) -> Option<Part<'_>> {
    let parts: Vec<&str> = name.split('.').collect();
    let numbered = |text: &str, letter| number(text.strip_prefix(letter)?).filter(|&n| n > 0);
    match parts[..] {
        ["stem", layer, parameter] => {
            let (layer, parameter) = conv_norm(layer, parameter)?;
            Some(Part::Stem { layer, parameter })
        }
        ["head", "fc", parameter] => Some(Part::Head { parameter: affine(parameter)? }),
        [stage, block, conv, layer, parameter] => {
            let stage = numbered(stage, 's').filter(|&stage| stage <= 4)?;
            let block = numbered(block, 'b')?;
            if conv == "se" && matches!(layer, "fc1" | "fc2") {
                let parameter = affine(parameter)?;
                return Some(Part::Squeeze { stage, block, fc: layer, parameter });
            }
            let conv = CONVOLUTIONS.iter().position(|(own, _)| *own == conv)?;
            let (layer, parameter) = conv_norm(layer, parameter)?;
            Some(Part::Block { stage, block, conv, layer, parameter })
        }
        _ => None,
    }
}

/// The layer and its parameter or buffer, if it has one called so.
fn conv_norm<'a>(layer: &str, parameter: &'a str) -> Option<(Layer, &'a str)> {
    const BUFFERS: [&str; 3] = ["running_mean", "running_var", "num_batches_tracked"];
    match layer {
        "conv" if parameter == "weight" => Some((Layer::Conv, parameter)),
        "bn" if affine(parameter).is_some() || BUFFERS.contains(&parameter) => {
            Some((Layer::Norm, parameter))
        }
        _ => None,
    }
}
