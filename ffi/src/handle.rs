//! A backbone as a host holds it.

use std::ffi::{CString, NulError};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use backbone::graph::GraphModel;
use backbone::models::{self, BuildOptions, Model};
use backbone::weights::{self, LoadOptions, LoadReport, Naming, StateDict};
use backbone::{Backbone, Error, FeatureMap, Mode, Module, NormControl, Result, Stage, hub};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::bridge;
use crate::config::{self, Config};

/// A parameter or buffer; the tensor shares everything with the network's.
#[derive(Debug)]
pub struct Named {
    /// For C, which reads it in place.
    pub name: CString,
    /// The tensor itself.
    pub tensor: Tensor,
}

/// A backbone, its tensors and how it runs. Nothing in it but the switches
/// changes after it is made: tensors change inside libtorch, as any module's.
#[derive(Debug)]
pub struct Handle {
    /// As created; the switches below and the tensors hold what may change.
    config: Config,
    model: Model,
    network: Box<dyn Backbone>,
    out_indices: Vec<usize>,
    parameters: Vec<Named>,
    buffers: Vec<Named>,
    /// What no map of `out_indices` depends on: not the host's, but part of files.
    kept: Vec<Named>,
    /// The batch norms by name, each of which a host may run in its own way.
    norms: Vec<(String, NormControl)>,
    training: AtomicBool,
    norm_eval: AtomicBool,
    freeze_at: AtomicUsize,
}

impl Handle {
    /// A backbone with fresh parameters, those of its `.pt2` file, or those of the weights' file.
    ///
    /// # Errors
    /// A setting out of range, or weights that cannot be loaded.
    pub fn new(config: Config) -> Result<Self> {
        // A host's terminal is its own: no bar is drawn on it unless it asks.
        let model = models::find(&models::local(&config.model, false)?)?;
        Self::of_model(model, config)
    }

    /// A backbone of the network that [`Handle::graph`] gave, whose file is not looked at.
    ///
    /// # Errors
    /// As [`Handle::new`]; other bytes.
    pub fn restored(config: Config, graph: &[u8]) -> Result<Self> {
        let graph = GraphModel::from_bytes(models::short_name(&config.model), graph)?;
        Self::of_model(Model::of_graph(graph), config)
    }

    fn of_model(model: Model, config: Config) -> Result<Self> {
        let kind = config::kind(&config.dtype)?;
        let device = config::device(&config.device)?;
        let uninitialised = config.weights.is_some() && config.strict;
        let handle = Self::build(model, config, uninitialised)?;
        handle.freeze(handle.config.freeze_at)?;
        // Before loading, or float64 weights would be rounded on their way.
        handle.to(Some(kind), Some(device))?;
        if let Some(path) = &handle.config.weights {
            handle.load(path, handle.config.strict)?;
        }
        Ok(handle)
    }

