//! Detectors on disk, under detectron2's names or torchvision's.
//!
//! In memory the backbone keeps its own (canonical) names under
//! `backbone.bottom_up.`; everything else is called as in detectron2. A model
//! with the background's outputs first is torchvision's, and is written with
//! torchvision's names.

mod detectron2;
mod torchvision;

use std::path::Path;

use backbone::weights::{
    self, LoadOptions, LoadReport, Naming, StateDict, WeightFile, check_finite, write_pkl,
    write_pth, write_safetensors,
};
use tch::nn::VarStore;
use words::counted;

use super::config::{self, ModelConfig};
use crate::{Error, Result};

/// What stands before the backbone's names in memory.
pub const BOTTOM_UP: &str = "backbone.bottom_up.";

/// The layers whose outputs are classes, in memory.
const PREDICTORS: [&str; 3] = [
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    "roi_heads.mask_head.predictor.",
];

/// Whether the variable `name` (in memory) is of a layer whose outputs are
/// classes.
pub fn is_predictor(name: &str) -> bool {
    PREDICTORS.iter().any(|predictor| name.starts_with(predictor))
}

/// How to load a detector.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Fail unless every tensor of the model is in the file.
    pub strict: bool,
    /// Leave the layers whose outputs are classes as they are: to go on with a
    /// file for other classes.
    pub without_predictors: bool,
}

impl Default for ReadOptions {
    /// Strict, and everything.
    fn default() -> Self {
        Self { strict: true, without_predictors: false }
    }
}

/// Whose names a model of `config` has on disk.
pub fn naming(model: &ModelConfig) -> Naming {
    match model.naming {
        config::Naming::Detectron2 => Naming::Detectron2,
        config::Naming::Torchvision => Naming::Torchvision,
    }
}

/// All tensors of the model in `store` by their names on disk. They share the
/// model's storage.
///
/// # Errors
/// A tensor that isn't the model's.
pub fn state_dict(store: &VarStore, config: &ModelConfig) -> Result<StateDict> {
    named(store, config, naming(config))
}

fn named(store: &VarStore, config: &ModelConfig, naming: Naming) -> Result<StateDict> {
    let family = config.family();
    let name_of = |memory: &str| match naming {
        Naming::Torchvision => torchvision::to(family, config, memory),
        _ => detectron2::to(family, memory),
    };
    let mut tensors = StateDict::new();
    for (memory, tensor) in store.variables() {
        let Some(name) = name_of(&memory) else {
            if naming == Naming::Torchvision && memory.ends_with("num_batches_tracked") {
                continue; // Its frozen norms have none.
            }
            let rule = format!("{naming} has no name for it");
            return Err(Error::invalid("a tensor of the model", memory, rule));
        };
        tensors.insert(name, tensor);
    }
    Ok(tensors)
}

/// Writes the model in `store` to `path`: `.pth` (or `.pt`), `.safetensors`, or
/// `.pkl` as detectron2's model zoo has it.
///
/// # Errors
/// Values that are not finite, another ending, or a file that can't be written; then `path`
/// is as it was.
pub fn write_detector(
    path: impl AsRef<Path>,
    store: &VarStore,
    config: &ModelConfig,
) -> Result<()> {
    let path = path.as_ref();
    let tensors = state_dict(store, config)?;
    check_finite("the detector", &tensors, "it finds nothing, and is not exported")?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("pth" | "pt") => write_pth(path, &tensors)?,
        Some("safetensors") => write_safetensors(path, &tensors, &Default::default())?,
        Some("pkl") => write_pkl(path, &tensors)?,
        _ => {
            let rule = "it must end in .pth, .safetensors or .pkl";
            return Err(Error::invalid("output", path.display(), rule));
        }
    }
    Ok(())
}

