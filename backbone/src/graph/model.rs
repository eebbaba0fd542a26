//! A network out of a file.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use tch::nn;
use tch::{Kind, Tensor};

use super::lower::{Lowered, lower, name_of, stages_of_calls};
use super::network::GraphBackbone;
use super::rules::Analysis;
use super::ssa::{Ssa, ValueId};
use super::stages::{Finder, Levels};
use crate::layers::drop_path_rates;
use crate::models::BuildOptions;
use crate::pt2::{Archive, Program};
use crate::weights::StateDict;
use crate::{Backbone, Error, Result, Stage};

/// The note of an archive that names the stages' modules.
const STAGES: &str = "stages";

/// A network read from a `.pt2` file: its graph, and the weights in it.
#[derive(Debug)]
pub struct GraphModel {
    name: String,
    archive: Archive,
    pub(super) parts: Arc<Parts>,
    pub(super) levels: Levels,
    pub(super) verdicts: Vec<Refused>,
}

/// An operator without a meaning on visible patches.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub node: usize,
    pub reason: String,
}

/// What a network and its model share.
#[derive(Debug)]
pub(super) struct Parts {
    pub program: Program,
    pub network: Lowered,
    /// Names of parameters, buffers and constants by value.
    pub names: HashMap<ValueId, String>,
    pub stages: Vec<Stage>,
    pub in_chans: i64,
    /// Pixels of a mask patch's side.
    pub total_stride: i64,
    pub refusal: Option<String>,
    /// By name of a parameter or buffer: the first stage that needs it.
    stages_of_names: HashMap<String, usize>,
    /// The layer that a parameter belongs to, from the image on.
    pub(super) layers: HashMap<String, usize>,
}

impl Parts {
    pub fn stages_of_names(&self) -> HashMap<String, usize> {
        self.stages_of_names.clone()
    }

    /// A node as a reader knows it: operator, module, the user's line.
    pub fn describe_node(&self, node: usize) -> String {
        describe_node(&self.program, node)
    }
}

/// A node as a reader knows it: operator, module, the user's line.
fn describe_node(program: &Program, node: usize) -> String {
    let node = &program.nodes[node];
    let operator = node.target.trim_start_matches("torch.ops.").trim_end_matches(".default");
    let module = match node.module.as_str() {
        "" => String::new(),
        module => format!(" in {module}"),
    };
    let class = node.class.rsplit('.').next().filter(|class| !class.is_empty());
    let class = class.map_or_else(String::new, |class| format!(" ({class})"));
    match &node.location {
        Some((place, code)) if !code.is_empty() => {
            format!("{operator}{module}{class}, {place}: `{}`", code.trim())
        }
        Some((place, _)) => format!("{operator}{module}{class}, {place}"),
        None => format!("{operator}{module}{class}"),
    }
}