    /// The network in float32 on the CPU, nothing frozen.
    fn build(model: Model, config: Config, uninitialised: bool) -> Result<Self> {
        let store = VarStore::new(Device::Cpu);
        let in_chans = config.in_chans.unwrap_or(model.usual_in_chans());
        let drop_path_rate = config.drop_path_rate;
        let options = BuildOptions { in_chans, drop_path_rate, uninitialised };
        let network = model.build(&store.root(), &options)?;
        let out_indices =
            config::out_indices(config.out_indices.as_deref(), network.stages().len())?;
        let deepest = deepest(&out_indices);
        let mut variables: Vec<_> = store.variables().into_iter().collect();
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, tensor) in &mut variables {
            lay_out_as_pytorch(tensor)?;
        }
        let (used, kept) = variables
            .into_iter()
            .partition::<Vec<_>, _>(|(name, _)| network.is_used(name, deepest));
        let (parameters, buffers) =
            used.into_iter().partition::<Vec<_>, _>(|(_, tensor)| tensor.requires_grad());
        let norms = network.modules().into_iter().filter_map(|(name, module)| match module {
            Module::BatchNorm2d { control, .. } => Some((name, control)),
            _ => None,
        });
        Ok(Self {
            norms: norms.collect(),
            kept: named(kept)?,
            model,
            network,
            out_indices,
            parameters: named(parameters)?,
            buffers: named(buffers)?,
            training: AtomicBool::new(config.training),
            norm_eval: AtomicBool::new(config.norm_eval),
            freeze_at: AtomicUsize::new(0),
            config,
        })
    }

    /// Equal parameters in memory of their own, and equal settings.
    ///
    /// # Errors
    /// No memory.
    pub fn deep_clone(&self) -> Result<Self> {
        let copy = Self::build(self.model.clone(), self.config(), true)?;
        copy.freeze_at.store(self.freeze_at.load(Relaxed), Relaxed);
        for ((_, from), (_, into)) in self.norms.iter().zip(&copy.norms) {
            into.copy(from);
        }
        tch::no_grad(|| {
            for (from, into) in self.tensors().zip(copy.tensors()) {
                let mut into = into.tensor.shallow_clone();
                // Exactly the type and device of the original, tensor by
                // tensor: a host may have changed single ones.
                let (kind, device) = (from.tensor.kind(), from.tensor.device());
                into.f_set_data(&from.tensor.f_detach()?.f_to_device_(device, kind, false, true)?)?;
                let _ = into.f_set_requires_grad(from.tensor.requires_grad())?;
            }
            Ok(copy)
        })
    }

    /// The settings as they are now.
    pub fn config(&self) -> Config {
        Config {
            weights: None,
            strict: true,
            dtype: config::kind_name(self.kind()),
            device: config::device_name(self.device()),
            freeze_at: self.freeze_at.load(Relaxed) as i64,
            norm_eval: self.norm_eval.load(Relaxed),
            training: self.training.load(Relaxed),
            in_chans: Some(self.network.in_chans()),
            ..self.config.clone()
        }
    }

    /// What a network from a `.pt2` file computes; none of a registered model.
    ///
    /// # Errors
    /// Tensors that cannot be written.
    pub fn graph(&self) -> Result<Option<Vec<u8>>> {
        self.model.graph().map(|graph| graph.to_bytes()).transpose()
    }

    /// Stage number and shape of each map that forward puts out.
    pub fn levels(&self) -> Vec<(usize, Stage)> {
        self.out_indices.iter().map(|&index| (index, self.network.stages()[index])).collect()
    }

    /// The maps of `input`, one a level.
    ///
    /// # Errors
    /// An input of another type, device or shape than the backbone takes.
    pub fn forward(&self, input: &Tensor) -> Result<Vec<Tensor>> {
        self.check_input(input)?;
        let mode = if self.training.load(Relaxed) { Mode::train() } else { Mode::eval() };
        let mode = mode
            .with_norm_eval(self.norm_eval.load(Relaxed))
            .with_freeze_at(self.freeze_at.load(Relaxed))
            .with_stages(deepest(&self.out_indices));
        let maps = self.network.forward(&FeatureMap::Grid(input.shallow_clone()), &mode)?;
        Ok(self.out_indices.iter().map(|&index| maps[index].to_grid()).collect())
    }

    /// What libtorch's operators would otherwise refuse in words of their own.
    fn check_input(&self, input: &Tensor) -> Result<()> {
        if !input.defined() {
            return Err(Error::invalid("input", "undefined", "it must be a tensor of images"));
        }
        if !bridge::is_strided(input) {
            return Err(Error::invalid("input", "sparse or opaque", "it must be a dense tensor"));
        }
        if !input.is_floating_point() {
            // The backbone's own check words it.
            return Ok(());
        }
        let (kind, device) = (self.kind(), self.device());
        if input.device() != device {
            let value = bridge::device_name(input);
            let rule = format!("the backbone is on {}", config::device_name(device));
            return Err(Error::invalid("input's device", value, rule + ": move one of them"));
        }
        if input.kind() != kind && !bridge::autocasts(input) {
            let value = config::kind_name(input.kind());
            let rule = format!("the backbone's type is {}", config::kind_name(kind));
            return Err(Error::invalid(
                "input's type",
                value,
                rule + ": convert one of them, or run under autocast",
            ));
        }
        Ok(())
    }

    /// Training or evaluation.
    pub fn set_training(&self, training: bool) {
        self.training.store(training, Relaxed);
    }

    /// Whether batch norms use their running statistics in training, too.
    pub fn set_norm_eval(&self, norm_eval: bool) {
        self.norm_eval.store(norm_eval, Relaxed);
    }

    /// Runs the batch norm called `name` in its own way, see [`NormControl::set`].
    ///
    /// # Errors
    /// There is none of this name.
    pub fn set_norm(&self, name: &str, training: bool, momentum: Option<f64>) -> Result<()> {
        let found = self.norms.iter().find(|(norm, _)| norm == name);
        let (_, control) =
            found.ok_or_else(|| Error::invalid("norm", name, "it must name a batch norm"))?;
        control.set(training, momentum);
        Ok(())
    }

    /// The layers that maps depend on, by name.
    pub fn modules(&self) -> Vec<(String, Module)> {
        let deepest = deepest(&self.out_indices);
        let used = |(name, _): &(String, Module)| self.network.is_used(&weight_of(name), deepest);
        self.network.modules().into_iter().filter(used).collect()
    }

    /// Index of the stage that the layer `name` belongs to, see [`Handle::freeze`].
    pub fn stage_index(&self, name: &str) -> Option<usize> {
        self.network.stage_index(&weight_of(name))
    }

    /// Freezes the stages below `freeze_at` (the stem is stage 0) and thaws the others.
    ///
    /// # Errors
    /// It exceeds the number of stages, the stem included.
    pub fn freeze(&self, freeze_at: i64) -> Result<()> {
        let most = self.network.stages().len() + 1;
        let valid = usize::try_from(freeze_at).ok().filter(|&index| index <= most);
        let freeze_at = valid.ok_or_else(|| {
            let rule = format!("it must be 0 (nothing) to {most} (the stem and every stage)");
            Error::invalid("freeze_at", freeze_at, rule)
        })?;
        for Named { name, tensor } in &self.parameters {
            let stage_index = self.network.stage_index(&name.to_string_lossy());
            let frozen = stage_index.is_some_and(|index| index < freeze_at);
            let _ = tensor.f_set_requires_grad(!frozen)?;
        }
        self.freeze_at.store(freeze_at, Relaxed);
        Ok(())
    }

    /// Converts floating-point tensors and moves all of them, in place, with
    /// their gradients.
    ///
    /// # Errors
    /// No memory on the device; then nothing has changed.
    pub fn to(&self, kind: Option<Kind>, device: Option<Device>) -> Result<()> {
        let (kind, device) = (kind.unwrap_or(self.kind()), device.unwrap_or(self.device()));
        if (kind, device) == (self.kind(), self.device()) {
            return Ok(());
        }
        tch::no_grad(|| {
            // All copies first, so that a failure leaves everything as it was.
            let mut ready = Vec::new();
            for Named { tensor, .. } in self.parameters.iter().chain(&self.buffers) {
                let gradient = Some(tensor.f_grad()?).filter(Tensor::defined);
                for tensor in [Some(tensor.shallow_clone()), gradient].into_iter().flatten() {
                    let kind = if tensor.is_floating_point() { kind } else { tensor.kind() };
                    let moved = tensor.f_detach()?.f_to_device_(device, kind, false, false)?;
                    ready.push((tensor, moved));
                }
            }
            ready.into_iter().try_for_each(|(mut tensor, moved)| Ok(tensor.f_set_data(&moved)?))
        })
    }

    /// Tensors that are trained, in the order of their names.
    pub fn parameters(&self) -> &[Named] {
        &self.parameters
    }

    /// Tensors that are saved but not trained, in the order of their names.
    pub fn buffers(&self) -> &[Named] {
        &self.buffers
    }

    /// What is neither, since no map depends on it, but belongs to whole files; as it was
    /// made or loaded last, whatever became of the others' type and device.
    pub fn kept(&self) -> &[Named] {
        &self.kept
    }

    /// Loads a weight file of any framework, which may lie on a hub.
    ///
    /// # Errors
    /// A file that cannot be read or does not fit; then nothing has changed.
    pub fn load(&self, path: impl AsRef<Path>, strict: bool) -> Result<LoadReport> {
        let path = hub::local_of(path.as_ref(), hub::Want::Weights, false)?;
        let file = weights::read(path)?;
        let family = self.model.family();
        let options = LoadOptions { strict, ..LoadOptions::of(family) };
        weights::load(&self.state(), family, &file, &options).map_err(|error| {
            match error {
                // For the hosts, which all have this setting.
                Error::Incomplete(text) => {
                    Error::Incomplete(format!("{text} With `strict` off, what fits is loaded"))
                }
                error => error,
            }
        })
    }

    /// Writes the encoder; `None` keeps the model's own names. A network from a `.pt2` file is
    /// written whole, with what no map depends on.
    ///
    /// # Errors
    /// A framework without this model, an unknown ending, or a file that cannot
    /// be written.
    pub fn save(&self, path: impl AsRef<Path>, naming: Option<Naming>) -> Result<()> {
        let mut state = self.state();
        for (name, tensor) in &mut state {
            // C++'s Module::to(dtype) converts counters, too.
            if name.ends_with("num_batches_tracked") {
                *tensor = tensor.f_to_kind(Kind::Int64)?;
            } else if self.kept.iter().any(|kept| kept.name.to_bytes() == name.as_bytes()) {
                // What is converted is the host's.
                *tensor = tensor.f_to_kind(self.kind())?;
            }
        }
        match self.model.graph() {
            Some(graph) => save_graph(path.as_ref(), naming, graph, &state),
            None => {
                let naming = naming.unwrap_or(Naming::Official);
                weights::save(path, self.model.family(), naming, &state)
            }
        }
    }

    fn state(&self) -> StateDict {
        self.tensors()
            .map(|named| (named.name.to_string_lossy().into_owned(), named.tensor.shallow_clone()))
            .collect()
    }

    fn tensors(&self) -> impl Iterator<Item = &Named> {
        self.parameters.iter().chain(&self.buffers).chain(&self.kept)
    }

    /// The parameters' type: of the first, since a host changes all at once.
    fn kind(&self) -> Kind {
        self.parameters.first().map_or(Kind::Float, |named| named.tensor.kind())
    }

    fn device(&self) -> Device {
        self.parameters.first().map_or(Device::Cpu, |named| named.tensor.device())
    }
}

