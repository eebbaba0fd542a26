//! What is this file: which model, which naming, what else is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use words::counted;

use super::convert;
use super::dtype::{element_count, kind_name};
use super::finite::not_finite;
use super::fit::{Fit, Shapes, best_fit};
use super::load::shapes;
use super::report::{LoadReport, Mismatch, some_of};
use super::sketch::Sketch;
use super::{Format, WeightFile, default_optional};
use crate::models::Family;

/// A model a file may be of: name, family, canonical names and shapes.
pub type Candidate = (String, Family, Vec<(String, Vec<i64>)>);

/// What a weight file holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// What kind of file it is.
    pub format: Format,
    /// How many tensors it has.
    pub tensors: usize,
    /// How many numbers they hold together.
    pub elements: usize,
    /// How many tensors there are of each element type.
    pub dtypes: BTreeMap<&'static str, usize>,
    /// The model it fits best, if any of its tensors fits one.
    pub model: Option<ModelMatch>,
    /// What it looks like, where it fits no model in its greater part.
    pub sketch: Option<Sketch>,
    /// Tensors with values that are not finite, in phrases.
    pub not_finite: Vec<String>,
    /// Tensors that cannot be read, and why, in phrases.
    pub left_out: Vec<String>,
    /// Whether a SparK decoder lies beside the encoder.
    pub spark_decoder: bool,
    /// The text and numbers beside the weights.
    pub metadata: BTreeMap<String, String>,
}

/// How a file fits a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelMatch {
    /// The model's name.
    pub name: String,
    /// The model's family.
    pub family: Family,
    /// Parameters that the file has: all but running statistics and counters.
    pub parameters: usize,
    /// What loading it into the model does.
    pub load: LoadReport,
}

impl ModelMatch {
    /// Whether the greater part of what an encoder needs is there. Fewer tensors are
    /// alike by chance.
    pub fn is_likely(&self) -> bool {
        let LoadReport { missing, mismatched, matched, .. } = &self.load;
        matched.len() > lacking(missing, mismatched)
    }

    /// Whether every tensor that an encoder needs can be loaded.
    pub fn is_complete(&self) -> bool {
        lacking(&self.load.missing, &self.load.mismatched) == 0
    }
}

/// Number of tensors that an encoder needs and does not get.
fn lacking(missing: &[String], mismatched: &[Mismatch]) -> usize {
    let names = missing.iter().chain(mismatched.iter().map(|mismatch| &mismatch.name));
    names.filter(|name| !default_optional(name)).count()
}

/// Says what `file` is, as one of `candidates`.
pub fn inspect(file: &WeightFile, candidates: &[Candidate]) -> Inspection {
    let content = shapes(&file.tensors);
    let elements = content.values().filter_map(|shape| element_count(shape)).sum();
    let mut dtypes = BTreeMap::new();
    for tensor in file.tensors.values() {
        *dtypes.entry(kind_name(tensor.kind())).or_default() += 1;
    }
    let model = best_model(&content, candidates);
    let likely = model.as_ref().is_some_and(ModelMatch::is_likely);
    let named = file.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
    Inspection {
        format: file.format,
        tensors: file.tensors.len(),
        elements,
        dtypes,
        sketch: (!likely).then(|| Sketch::of(&content)),
        model,
        // What cannot be looked into is told when it is loaded.
        not_finite: not_finite(named).unwrap_or_default(),
        left_out: file.left_out.iter().map(|(name, why)| format!("{name} {why}")).collect(),
        spark_decoder: has_decoder(&content),
        metadata: file.metadata.clone(),
    }
}

