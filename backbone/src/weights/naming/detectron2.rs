//! detectron2's ResNet: stages are called after the published table (`res2` to
//! `res5`), and a norm belongs to its convolution (`conv1.norm`).
//! Reference: detectron2 `modeling/backbone/resnet.py`.

use super::{number, resnet};

/// Where a ResNet's layers stand in a block, by Caffe2's names for its branches.
const BRANCHES: [(&str, &str, &str); 4] = [
    ("branch1", "downsample.0", "downsample.1"),
    ("branch2a", "conv1", "bn1"),
    ("branch2b", "conv2", "bn2"),
    ("branch2c", "conv3", "bn3"),
];

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

/// Understands `stem.fc` too, which a conversion of torchvision's files makes, and the
/// names of Caffe2, which its first model zoo has.
pub(super) fn from(foreign: &str) -> Option<String> {
    if let Some(canonical) = from_caffe2(foreign) {
        return Some(canonical);
    }
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

/// `res2_0_branch2a_w`, `res2_0_branch2a_bn_s`; `conv1_w`, `res_conv1_bn_s`; `pred_w`.
/// Reference: detectron2 `checkpoint/c2_model_loading.py`, `convert_basic_c2_names`.
fn from_caffe2(foreign: &str) -> Option<String> {
    let (layer, norm, parameter) = match foreign.split_once("_bn_") {
        Some((layer, parameter)) => (layer, true, parameter),
        None => {
            let (layer, parameter) = foreign.rsplit_once('_')?;
            (layer, false, parameter)
        }
    };
    let parameter = match (norm, parameter) {
        (false, "w") | (true, "s" | "gamma") => "weight",
        (_, "b") | (true, "beta") => "bias",
        (true, "rm" | "running_mean") => "running_mean",
        (true, "riv" | "running_var") => "running_var",
        _ => return None,
    };
    let module = match (layer, norm) {
        ("conv1", false) => "conv1".to_owned(),
        ("res_conv1", true) => "bn1".to_owned(),
        ("pred" | "fc1000", false) => "fc".to_owned(),
        _ => {
            let (stage, rest) = layer.strip_prefix("res")?.split_once('_')?;
            let (block, branch) = rest.split_once('_')?;
            let stage = number(stage).filter(|stage| (2..=5).contains(stage))?;
            let (_, conv, bn) = BRANCHES.iter().find(|(name, ..)| *name == branch)?;
            format!("layer{}.{}.{}", stage - 1, number(block)?, if norm { bn } else { conv })
        }
    };
    Some(format!("{module}.{parameter}"))
}