impl GraphModel {
    /// Reads `path`. `stages` names the modules whose outputs are the stages, finest first; empty:
    /// they are found.
    ///
    /// # Errors
    /// No `.pt2` of a network that runs here.
    pub fn open(path: &Path, stages: &[String]) -> Result<Self> {
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
        let program = archive.program().clone();
        let ssa = Ssa::new(&program)?;
        let &[image] = &ssa.user_inputs[..] else {
            return Err(format!(
                "its network takes {} inputs, but a backbone takes one: a batch of images",
                ssa.user_inputs.len()
            ));
        };
        let analysis = Analysis::new(&ssa, image)?;
        let chosen: Vec<String> = archive
            .note(STAGES)
            .unwrap_or("")
            .split(',')
            .filter(|module| !module.is_empty())
            .map(str::to_owned)
            .collect();
        let finder = Finder { program: &program, ssa: &ssa, analysis: &analysis, image };
        let levels = finder.find(&chosen)?;
        let needed = stages_of_calls(&ssa, &analysis, &levels);
        let calls = || ssa.calls.iter().zip(&needed).enumerate().filter(|(_, (_, s))| s.is_some());
        // Whatever it runs on, values that changed unseen would be wrong.
        for (index, (call, _)) in calls() {
            if let (Some(_), Some(reason)) = (&call.stale, &analysis.refusals[index]) {
                return Err(format!("{}: {reason}", describe_node(&program, call.node)));
            }
        }
        let verdicts: Vec<Refused> = calls()
            .filter_map(|(index, (call, _))| {
                let reason = analysis.refusals[index].clone()?;
                Some(Refused { node: call.node, reason })
            })
            .collect();
        let network = lower(&ssa, &analysis, &levels, image)
            .map_err(|error| format!("its graph cannot be run: {error}"))?;
        let stages: Vec<Stage> = levels
            .levels
            .iter()
            .map(|level| Stage { channels: level.channels, stride: level.stride })
            .collect();
        let total_stride = stages.last().map_or(1, |stage| stage.stride);
        let mut refusal = verdicts.first().map(|first| refusal_of(&program, first, &verdicts));
        if refusal.is_none() {
            refusal = uneven_stride(&network, total_stride);
        }
        let names = (0..ssa.values.len())
            .filter_map(|id| Some((id, name_of(&ssa, id)?.to_owned())))
            .collect::<HashMap<_, _>>();
        let stages_of_names = stages_by_name(&network, &names);
        let parts = Parts {
            layers: layers_by_name(&network, &names),
            in_chans: ssa.values[image].size[1],
            program,
            network,
            names,
            stages,
            total_stride,
            refusal,
            stages_of_names,
        };
        Ok(Self { name: name.to_owned(), archive, parts: Arc::new(parts), levels, verdicts })
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
                "{} has no drop-path: export it with a rate above 0, and in training mode",
                self.name
            );
            return Err(Error::invalid("drop_path_rate", drop_path_rate, rule));
        }
        let rates = match drop_path_rate {
            0.0 => self.parts.network.drop_path.clone(),
            rate => drop_path_rates(rate, sites),
        };
        let mut tensors = HashMap::new();
        for name in self.variables() {
            let tensor = self.variable(path, name, uninitialised)?;
            tensors.insert(name.to_owned(), tensor);
        }
        for (name, tensor) in self.archive.tensors() {
            if self.parts.stages_of_names.contains_key(name) && !tensors.contains_key(name) {
                tensors.insert(name.clone(), tensor.shallow_clone());
            }
        }
        Ok(Box::new(GraphBackbone::new(Arc::clone(&self.parts), &tensors, rates)?))
    }

    /// The names of the network's variables: those that stages need, and the counters beside them.
    fn variables(&self) -> impl Iterator<Item = &str> {
        let counts = |name: &str| {
            name.strip_suffix("num_batches_tracked").is_some_and(|module| {
                self.parts.stages_of_names.contains_key(&format!("{module}running_mean"))
            })
        };
        self.archive.state_names().filter(move |name| self.is_variable(name) || counts(name))
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

    /// The layer that the parameter `name` belongs to, counted from the image on, and how many there
    /// are: blocks of a list of modules, or modules.
    pub fn layer_of(&self, name: &str) -> Option<(usize, usize)> {
        let count = self.parts.layers.values().max().map_or(0, |last| last + 1);
        self.parts.layers.get(name).map(|&layer| (layer, count))
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

/// The sentence about a network that cannot be pretrained.
fn refusal_of(program: &Program, first: &Refused, all: &[Refused]) -> String {
    let more = match all.len() {
        1 => String::new(),
        count => format!(" (and {} more operators)", count - 1),
    };
    format!(
        "{}: {}{more}. It has no meaning on visible patches alone; --stages may name modules before \
         it, or another operator may take its place. Detection and embedding, which see whole \
         images, run it as it is",
        describe_node(program, first.node),
        first.reason
    )
}

/// A patch must be whole at every grid that the network passes through.
fn uneven_stride(network: &Lowered, total: i64) -> Option<String> {
    let strides = network.steps.iter().flat_map(|step| &step.outputs).filter_map(|&id| {
        let layout = &network.layouts[id];
        let extent = layout.map_extent().or(layout.channels_last_extent())?;
        network.extents.get(extent).stride
    });
    let uneven = strides.into_iter().find(|(down, across)| total % down != 0 || total % across != 0);
    uneven.map(|(down, across)| {
        format!(
            "it passes through a grid of stride {down}×{across}, but its coarsest stage has stride \
             {total}: name a coarser stage with --stages"
        )
    })
}

/// By name: the first stage whose steps read it.
fn stages_by_name(network: &Lowered, names: &HashMap<ValueId, String>) -> HashMap<String, usize> {
    let mut stages = HashMap::new();
    for step in &network.steps {
        for id in reads_with_norm(network, step) {
            if let Some(name) = names.get(&id) {
                stages.entry(name.clone()).or_insert(step.stage);
            }
        }
    }
    // Counters that nothing reads stand beside the means.
    let counters: Vec<(String, usize)> = stages
        .iter()
        .filter_map(|(name, &stage)| {
            Some((format!("{}num_batches_tracked", name.strip_suffix("running_mean")?), stage))
        })
        .collect();
    stages.extend(counters);
    stages
}

/// The values that a step reads, those of its batch norm among them.
fn reads_with_norm(network: &Lowered, step: &super::lower::Step) -> Vec<ValueId> {
    let mut reads = step.kind.reads();
    if let super::lower::StepKind::BatchNorm { norm, .. } = &step.kind {
        let norm = &network.norms[*norm];
        reads.extend([norm.mean, norm.var]);
        reads.extend(norm.weight.into_iter().chain(norm.bias));
    }
    reads
}

/// By name: the number of its layer. A layer is an entry of a list of modules (`blocks.3`), or the
/// module itself where it is in none.
fn layers_by_name(network: &Lowered, names: &HashMap<ValueId, String>) -> HashMap<String, usize> {
    let mut order: Vec<String> = Vec::new();
    let mut layers = HashMap::new();
    for step in &network.steps {
        for id in reads_with_norm(network, step) {
            let Some(name) = names.get(&id) else { continue };
            let parts: Vec<&str> = name.split('.').collect();
            let numbered = parts.iter().take(parts.len() - 1).rposition(|part| {
                part.bytes().all(|byte| byte.is_ascii_digit())
            });
            let end = numbered.map_or(parts.len().saturating_sub(2).max(1), |at| at + 1);
            let layer = parts[..end].join(".");
            let number = order.iter().position(|own| *own == layer).unwrap_or_else(|| {
                order.push(layer);
                order.len() - 1
            });
            layers.entry(name.clone()).or_insert(number);
        }
    }
    layers
}
