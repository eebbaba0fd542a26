//! Which registered model a file may be of, and what its own shapes tell.

use tch::Device;
use tch::nn::VarStore;

use super::convert::stem_weight;
use super::{Candidate, Naming, WeightFile, inspect};
use crate::models::{self, BuildOptions, Family, MODELS, Model};
use crate::{Error, Result};

/// From so many input channels on a convolution is rather one of features than of images.
const FEATURES: i64 = 32;

impl WeightFile {
    /// Channels of the input: what the stem takes in whichever naming.
    pub fn in_chans(&self) -> Option<i64> {
        let kernels = self.tensors.iter().filter(|(_, tensor)| tensor.dim() == 4);
        // A block's `layer1.0.conv1` ends like a stem, but lies deeper; a detector's `0.0` takes
        // many channels; a decoder's `0` is less of a stem than a name.
        let ranked = kernels.filter_map(|(name, tensor)| {
            let (chans, numbered) = (tensor.size()[1], is_stem(name)?);
            Some(((chans >= FEATURES, numbered, name.len()), chans))
        });
        ranked.min().map(|(_, chans)| chans)
    }

    /// The registered model that the file fits completely, classifier aside.
    ///
    /// # Errors
    /// It fits none; the message says how to name one.
    pub fn registered_model(&self) -> Result<Model> {
        let named = self.metadata.get("architecture");
        // timm: `resnet50.a1_in1k` is a resnet50.
        let base = named.map(|name| name.split('.').next().unwrap_or(name));
        if let Some(model) = MODELS.iter().find(|model| base == Some(model.name.as_ref())) {
            return Ok(model.clone());
        }
        let found = inspect(self, &candidates(self.in_chans().unwrap_or(3))?);
        match found.model {
            Some(fit) if fit.is_complete() => models::find(&fit.name),
            _ => Err(Error::Weights(format!(
                "{} fits no registered model completely; name one with --model, or the .pt2 file of \
                 its network (see `pretrain inspect {0}`)",
                self.path.display()
            ))),
        }
    }

    /// Classes that the classifier in the file tells apart, if it has one.
    pub fn classes(&self, family: Family) -> Option<i64> {
        let heads = self.tensors.iter().filter(|(name, tensor)| {
            tensor.dim() >= 2 && canonical_ends(name, family).any(|name| name == head(family))
        });
        heads.min_by_key(|(name, _)| name.len()).map(|(_, tensor)| tensor.size()[0])
    }
}

/// The weight of the family's classifier.
fn head(family: Family) -> &'static str {
    match family {
        Family::ResNet => "fc.weight",
        Family::RegNet => "head.fc.weight",
        Family::ConvNeXt | Family::Custom => "head.weight",
    }
}

/// What `name`, less any prefix, is called in memory, for every naming.
fn canonical_ends(name: &str, family: Family) -> impl Iterator<Item = String> {
    ends(name).flat_map(move |end| canonical(end, family))
}

/// `name`, less its first parts: none of them, one, two, ….
fn ends(name: &str) -> impl Iterator<Item = &str> {
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
    starts.map(|start| &name[start..])
}

fn canonical(name: &str, family: Family) -> impl Iterator<Item = String> {
    Naming::ALL.into_iter().filter_map(move |naming| naming.from(family, name))
}

/// Whether `name`, less any prefix, is what some framework calls the weight that images meet
/// first; if so, whether it is so called by numbers alone, as in models that were taken apart.
fn is_stem(name: &str) -> Option<bool> {
    let families = [Family::ResNet, Family::ConvNeXt, Family::RegNet];
    let is_one = |end: &str| {
        let is_stem_of =
            |family| canonical(end, family).any(|own| stem_weight(family) == Some(&own));
        families.into_iter().any(is_stem_of)
    };
    let is_numbered = |end: &str| {
        let parts = end.rsplit('.').skip(1);
        parts.into_iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    ends(name).filter(|end| is_one(end)).map(is_numbered).min()
}

/// Names and shapes of every registered model.
///
/// # Errors
/// `in_chans` below 1.
pub fn candidates(in_chans: i64) -> Result<Vec<Candidate>> {
    let options = BuildOptions { in_chans, uninitialised: true, ..BuildOptions::default() };
    MODELS.iter().map(|model| candidate(model, &options)).collect()
}

/// Names and shapes of one model, with its usual number of input channels.
///
/// # Errors
/// It cannot be built.
pub fn candidate_of(model: &Model) -> Result<Candidate> {
    let in_chans = model.usual_in_chans();
    candidate(model, &BuildOptions { in_chans, uninitialised: true, ..BuildOptions::default() })
}

fn candidate(model: &Model, options: &BuildOptions) -> Result<Candidate> {
    let store = VarStore::new(Device::Cpu);
    model.build(&store.root(), options)?;
    let mut shapes: Vec<(String, Vec<i64>)> =
        store.variables().into_iter().map(|(name, t)| (name, t.size())).collect();
    shapes.sort();
    Ok((model.name.clone().into_owned(), model.family(), shapes))
}
