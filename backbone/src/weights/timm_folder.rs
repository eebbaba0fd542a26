//! timm's `local-dir:` folders: `config.json` says which architecture,
//! `model.safetensors` has the weights under timm's names.
//! Reference: timm `models/_hub.py`, `save_for_hf`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use tch::Tensor;

use super::{Format, StateDict, WeightFile, atomic, sharded, write_safetensors};
use crate::models::{self, Family};
use crate::{Error, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// What timm looks for, in its order.
const WEIGHT_FILES: [&str; 4] = [WEIGHTS, "pytorch_model.bin", "pytorch_model.pth", "model.pth"];

/// What `config.json` says besides the weights' shapes.
#[derive(Debug, Clone, PartialEq)]
pub struct TimmConfig {
    /// timm's name of the model, such as `resnet50`.
    pub architecture: String,
    /// Channels of the input, as many as the first convolution takes.
    pub in_chans: i64,
    /// Height and width in pixels of the images it was trained on.
    pub input_size: (i64, i64),
    /// Mean of each input channel, of values in 0–1.
    pub mean: Vec<f64>,
    /// Standard deviation of each input channel, of values in 0–1.
    pub std: Vec<f64>,
    /// Share of a resized image's short side that evaluation crops from its
    /// centre.
    pub crop_pct: f64,
    /// Evaluation squeezes the whole image instead, out of proportion.
    pub squash: bool,
    /// How evaluation resizes: `bicubic`, `bilinear`.
    pub interpolation: String,
    /// What the classifier's outputs are called; none where that is unknown.
    pub label_names: Vec<String>,
}

impl TimmConfig {
    /// Three channels, 224×224 cut out of 256, ImageNet's mean and standard
    /// deviation.
    pub fn imagenet(architecture: impl Into<String>) -> Self {
        TimmConfig {
            architecture: architecture.into(),
            in_chans: 3,
            input_size: (224, 224),
            mean: vec![0.485, 0.456, 0.406],
            std: vec![0.229, 0.224, 0.225],
            crop_pct: 0.875,
            squash: false,
            interpolation: "bicubic".into(),
            label_names: Vec::new(),
        }
    }
}

/// Writes `tensors`, which bear timm's names, to `folder`, for
/// `timm.create_model("local-dir:FOLDER", pretrained=True)`. A classifier is
/// described by its own shape; without one, `num_classes` is 0.
///
/// # Errors
/// [`Error::Invalid`] when `config` contradicts itself or the tensors lack
/// what timm's strict loading asks for; [`Error::Io`] naming the file.
pub fn write_timm_folder(
    folder: impl AsRef<Path>,
    config: &TimmConfig,
    tensors: &StateDict,
) -> Result<()> {
    let folder = folder.as_ref();
    let layers = Layers::of(&config.architecture, tensors);
    check(config, layers, tensors)?;
    let text = format!("{:#}\n", config_json(config, layers, tensors));
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let metadata = BTreeMap::from([("format".into(), "pt".into())]);
    write_safetensors(folder.join(WEIGHTS), tensors, &metadata)?;
    let path = folder.join(CONFIG);
    atomic::write(&path, |out| {
        out.write_all(text.as_bytes()).map_err(|source| Error::io(&path, source))
    })
}

/// What timm calls the classifier of `architecture`, whose `tensors` these are.
pub fn timm_classifier(architecture: &str, tensors: &StateDict) -> Option<&'static str> {
    Layers::of(architecture, tensors).classifier
}

/// What timm's models call their first convolution, the commonest names first.
const FIRST_CONVS: [&str; 8] = [
    "conv1",
    "conv_stem",
    "stem.conv",
    "stem.0",
    "conv1.0",
    "stem.conv1",
    "features.conv0",
    "features.0",
];
/// What they call their classifier.
const CLASSIFIERS: [&str; 5] = ["fc", "head.fc", "classifier", "head", "last_linear"];

/// The layers of an architecture that timm's configuration names.
#[derive(Debug, Clone, Copy)]
struct Layers {
    first_conv: Option<&'static str>,
    classifier: Option<&'static str>,
    /// The norm that timm's models always have before the classifier.
    norm: Option<&'static str>,
}

impl Layers {
    /// Of a model that is not registered here, those among `tensors` that are called as usual.
    fn of(architecture: &str, tensors: &StateDict) -> Self {
        let found = |names: &[&'static str]| {
            // A norm may be called so, too.
            let is_layer = |weight: &Tensor| weight.dim() >= 2;
            let has = |name: &&str| tensors.get(&format!("{name}.weight")).is_some_and(is_layer);
            names.iter().copied().find(has)
        };
        let (first_conv, classifier, norm) = match models::registered(architecture) {
            Ok(Some(model)) => match model.family() {
                Family::ConvNeXt => (Some("stem.0"), Some("head.fc"), Some("head.norm")),
                Family::RegNet => (Some("stem.conv"), Some("head.fc"), None),
                Family::ResNet | Family::Custom => (Some("conv1"), Some("fc"), None),
            },
            _ => (found(&FIRST_CONVS), found(&CLASSIFIERS), None),
        };
        Self { first_conv, classifier, norm }
    }

