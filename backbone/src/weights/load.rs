//! Weights from a file into a model: all that fits, or nothing.

use tch::Tensor;

use super::convert::{self, Conversions};
use super::dtype::{is_float, kind_name};
use super::finite::not_finite;
use super::fit::{Fit, Shapes, best_fit};
use super::report::{LoadReport, mismatches, some_of};
use super::{Naming, StateDict, WeightFile};
use crate::models::Family;
use crate::{Error, Result};

/// How to load.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Fail unless every tensor that isn't `optional` can be loaded.
    pub strict: bool,
    /// The file's naming, if it should not be found out.
    pub naming: Option<Naming>,
    /// What stands before each name, such as `state_dict_ema.`, if it should
    /// not be found out.
    pub prefix: Option<String>,
    /// Which canonical names a strict load may go without.
    pub optional: fn(&str) -> bool,
}

impl Default for LoadOptions {
    /// Strict, everything found out, [`default_optional`].
    fn default() -> Self {
        LoadOptions { strict: true, naming: None, prefix: None, optional: default_optional }
    }
}

impl LoadOptions {
    /// The same for a network of `family`. What a custom one has, its maps depend on, however it is
    /// called: only counters may be missing.
    pub fn of(family: Family) -> Self {
        match family {
            Family::Custom => LoadOptions { optional: is_counter, ..Self::default() },
            _ => Self::default(),
        }
    }
}

/// Whether it is a batch norm's counter, which old files lack.
pub fn is_counter(name: &str) -> bool {
    name.ends_with("num_batches_tracked")
}

/// What an encoder does without: counters of batch norms, a classifier, and
/// the norm behind ConvNeXt's last stage, which only a classifier needs.
pub fn default_optional(canonical: &str) -> bool {
    let classifier = ["fc.", "head.", "head.fc.", "norm."].iter().any(|start| {
        canonical.strip_prefix(start).is_some_and(|rest| matches!(rest, "weight" | "bias"))
    });
    classifier || is_counter(canonical)
}

/// Copies what `file` has into `target`, canonical names to tensors that share
/// their storage with the model's. Prefix and naming are found out; type and
/// device stay the model's. A first convolution for another number of input
/// channels is converted as timm does, and Caffe2's weights as detectron2 does; the
/// report says so.
///
/// # Errors
/// [`Error::Weights`] or [`Error::Incomplete`], and `target` untouched, when nothing matches, when a
/// strict load would leave the model incomplete, or when the file has integers
/// for a tensor of floats, or values that are not finite.
pub fn load(
    target: &StateDict,
    family: Family,
    file: &WeightFile,
    options: &LoadOptions,
) -> Result<LoadReport> {
    let (model, content) = (shapes(target), shapes(&file.tensors));
    let prefix = options.prefix.as_deref();
    let (fit, conversions) = best_fit(family, &model, &content, options.naming, prefix)
        .map(|mut fit| {
            let conversions = convert::needed(family, &mut fit);
            (fit, conversions)
        })
        .filter(|(fit, _)| !fit.matched.is_empty())
        .ok_or_else(|| nothing_matches(file, &model, options))?;
    if options.strict {
        check_complete(file, family, &fit, model.len(), options.optional)?;
    }
    let found = fit.matched.values().map(|key| (key.as_str(), &file.tensors[key]));
    let found = not_finite(found)?;
    if !found.is_empty() {
        return Err(Error::Weights(format!(
            "{} has values that are not finite, with which a model computes nothing: {}",
            file.path.display(),
            some_of(&found)
        )));
    }
    let ready = converted(target, file, &fit, &conversions)?;
    tch::no_grad(|| {
        ready.into_iter().try_for_each(|(mut into, from)| into.f_copy_(&from).map_err(Error::from))
    })?;
    let left_out = file.left_out.iter().map(|(name, why)| format!("{name} {why}")).collect();
    Ok(LoadReport::new(fit, conversions.told, left_out))
}

pub(super) fn shapes(tensors: &StateDict) -> Shapes<'_> {
    tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.size())).collect()
}

