//! Which registered model a file may be of, and what its own shapes tell.

use tch::Device;
use tch::nn::VarStore;

use super::convert::stem;
use super::{Candidate, Naming, WeightFile, inspect};
use crate::models::{self, BuildOptions, Family, MODELS, Model};
use crate::{Error, Result};

impl WeightFile {
    /// Channels of the input: what the stem takes in whichever naming.
    pub fn in_chans(&self) -> Option<i64> {
        let stems = self.tensors.iter().filter(|(_, tensor)| tensor.dim() == 4);
        let stems = stems.filter_map(|(name, tensor)| Some((stem_start(name)?, name, tensor)));
        // A block's `layer1.0.conv1` ends like a stem, but lies deeper; so does much else that
        // has a number only.
        let stem = stems.min_by_key(|(start, name, _)| {
            (name[*start..].starts_with(|first: char| first.is_ascii_digit()), name.len())
        });
        stem.map(|(_, _, tensor)| tensor.size()[1])
    }

    /// The registered model that the file fits completely, classifier aside.
    ///
    /// # Errors
    /// It fits none; the message says how to name one.
    pub fn registered_model(&self) -> Result<&'static Model> {
        let named = self.metadata.get("architecture");
        // timm: `resnet50.a1_in1k` is a resnet50.
        let named =
            named.and_then(|name| models::find(name.split('.').next().unwrap_or(name)).ok());
        if let Some(model) = named {
            return Ok(model);
        }
        let found = inspect(self, &candidates(self.in_chans().unwrap_or(3))?);
        match found.model {
            Some(fit) if fit.is_complete() => models::find(&fit.name),
            _ => Err(Error::Weights(format!(
                "{} fits no registered model completely; name one with --model (see `pretrain \
                 inspect {0}`)",
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
        Family::ConvNeXt | Family::Custom => "head.weight",
    }
}

/// What `name`, less any prefix, is called in memory, for every naming.
fn canonical_ends(name: &str, family: Family) -> impl Iterator<Item = String> {
    starts(name).flat_map(move |start| {
        Naming::ALL.into_iter().filter_map(move |naming| naming.from(family, &name[start..]))
    })
}

/// Where in `name`, behind any prefix, begins what some framework calls the weight
/// that images meet first.
fn stem_start(name: &str) -> Option<usize> {
    starts(name).find(|&start| {
        [Family::ResNet, Family::ConvNeXt].into_iter().any(|family| {
            let here = |naming: Naming| naming.from(family, &name[start..]);
            Naming::ALL.into_iter().any(|naming| here(naming).as_deref() == stem(family))
        })
    })
}

/// The places where a name may begin, behind any prefix.
fn starts(name: &str) -> impl Iterator<Item = usize> {
    std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1))
}

/// Names and shapes of every registered model.
///
/// # Errors
/// `in_chans` below 1.
pub fn candidates(in_chans: i64) -> Result<Vec<Candidate>> {
    let options = BuildOptions { in_chans, uninitialised: true, ..BuildOptions::default() };
    let candidate = |model: &Model| {
        let store = VarStore::new(Device::Cpu);
        model.build(&store.root(), &options)?;
        let mut shapes: Vec<(String, Vec<i64>)> =
            store.variables().into_iter().map(|(name, t)| (name, t.size())).collect();
        shapes.sort();
        Ok((model.name.to_owned(), model.family(), shapes))
    };
    MODELS.iter().map(candidate).collect()
}
