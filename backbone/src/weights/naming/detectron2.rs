//! detectron2's ResNet: stages are called after the published table (`res2` to
//! `res5`), and a norm belongs to its convolution (`conv1.norm`).
//! Reference: detectron2 `modeling/backbone/resnet.py`.

use super::{number, resnet};

/// `canonical` is already known to be a ResNet's.
pub(super) fn to(canonical: &str) -> Option<String> {
    let (first, rest) = canonical.split_once('.')?;
    match first {
        "conv1" => Some(format!("stem.conv1.{rest}")),
        "bn1" => Some(format!("stem.conv1.norm.{rest}")),
        "fc" => Some(format!("linear.{rest}")),
        _ => {
            let stage = number(first.strip_prefix("layer")?)?;
            let (block, rest) = rest.split_once('.')?;
            Some(format!("res{}.{block}.{}", stage + 1, in_block_to(rest)))
        }
    }
}

fn in_block_to(rest: &str) -> String {
    if let Some(parameter) = rest.strip_prefix("downsample.0.") {
        return format!("shortcut.{parameter}");
    }
    if let Some(parameter) = rest.strip_prefix("downsample.1.") {
        return format!("shortcut.norm.{parameter}");
    }
    match rest.strip_prefix("bn").and_then(|rest| rest.split_once('.')) {
        Some((index, parameter)) => format!("conv{index}.norm.{parameter}"),
        None => rest.to_owned(),
    }
}

/// Understands `stem.fc` too, which a conversion of torchvision's files makes.
pub(super) fn from(foreign: &str) -> Option<String> {
    let (first, rest) = foreign.split_once('.')?;
    let canonical = match first {
        "stem" => match rest.split_once('.')? {
            ("conv1", parameter) => match parameter.strip_prefix("norm.") {
                Some(parameter) => format!("bn1.{parameter}"),
                None => format!("conv1.{parameter}"),
            },
            ("fc", parameter) => format!("fc.{parameter}"),
            _ => return None,
        },
        "linear" => format!("fc.{rest}"),
        _ => {
            let stage =
                number(first.strip_prefix("res")?).filter(|stage| (2..=5).contains(stage))?;
            let (block, rest) = rest.split_once('.')?;
            format!("layer{}.{block}.{}", stage - 1, in_block_from(rest)?)
        }
    };
    resnet(&canonical).map(str::to_owned)
}

fn in_block_from(rest: &str) -> Option<String> {
    if let Some(parameter) = rest.strip_prefix("shortcut.norm.") {
        return Some(format!("downsample.1.{parameter}"));
    }
    if let Some(parameter) = rest.strip_prefix("shortcut.") {
        return Some(format!("downsample.0.{parameter}"));
    }
    let (conv, parameter) = rest.split_once('.')?;
    match (conv.strip_prefix("conv"), parameter.strip_prefix("norm.")) {
        (Some(index), Some(parameter)) => Some(format!("bn{index}.{parameter}")),
        // Their own names for what detectron2 calls otherwise are not its names.
        _ if conv.starts_with("bn") || conv == "downsample" => None,
        _ => Some(rest.to_owned()),
    }
}