/// Each target with its values in the target's own type, device and shape:
/// what can fail fails here, before anything is written.
fn converted(
    target: &StateDict,
    file: &WeightFile,
    fit: &Fit,
    conversions: &Conversions,
) -> Result<Vec<(Tensor, Tensor)>> {
    let constants = conversions.constants.iter().map(|(name, value)| {
        let into = target[name].shallow_clone();
        let from = into.f_full_like(*value)?;
        Ok((into, from))
    });
    constants
        .chain(fit.matched.iter().map(|(name, key)| {
            let (into, from) = (&target[name], &file.tensors[key]);
            let kind = into.f_kind()?;
            if is_float(kind) && !is_float(from.f_kind()?) {
                return Err(Error::Weights(format!(
                    "{}: {key:?} is of type {}, but the model's {name:?} is {}: quantised \
                     weights are not understood",
                    file.path.display(),
                    kind_name(from.f_kind()?),
                    kind_name(kind)
                )));
            }
            let from = conversions.apply(name, from, &into.size())?;
            let from = from.f_detach()?.f_to_device_(into.device(), kind, false, false)?;
            Ok((into.shallow_clone(), from.f_reshape(into.size())?))
        }))
        .collect()
}

fn check_complete(
    file: &WeightFile,
    family: Family,
    fit: &Fit,
    expected: usize,
    optional: fn(&str) -> bool,
) -> Result<()> {
    let missing: Vec<String> = fit.missing.iter().filter(|name| !optional(name)).cloned().collect();
    let other: Vec<_> = fit.mismatched.iter().filter(|m| !optional(&m.name)).cloned().collect();
    if missing.is_empty() && other.is_empty() {
        return Ok(());
    }
    let mut message = format!(
        "{} does not fill the encoder: of its {expected} tensors, {} are in the file \
         ({} naming, prefix {:?})",
        file.path.display(),
        fit.matched.len(),
        fit.naming,
        fit.prefix
    );
    if !missing.is_empty() {
        message += &format!("; {} are missing: {}", missing.len(), some_of(&missing));
    }
    let unreadable = unreadable(file, family, fit, &missing);
    if !unreadable.is_empty() {
        message += &format!("; {} cannot be read: {}", unreadable.len(), some_of(&unreadable));
    }
    if !other.is_empty() {
        let phrases = some_of(&mismatches(&other));
        message += &format!("; {} have another shape: {phrases}", other.len());
    }
    message += ". Is it another model's file? `pretrain inspect` says what it is";
    Err(Error::Incomplete(message))
}

/// Those of the `missing` tensors that the file has, but in a form that is not read.
fn unreadable(file: &WeightFile, family: Family, fit: &Fit, missing: &[String]) -> Vec<String> {
    let needed = |name: &str| {
        let canonical = fit.naming.from(family, name.strip_prefix(&fit.prefix)?)?;
        missing.contains(&canonical).then_some(())
    };
    let found = file.left_out.iter().filter(|(name, _)| needed(name).is_some());
    found.map(|(name, why)| format!("{name} {why}")).collect()
}

fn nothing_matches(file: &WeightFile, model: &Shapes, options: &LoadOptions) -> Error {
    let names =
        |names: &mut dyn Iterator<Item = &str>| names.take(3).collect::<Vec<_>>().join(", ");
    let mut message = format!(
        "nothing in {} fits the model: it is a {} of {} tensors such as {}, and the model has {}",
        file.path.display(),
        file.format,
        file.tensors.len(),
        names(&mut file.tensors.keys().map(String::as_str)),
        names(&mut model.keys().copied()),
    );
    if !file.left_out.is_empty() {
        let phrases = file.left_out.iter().map(|(name, why)| format!("{name} {why}"));
        message += &format!(". Left out: {}", some_of(&phrases.collect::<Vec<_>>()));
    }
    if file.tensors.keys().any(|name| name.contains("_flat_param")) {
        message += ". It is one process's part of an FSDP model: save its full state dict \
                    (torch.distributed.checkpoint.state_dict.get_model_state_dict)";
    }
    if let Some(naming) = options.naming {
        message += &format!(". Only {naming} naming was tried: leave it open to try all");
    }
    if let Some(prefix) = &options.prefix {
        message += &format!(". Only the prefix {prefix:?} was tried: leave it open to try all");
    }
    Error::Weights(message)
}