/// Writes a network from a `.pt2` file: such a file again, or its state dict.
fn save_graph(
    path: &Path,
    naming: Option<Naming>,
    graph: &GraphModel,
    state: &StateDict,
) -> Result<()> {
    if let Some(naming) = naming {
        let rule = format!("{} was read from a .pt2 file and keeps its own names", graph.name());
        return Err(Error::invalid("naming", naming, rule));
    }
    weights::check_finite("the model", state, "it computes nothing, and is not exported")?;
    match path.extension().is_some_and(|ending| ending == "pt2") {
        true => graph.write_pt2(path, state),
        false => weights::write(path, &graph.state_dict(state)?),
    }
}

/// The tensor that every layer has: networks know the stages of tensors.
fn weight_of(layer: &str) -> String {
    format!("{layer}.weight")
}

/// How many stages are computed.
fn deepest(out_indices: &[usize]) -> usize {
    out_indices.last().map_or(0, |index| index + 1)
}

/// Gives `tensor` the memory that modules of PyTorch have: hosts flatten parameters
/// (L-BFGS, pruning) and write them to files as they lie.
fn lay_out_as_pytorch(tensor: &mut Tensor) -> Result<()> {
    if !tensor.is_contiguous() {
        let laid_out = tch::no_grad(|| tensor.f_detach()?.f_contiguous())?;
        tensor.f_set_data(&laid_out)?;
    }
    Ok(())
}

fn named(variables: Vec<(String, Tensor)>) -> Result<Vec<Named>> {
    variables
        .into_iter()
        .map(|(name, tensor)| {
            let name = CString::new(name).map_err(|error: NulError| {
                Error::invalid("a parameter's name", format!("{error}"), "C ends strings at NUL")
            })?;
            Ok(Named { name, tensor })
        })
        .collect()
}
