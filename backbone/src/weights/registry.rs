//! Which registered model a file may be of, and what its own shapes tell.

use tch::Device;
use tch::nn::VarStore;

use super::convert::stem;
use super::{Candidate, Naming, WeightFile, inspect};
use crate::models::{self, BuildOptions, Family, MODELS, Model};
use crate::{Error, Result};

/// From so many input channels on a convolution is rather one of features than of images.
const FEATURES: i64 = 32;

impl WeightFile {
    /// Channels of the input: what the stem takes in whichever naming.
    pub fn in_chans(&self) -> Option<i64> {
        let stems = self.tensors.iter().filter(|(name, t)| t.dim() == 4 && is_stem(name));
        // A block's `layer1.0.conv1` ends like a stem, but lies deeper; a detector's `0.0` takes
        // many channels.
        let chans = |tensor: &tch::Tensor| tensor.size()[1];
        stems
            .min_by_key(|(name, tensor)| (chans(tensor) >= FEATURES, name.len()))
            .map(|(_, tensor)| chans(tensor))
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
    let starts = std::iter::once(0).chain(name.match_indices('.').map(|(dot, _)| dot + 1));
    starts.flat_map(move |start| {
        Naming::ALL.into_iter().filter_map(move |naming| naming.from(family, &name[start..]))
    })
}

/// Whether `name`, less any prefix, is what some framework calls the weight
/// that images meet first.
fn is_stem(name: &str) -> bool {
    [Family::ResNet, Family::ConvNeXt].into_iter().any(|family| {
        let stem = stem(family);
        canonical_ends(name, family).any(|name| Some(name.as_str()) == stem)
    })
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