    /// Outputs of the classifier among `tensors`, if there is one.
    fn classes(&self, tensors: &StateDict) -> Option<i64> {
        tensors.get(&format!("{}.weight", self.classifier?))?.size().first().copied()
    }
}

/// Whether timm would accept the folder.
fn check(config: &TimmConfig, layers: Layers, tensors: &StateDict) -> Result<()> {
    for (operand, values) in [("mean", &config.mean), ("std", &config.std)] {
        if values.len() as i64 != config.in_chans {
            let rule = format!("there must be one value for each of {} channels", config.in_chans);
            return Err(Error::invalid(operand, format!("{values:?}"), rule));
        }
    }
    if let Some(first) = layers.first_conv.map(|name| format!("{name}.weight")) {
        let stem = tensors.get(&first).ok_or_else(|| {
            let rule = format!("timm's {} begins with {first:?}", config.architecture);
            Error::invalid("tensors", format!("without {first:?}"), rule)
        })?;
        if stem.size().get(1) != Some(&config.in_chans) {
            let rule = format!("{first:?} has the shape {:?}", stem.size());
            return Err(Error::invalid("in_chans", config.in_chans, rule));
        }
    }
    let classes = layers.classes(tensors).unwrap_or(0);
    let names = config.label_names.len() as i64;
    if names > 0 && names != classes {
        let rule = format!("the classifier has {classes} outputs");
        return Err(Error::invalid("number of label_names", names, rule));
    }
    let norm = layers.norm.map(|norm| format!("{norm}.weight"));
    if let Some(norm) = norm.filter(|norm| !tensors.contains_key(norm)) {
        let rule =
            format!("timm's {} always has a norm behind its last stage", config.architecture);
        return Err(Error::invalid("tensors", format!("without {norm:?}"), rule));
    }
    Ok(())
}

fn config_json(config: &TimmConfig, layers: Layers, tensors: &StateDict) -> Value {
    let Layers { first_conv, classifier, .. } = layers;
    let classes = layers.classes(tensors).unwrap_or(0);
    let mut json = json!({
        "architecture": config.architecture,
        "num_classes": classes,
        "pretrained_cfg": {
            "num_classes": classes,
            "input_size": [config.in_chans, config.input_size.0, config.input_size.1],
            "interpolation": config.interpolation,
            "mean": config.mean,
            "std": config.std,
            "crop_pct": config.crop_pct,
            "crop_mode": if config.squash { "squash" } else { "center" },
            "first_conv": first_conv,
            "classifier": classifier,
        },
    });
    if !config.label_names.is_empty() {
        json["label_names"] = json!(config.label_names);
    }
    json
}

/// Reads the folder at `path`.
///
/// # Errors
/// [`Error::Format`] when `config.json` is no such thing or there are no
/// weights beside it, and the errors of reading those.
pub(crate) fn read(path: &Path) -> Result<WeightFile> {
    let config = path.join(CONFIG);
    let text = std::fs::read_to_string(&config).map_err(|source| Error::io(&config, source))?;
    let json: Value = serde_json::from_str(&text)
        .map_err(|e| Error::format(&config, format!("not the JSON of a timm model: {e}")))?;
    let weights = WEIGHT_FILES.iter().map(|name| path.join(name)).find(|file| file.is_file());
    let weights = match weights {
        Some(file) => file,
        None => sharded::index_in(path)?.ok_or_else(|| {
            let files = WEIGHT_FILES.join(", ");
            Error::format(path, format!("{CONFIG} but none of {files} and no *.index.json"))
        })?,
    };
    let mut file = super::read(weights)?;
    if let Some(architecture) = json.get("architecture").and_then(Value::as_str) {
        file.metadata.insert("architecture".into(), architecture.into());
    }
    for key in
        ["mean", "std", "input_size", "crop_pct", "crop_mode", "interpolation", "label_names"]
    {
        let places = [format!("/pretrained_cfg/{key}"), format!("/{key}")];
        if let Some(value) = places.iter().find_map(|place| json.pointer(place)) {
            file.metadata.insert(key.into(), value.to_string());
        }
    }
    Ok(WeightFile { path: path.into(), format: Format::TimmFolder, ..file })
}