/// The candidate with the greatest share of common tensors; a larger model
/// that contains the file's, and a smaller one within it, both lose to it.
fn best_model(content: &Shapes, candidates: &[Candidate]) -> Option<ModelMatch> {
    let mut best: Option<(f64, ModelMatch)> = None;
    for (name, family, tensors) in candidates {
        let model: Shapes = tensors.iter().map(|(n, shape)| (n.as_str(), shape.clone())).collect();
        let fit = best_fit(*family, &model, content, None, None);
        let Some(mut fit) = fit.filter(|fit| !fit.matched.is_empty()) else { continue };
        let conversions = convert::needed(*family, &mut fit);
        let share = share(&fit);
        if best.as_ref().is_none_or(|(other, _)| share > *other) {
            best = Some((share, describe(name, *family, &model, fit, conversions.told)));
        }
    }
    best.map(|(_, found)| found)
}

/// Common tensors over all tensors of either side (the Jaccard index). Those
/// an encoder does without count only where they match.
fn share(fit: &Fit) -> f64 {
    let lacking = lacking(&fit.missing, &fit.mismatched);
    fit.matched.len() as f64 / (fit.matched.len() + lacking + fit.surplus) as f64
}

fn describe(
    name: &str,
    family: Family,
    model: &Shapes,
    fit: Fit,
    converted: Vec<String>,
) -> ModelMatch {
    let is_parameter = |name: &str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        !matches!(last, "running_mean" | "running_var" | "num_batches_tracked")
    };
    let matched = fit.matched.keys().filter(|name| is_parameter(name));
    ModelMatch {
        name: name.to_owned(),
        family,
        parameters: matched.filter_map(|name| element_count(&model[name.as_str()])).sum(),
        load: LoadReport::new(fit, converted, Vec::new()),
    }
}

/// A decoder has both its layers and the tokens that stand for masked patches.
fn has_decoder(content: &Shapes) -> bool {
    let parts: BTreeSet<&str> = content.keys().flat_map(|name| name.split('.')).collect();
    parts.contains("dense_decoder") && parts.contains("mask_tokens")
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtypes: Vec<String> =
            self.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}")).collect();
        writeln!(
            f,
            "{}: {} ({}), {}",
            self.format,
            counted(self.tensors, "tensor"),
            dtypes.join(", "),
            counted(self.elements, "number")
        )?;
        match (&self.model, &self.sketch) {
            (Some(found), None) => write!(f, "{found}")?,
            (nearest, sketch) => {
                write!(f, "model: none that is known (`pretrain models` lists those that are)")?;
                if let Some(nearest) = nearest {
                    let alike = counted(nearest.load.matched.len(), "tensor");
                    write!(f, "; {alike} as in {}", nearest.name)?;
                }
                if let Some(sketch) = sketch {
                    write!(f, "\n{sketch}")?;
                }
            }
        }
        if !self.not_finite.is_empty() {
            let count = counted(self.not_finite.len(), "tensor");
            write!(f, "\nnot finite: {count}, {}", some_of(&self.not_finite))?;
        }
        if !self.left_out.is_empty() {
            let count = counted(self.left_out.len(), "tensor");
            write!(f, "\nleft out: {count}, {}", some_of(&self.left_out))?;
        }
        if self.spark_decoder {
            write!(f, "\nSparK decoder: yes, pretraining can go on from it")?;
        }
        for (key, value) in self.metadata.iter().filter(|(_, value)| value.len() <= 200) {
            write!(f, "\n{key}: {value}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ModelMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_complete() { "complete" } else { "incomplete" };
        let parameters = counted(self.parameters, "parameter");
        writeln!(f, "model: {}, {state}, {parameters}", self.name)?;
        let LoadReport { naming, prefix, matched, alternatives, converted, .. } = &self.load;
        write!(f, "naming: {naming}")?;
        if !prefix.is_empty() {
            write!(f, ", prefix {prefix:?}")?;
        }
        write!(f, "\n{} match", counted(matched.len(), "tensor"))?;
        for other in alternatives {
            write!(f, "\n  a set of weights under {other:?} fits as well")?;
        }
        for sentence in converted {
            write!(f, "\n  converted when loaded: {sentence}")?;
        }
        self.load.write_misfits(f)
    }
}
