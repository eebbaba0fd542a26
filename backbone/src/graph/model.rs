//! A network out of a file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use tch::nn;
use tch::{Kind, Tensor};

use super::analyse::{Analysed, Parts, Refused, STAGES, analyse};
use super::network::GraphBackbone;
use super::stages::Levels;
use crate::layers::drop_path_rates;
use crate::models::BuildOptions;
use crate::pt2::{Archive, Program, Value};
use crate::weights::StateDict;
use crate::{Backbone, Error, FeatureMap, Mode, Result, Stage, hub};

/// A network read from a `.pt2` file: its graph, and the weights in it.
#[derive(Debug)]
pub struct GraphModel {
    name: String,
    archive: Archive,
    pub(super) parts: Arc<Parts>,
    pub(super) levels: Levels,
    pub(super) verdicts: Vec<Refused>,
}

impl GraphModel {
    /// Reads `path`, which may name a file on a hub ([`hub::local`]). `stages` names the modules whose outputs are the stages, finest first; empty:
    /// they are found.
    ///
    /// # Errors
    /// No `.pt2` of a network that runs here; a file of a hub that cannot be fetched.
    pub fn open(path: &Path, stages: &[String]) -> Result<Self> {
        let path = &*hub::local_of(path, hub::Want::Network, true)?;
        let mut archive = Archive::open(path)?;
        archive.set_note(STAGES, &stages.join(","));
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Self::new(&name.unwrap_or_default(), archive)
            .map_err(|problem| Error::format(path, problem))
    }