/// Reads a detector of detectron2's or torchvision's names, told apart by
/// content, into the model in `store`: all that is asked for, or nothing. Names
/// in the report are the file's.
///
/// # Errors
/// A file that can't be read, that is for other classes (the message says how
/// to go on), or, strictly, that doesn't fill the model.
pub fn read_detector(
    path: impl AsRef<Path>,
    store: &VarStore,
    config: &ModelConfig,
    options: &ReadOptions,
) -> Result<LoadReport> {
    let mut file = weights::read(path)?;
    let found = naming_of(&file)?;
    if found == Naming::Torchvision {
        file.tensors = std::mem::take(&mut file.tensors)
            .into_iter()
            .map(|(name, tensor)| (torchvision::modern(&name).unwrap_or(name), tensor))
            .collect();
    }
    check_branches(&file, config)?;
    let mut target = named(store, config, found)?;
    if options.without_predictors {
        let predictors: Vec<String> = store
            .variables()
            .into_keys()
            .filter(|name| is_predictor(name))
            .filter_map(|name| match found {
                Naming::Torchvision => torchvision::to(config.family(), config, &name),
                _ => detectron2::to(config.family(), &name),
            })
            .collect();
        target.retain(|name, _| !predictors.contains(name));
    } else {
        check_classes(&file, config, found)?;
    }
    // Names are the file's own, so that nothing is left to translate.
    let custom = backbone::models::Family::Custom;
    let load = LoadOptions {
        strict: options.strict,
        optional: |name| {
            name.ends_with("num_batches_tracked") || name.starts_with("backbone.bottom_up.norm.")
        },
        ..LoadOptions::default()
    };
    let mut report = weights::load(&target, custom, &file, &load)?;
    report.naming = found;
    Ok(report)
}

/// Reads a backbone's weights, of every format and naming that the backbone
/// crate reads, into the model in `store`. Names in the report are canonical.
///
/// # Errors
/// As [`weights::load`].
pub fn read_backbone(
    path: impl AsRef<Path>,
    store: &VarStore,
    config: &ModelConfig,
    options: &LoadOptions,
) -> Result<LoadReport> {
    let target: StateDict = store
        .variables()
        .into_iter()
        .filter_map(|(name, tensor)| {
            let canonical = name.strip_prefix(BOTTOM_UP)?;
            let is_norm = config.output_norm && is_output_norm(canonical);
            (!is_norm).then(|| (canonical.to_owned(), tensor))
        })
        .collect();
    Ok(weights::load(&target, config.family(), &weights::read(path)?, options)?)
}

/// Whether a name under [`BOTTOM_UP`] is of a norm on the backbone's outputs,
/// which the backbone itself doesn't have.
pub(super) fn is_output_norm(name: &str) -> bool {
    let number = name.strip_prefix("norm").and_then(|rest| rest.split('.').next());
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Whose names the file has.
fn naming_of(file: &WeightFile) -> Result<Naming> {
    let has = |part: &str| file.tensors.keys().any(|name| name.contains(part));
    if has("proposal_generator.rpn_head.") || has("backbone.bottom_up.") {
        Ok(Naming::Detectron2)
    } else if has("rpn.head.") || has("backbone.fpn.inner_blocks.") {
        Ok(Naming::Torchvision)
    } else {
        let names: Vec<&str> = file.tensors.keys().take(3).map(String::as_str).collect();
        Err(Error::format(
            &file.path,
            format!(
                "no detector with detectron2's or torchvision's names: it has tensors such as {}. \
                 If it is a backbone alone, read it as the backbone's weights",
                names.join(", ")
            ),
        ))
    }
}

/// A model that predicts masks can't be filled from one that doesn't.
fn check_branches(file: &WeightFile, config: &ModelConfig) -> Result<()> {
    let has = |part: &str| file.tensors.keys().any(|name| name.contains(part));
    let masks = ["mask_head.", "mask_predictor."].iter().any(|part| has(part));
    if masks || config.mask_head.is_none() || !has("box_predictor.") {
        return Ok(());
    }
    let problem = "a Faster R-CNN: it predicts boxes and has no mask branch, but the model has one; \
                   give --masks false for boxes alone";
    Err(Error::format(&file.path, problem))
}

/// The file's outputs must be the model's: as many classes, in the same order.
fn check_classes(file: &WeightFile, config: &ModelConfig, found: Naming) -> Result<()> {
    if found != naming(config) {
        let preset = match found {
            Naming::Torchvision => "--preset mask_rcnn_torchvision",
            _ => "another preset than mask_rcnn_torchvision",
        };
        let problem = format!(
            "a detector of {found}, and the model's outputs are in {}'s order: use {preset}; in \
             training, --reset-head takes all but these outputs",
            naming(config)
        );
        return Err(Error::format(&file.path, problem));
    }
    let scores = file.tensors.iter().find(|(name, _)| name.ends_with("cls_score.weight"));
    let classes = scores.map(|(_, weight)| weight.size()[0] - 1);
    match classes {
        Some(classes) if classes != config.num_classes => {
            let problem = format!(
                "a detector of {}, and the model has {}: --reset-head learns the model's from the \
                 rest of the file",
                counted(classes, "class"),
                config.num_classes
            );
            Err(Error::format(&file.path, problem))
        }
        _ => Ok(()),
    }
}
