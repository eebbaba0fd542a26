//! What a backbone is created with.

use std::path::PathBuf;

use backbone::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// The settings, as JSON has them; `spark_backbone.h` explains each.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// timm's name, or that of a `.pt2` file.
    pub model: String,
    /// File to load.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Refuse weights that do not fill the encoder.
    #[serde(default = "yes", skip_serializing)]
    pub strict: bool,
    /// Stages to put out; `None`: all.
    #[serde(default)]
    pub out_indices: Option<Vec<i64>>,
    /// Channels of the image; `None`: the model's usual ones.
    #[serde(default)]
    pub in_chans: Option<i64>,
    /// Drop-path rate of the last block.
    #[serde(default)]
    pub drop_path_rate: f64,
    /// Type of the parameters.
    #[serde(default = "float32")]
    pub dtype: String,
    /// Where the parameters lie.
    #[serde(default = "cpu")]
    pub device: String,
    /// Stages below this index are frozen, the stem being stage 0.
    #[serde(default)]
    pub freeze_at: i64,
    /// Batch norms use their running statistics in training, too.
    #[serde(default)]
    pub norm_eval: bool,
    /// Training or evaluation.
    #[serde(default = "yes")]
    pub training: bool,
}

fn yes() -> bool {
    true
}

fn float32() -> String {
    "float32".into()
}

fn cpu() -> String {
    "cpu".into()
}

/// Reads a model's name or a JSON object.
///
/// # Errors
/// Malformed JSON, an unknown key, a value of the wrong type.
pub fn parse(text: &str) -> Result<Config> {
    let text = text.trim();
    let json = if text.starts_with('{') {
        text.to_owned()
    } else {
        serde_json::json!({ "model": text }).to_string()
    };
    serde_json::from_str(&json).map_err(|error| {
        let rule = format!("it must be a model's name or a JSON object of settings: {error}");
        Error::invalid("config", shortened(text), rule)
    })
}

/// A text to quote in a sentence.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 200;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?} …", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// The floating types a backbone can have, and what PyTorch calls them.
const KINDS: [(&str, Kind); 4] = [
    ("float32", Kind::Float),
    ("float64", Kind::Double),
    ("float16", Kind::Half),
    ("bfloat16", Kind::BFloat16),
];

/// The type called `name`.
///
/// # Errors
/// None of those a backbone can have.
pub fn kind(name: &str) -> Result<Kind> {
    let known = KINDS.iter().find(|(known, _)| *known == name);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        let names = KINDS.map(|(name, _)| name).join(", ");
        Error::invalid("dtype", format!("{name:?}"), format!("it must be one of {names}"))
    })
}

/// What PyTorch calls `kind`.
pub fn kind_name(kind: Kind) -> String {
    let known = KINDS.iter().find(|(_, known)| *known == kind);
    known.map_or_else(|| format!("{kind:?}"), |(name, _)| (*name).to_owned())
}

/// The device called `name`: `cpu`, `cuda`, `cuda:N`, `mps`.
///
/// # Errors
/// Another name, or a device that this process does not have.
pub fn device(name: &str) -> Result<Device> {
    let invalid = |rule: String| Error::invalid("device", format!("{name:?}"), rule);
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, index.parse::<usize>().ok()),
        None => (name, Some(0)),
    };
    match (kind, index) {
        ("cpu", Some(0)) => Ok(Device::Cpu),
        ("mps", Some(0)) if tch::utils::has_mps() => Ok(Device::Mps),
        ("mps", Some(0)) => Err(invalid("this process has no Metal device".into())),
        ("cuda", Some(index)) => {
            let count = tch::Cuda::device_count();
            if count == 0 {
                return Err(invalid(
                    "this process sees no CUDA device: there is none, or the host program does \
                     not link libtorch_cuda"
                        .into(),
                ));
            }
            if index as i64 >= count {
                return Err(invalid(format!("there are only {count} CUDA devices")));
            }
            Ok(Device::Cuda(index))
        }
        _ => Err(invalid("it must be cpu, cuda, cuda:N or mps".into())),
    }
}

/// What PyTorch calls `device`.
pub fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".into(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps".into(),
        Device::Vulkan => "vulkan".into(),
    }
}

/// The stages to put out of a pyramid of `stages`, checked.
///
/// # Errors
/// An empty list, a stage that is not there, one out of order.
pub fn out_indices(wanted: Option<&[i64]>, stages: usize) -> Result<Vec<usize>> {
    let Some(wanted) = wanted else { return Ok((0..stages).collect()) };
    let ascends = wanted.windows(2).all(|pair| pair[0] < pair[1]);
    let inside = wanted.iter().all(|&index| (0..stages as i64).contains(&index));
    if wanted.is_empty() || !ascends || !inside {
        let rule = format!("it must list stages from 0 to {}, ascending", stages - 1);
        return Err(Error::invalid("out_indices", format!("{wanted:?}"), rule));
    }
    Ok(wanted.iter().map(|&index| index as usize).collect())
}