    /// The network that [`GraphModel::to_bytes`] wrote; `name` is what it is called.
    ///
    /// # Errors
    /// Bytes that it did not write.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self> {
        let origin = Path::new(name);
        let archive = Archive::from_bytes(origin, bytes)?;
        Self::new(name, archive).map_err(|problem| Error::format(origin, problem))
    }

    fn new(name: &str, archive: Archive) -> std::result::Result<Self, String> {
        let Analysed { parts, levels, verdicts } = analyse(&archive, false)?;
        Ok(Self { name: name.to_owned(), archive, parts: Arc::new(parts), levels, verdicts })
    }

    /// The whole network, as far as what it returns (a classifier's logits), on whole images; its
    /// variables lie under `path` and have the file's values.
    ///
    /// # Errors
    /// An operator that cannot be run; tensors that are not in the file.
    pub fn whole(&self, path: &nn::Path) -> Result<WholeNetwork> {
        let analysed = analyse(&self.archive, true)
            .map_err(|problem| Error::invalid("model", &self.name, problem))?;
        let parts = Arc::new(analysed.parts);
        let tensors = self.tensors_of(&parts, path, false)?;
        let rates = parts.network.drop_path.clone();
        let sizes = returned_sizes(&parts.program);
        Ok(WholeNetwork { network: GraphBackbone::new(parts, &tensors, rates)?, sizes })
    }

    /// The graph, its stages and the tensors that no stage needs, for a checkpoint to carry: all
    /// that [`GraphModel::build`] and the exports take besides the network's own variables.
    ///
    /// # Errors
    /// Tensors that cannot be written.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.archive.to_bytes(&|name| !self.is_variable(name))
    }

    /// Whether a tensor is one of the network's variables: a parameter or buffer of the state dict
    /// that a stage needs.
    fn is_variable(&self, name: &str) -> bool {
        self.parts.stages_of_names.contains_key(name)
            && self.archive.state_names().any(|own| own == name)
    }

    /// The file's name without its ending.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The levels of the pyramid.
    pub fn stages(&self) -> &[Stage] {
        &self.parts.stages
    }

    /// Why the network cannot be pretrained, if it cannot: it runs on the whole grid alone.
    pub fn refusal(&self) -> Option<&str> {
        self.parts.refusal.as_deref()
    }

    /// Whether blocks of the network drop their path in training.
    pub fn has_drop_path(&self) -> bool {
        !self.parts.network.drop_path.is_empty()
    }

    /// Whether it holds the values of the variables that [`GraphModel::build`] makes: it does when
    /// it was read from a file, not when a checkpoint carried it.
    pub fn has_weights(&self) -> bool {
        let mut variables = self.archive.state_names().filter(|name| self.is_variable(name));
        variables.all(|name| self.archive.tensors().contains_key(name))
    }

    /// The network with its variables under `path`, by the names of its state dict. They have the
    /// file's values unless `options` leaves them uninitialised (or they are not there).
    ///
    /// # Errors
    /// `options` that it was not exported for: other channels, a drop-path rate without blocks
    /// that drop.
    pub fn build(&self, path: &nn::Path, options: &BuildOptions) -> Result<Box<dyn Backbone>> {
        let BuildOptions { in_chans, drop_path_rate, uninitialised } = *options;
        if in_chans != self.parts.in_chans {
            let rule = format!("{} was exported for {} channels", self.name, self.parts.in_chans);
            return Err(Error::invalid("in_chans", in_chans, rule));
        }
        let sites = self.parts.network.drop_path.len();
        if drop_path_rate > 0.0 && sites == 0 {
            let rule = format!(
                "{} has no drop-path: --drop-path 0 leaves it so; to drop, export it with a rate \
                 above 0 and in train mode",
                self.name
            );
            return Err(Error::invalid("drop_path_rate", drop_path_rate, rule));
        }
        let rates = match drop_path_rate {
            0.0 => self.parts.network.drop_path.clone(),
            rate => drop_path_rates(rate, sites),
        };
        let tensors = self.tensors_of(&self.parts, path, uninitialised)?;
        Ok(Box::new(GraphBackbone::new(Arc::clone(&self.parts), &tensors, rates)?))
    }

    /// The tensors of a network by name: new variables under `path`, and constants.
    fn tensors_of(
        &self,
        parts: &Parts,
        path: &nn::Path,
        uninitialised: bool,
    ) -> Result<HashMap<String, Tensor>> {
        let mut tensors = HashMap::new();
        for name in self.archive.state_names() {
            if parts.stages_of_names.contains_key(name) {
                let tensor = self.variable(path, name, uninitialised)?;
                tensors.insert(name.to_owned(), tensor);
            }
        }
        for (name, tensor) in self.archive.tensors() {
            if parts.stages_of_names.contains_key(name) && !tensors.contains_key(name) {
                tensors.insert(name.clone(), tensor.shallow_clone());
            }
        }
        Ok(tensors)
    }

    /// The names of the network's variables.
    fn variables(&self) -> impl Iterator<Item = &str> {
        self.archive.state_names().filter(|name| self.is_variable(name))
    }

    /// A new variable called `name` under `path`.
    fn variable(&self, path: &nn::Path, name: &str, uninitialised: bool) -> Result<Tensor> {
        let meta = self.archive.meta(name);
        let meta = meta.ok_or_else(|| Error::Weights(format!("{name} is not in the file")))?;
        let kind = match meta.kind {
            Some(Kind::Int64) => Kind::Int64,
            Some(Kind::Bool) => Kind::Bool,
            _ => Kind::Float,
        };
        let stored = self.archive.tensors().get(name).filter(|_| !uninitialised);
        let mut tensor = match stored {
            Some(stored) => stored.detach().copy().to_kind(kind),
            None => Tensor::zeros(&meta.size, (kind, tch::Device::Cpu)),
        };
        if meta.size.len() == 4 {
            tensor = tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2]);
        }
        let mut parts: Vec<&str> = name.split('.').collect();
        let last = parts.pop().unwrap_or(name);
        let path = parts.into_iter().fold(path.clone(), |path, part| &path / part);
        let learns = self.archive.is_parameter(name) && kind == Kind::Float;
        Ok(path.add(last, tensor.to_device(path.device()), learns))
    }

    /// Copies the file's values into `target`, variables by name, in their own type and on their
    /// own device.
    ///
    /// # Errors
    /// Another shape.
    pub fn load(&self, target: &StateDict) -> Result<()> {
        tch::no_grad(|| {
            for (name, into) in target {
                if let Some(from) = self.archive.tensors().get(name) {
                    into.shallow_clone().f_copy_(from)?;
                }
            }
            Ok(())
        })
    }

    /// Numbers that are trained.
    pub(super) fn parameter_count(&self) -> i64 {
        let parameters = self.variables().filter(|name| self.archive.is_parameter(name));
        let sizes = parameters.filter_map(|name| self.archive.meta(name));
        sizes.map(|meta| meta.size.iter().product::<i64>()).sum()
    }

    /// Channels of the input image.
    pub fn in_chans(&self) -> i64 {
        self.parts.in_chans
    }

    /// The whole state dict under its original names: `tensors`, the network's variables, and what
    /// no stage needs as it is in the file.
    ///
    /// # Errors
    /// A variable is missing.
    pub fn state_dict(&self, tensors: &StateDict) -> Result<StateDict> {
        let aliases = self.aliases();
        let find = |name: &str| {
            let alias = aliases.get(name).and_then(|own| tensors.get(own));
            tensors.get(name).or(alias).or_else(|| self.archive.tensors().get(name))
        };
        self.archive
            .state_names()
            .map(|name| {
                let tensor = find(name).ok_or_else(|| {
                    Error::Weights(format!("{name} is neither trained nor in the file"))
                })?;
                Ok((name.to_owned(), tensor.detach()))
            })
            .collect()
    }

    /// Names of the state dict that share a tensor with one of the network's variables.
    fn aliases(&self) -> BTreeMap<String, String> {
        let shared = |name: &str| self.archive.storage(name);
        let variables: HashMap<_, &str> =
            self.variables().filter_map(|name| Some((shared(name)?, name))).collect();
        let names = self.archive.state_names().filter(|name| !self.is_variable(name));
        names
            .filter_map(|name| {
                let own = variables.get(&shared(name)?)?;
                Some((name.to_owned(), (*own).to_owned()))
            })
            .collect()
    }

    /// Writes a `.pt2` of the whole network with these variables, which `torch.export.load` reads.
    ///
    /// # Errors
    /// [`crate::Error::Io`], or a variable that is missing.
    pub fn write_pt2(&self, path: &Path, tensors: &StateDict) -> Result<()> {
        self.archive.write(path, &self.state_dict(tensors)?)
    }
}

/// The shapes of what the program returns, as they were when it was exported.
fn returned_sizes(program: &Program) -> Vec<Vec<i64>> {
    let names = program.outputs.iter().flat_map(|output| match output {
        Value::Tensor(name) => vec![name],
        Value::Tensors(names) => names.iter().flatten().collect(),
        _ => Vec::new(),
    });
    names.filter_map(|name| Some(program.tensors.get(name)?.size.clone())).collect()
}

/// A network as far as what it returns.
#[derive(Debug)]
pub struct WholeNetwork {
    network: GraphBackbone,
    sizes: Vec<Vec<i64>>,
}

impl WholeNetwork {
    /// The shapes of what it returns, as they were when it was exported.
    pub fn sizes(&self) -> &[Vec<i64>] {
        &self.sizes
    }

    /// What the network returns for normalised `images` `[N, C, H, W]`: its tensors in order, such as
    /// logits `[N, classes]`.
    ///
    /// # Errors
    /// Images that it does not take.
    pub fn forward(&self, images: &Tensor, mode: &Mode) -> Result<Vec<Tensor>> {
        self.network.returned(&FeatureMap::Grid(images.shallow_clone()), mode)
    }
}
