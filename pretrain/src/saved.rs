//! A SparK model, or just its encoder, out of whatever file people have.

use std::path::Path;

use anyhow::{Context, Result, bail};
use backbone::Backbone;
use backbone::models::{BuildOptions, Family, Model};
use backbone::weights::{self, LoadOptions, LoadReport, StateDict, WeightFile};
use engine::checkpoint::CheckpointFile;
use engine::remote::find_model;
use engine::run_dir::resolve_checkpoint;
use tch::{Device, Kind, nn};

use crate::config::{TrainConfig, check_pretrainable};
use crate::spark::{ENCODER_PREFIX, Spark};
use crate::train::TrainState;

/// Weights, and the settings they were trained with if they tell.
#[derive(Debug)]
pub struct LoadedWeights {
    /// Every tensor by its name in the file; of our own checkpoints the averages where there are
    /// any.
    pub file: WeightFile,
    /// Settings of the run, in our own checkpoints.
    pub config: Option<TrainConfig>,
    /// The network that a checkpoint of a `.pt2` file's carries.
    pub carried: Option<Model>,
}

impl LoadedWeights {
    /// Reads a run folder (its last checkpoint), one of our checkpoints, or a
    /// weight file of any format.
    ///
    /// # Errors
    /// The file cannot be read or is no weight file.
    pub fn open(path: &Path) -> Result<Self> {
        let path = &resolve_checkpoint(path)?;
        let own = CheckpointFile::open(path).ok().filter(|f| f.sections().contains("model"));
        if let Some(checkpoint) = own {
            let state = TrainState::read(&checkpoint).with_context(|| {
                format!("{} is no checkpoint of `pretrain train`", path.display())
            })?;
            let averaged = state.config.optim.ema > 0.0 && checkpoint.sections().contains("ema");
            let section = if averaged { "ema" } else { "model" };
            let file = WeightFile::from_tensors(path, checkpoint.section(section)?);
            let carried = engine::graph::carried(&checkpoint)?;
            return Ok(Self { file, config: Some(state.config), carried });
        }
        Ok(Self { file: weights::read(path)?, config: None, carried: None })
    }

    /// The model: the one named, else the run's, else the registered one that
    /// fits best.
    ///
    /// # Errors
    /// An unknown name, a `.pt2` file that cannot be read, or a file that fits no model completely.
    pub fn model(&self, name: Option<&str>) -> Result<Model> {
        match (name, &self.carried, &self.config) {
            (Some(name), ..) => Ok(find_model(name)?),
            (None, Some(carried), _) => Ok(carried.clone()),
            (None, None, Some(config)) => Ok(find_model(&config.model)?),
            (None, None, None) => Ok(self.file.registered_model()?),
        }
    }

    /// Channels of the input: the run's, else what the stem of the file takes
    /// in whichever naming, else 3.
    pub fn in_chans(&self) -> i64 {
        let own = self.config.as_ref().map(|config| config.in_chans);
        own.or_else(|| self.file.in_chans()).unwrap_or(3)
    }

    /// The same of a model: one from a `.pt2` file has its own.
    pub fn in_chans_of(&self, model: &Model) -> i64 {
        model.graph().map_or_else(|| self.in_chans(), |graph| graph.in_chans())
    }

    /// Settings of the run, or, for weights that come without, those of the paper, to prepare and
    /// mask images by.
    pub fn image_config(&self, model: &Model) -> TrainConfig {
        let foreign =
            || TrainConfig { in_chans: self.in_chans_of(model), ..TrainConfig::default() };
        self.config.clone().unwrap_or_else(foreign)
    }

    /// Whether the file holds a whole SparK model, decoder included.
    pub fn has_decoder(&self) -> bool {
        self.decoder_width().is_some()
    }

    fn decoder_width(&self) -> Option<i64> {
        let first = "dense_decoder.dec.0.up_sample.weight";
        let found = self.file.tensors.iter().find(|(name, _)| name.ends_with(first));
        found.map(|(_, tensor)| tensor.size()[0])
    }

    /// The whole SparK model, on `device`, in float64 if `kind` is that, else in
    /// float32.
    ///
    /// # Errors
    /// The file holds an encoder alone, tensors are missing or of other shapes, or the network runs
    /// on the whole grid alone.
    pub fn spark(
        &self,
        model: &Model,
        device: Device,
        kind: Kind,
    ) -> Result<(Spark, nn::VarStore)> {
        let Some(width) = self.decoder_width() else {
            bail!(
                "{} holds no SparK decoder, so it cannot reconstruct; use a checkpoint of a run, \
                 or the official *_withdecoder_*.pth",
                self.file.path.display()
            );
        };
        check_pretrainable(model)?;
        let options = self.options(model);
        let mut store = nn::VarStore::new(device);
        let spark = Spark::new(&store.root(), width, |path| model.build(path, &options))?;
        // Before loading: the file may hold more digits than float32.
        if kind == Kind::Double {
            store.double();
        }
        load_spark(&self.file, model.family(), &store)?;
        Ok((spark, store))
    }

    /// How a model is built that the file's tensors go into.
    fn options(&self, model: &Model) -> BuildOptions {
        let in_chans = self.in_chans_of(model);
        BuildOptions { in_chans, uninitialised: true, ..BuildOptions::default() }
    }

    /// The encoder's tensors by canonical names.
    ///
    /// # Errors
    /// The file fits the model only in part.
    pub fn encoder(&self, name: Option<&str>) -> Result<(Model, StateDict)> {
        let model = self.model(name)?;
        let (_, store) = self.backbone(&model, Device::Cpu)?;
        let tensors = store.variables().into_iter().collect();
        Ok((model, tensors))
    }

    /// The encoder, on `device`, in float32.
    ///
    /// # Errors
    /// The file fits the model only in part.
    pub fn backbone(
        &self,
        model: &Model,
        device: Device,
    ) -> Result<(Box<dyn Backbone>, nn::VarStore)> {
        let store = nn::VarStore::new(device);
        let backbone = model.build(&store.root(), &self.options(model))?;
        let target: StateDict = store.variables().into_iter().collect();
        let family = model.family();
        weights::load(&target, family, &self.file, &LoadOptions::of(family))?;
        Ok((backbone, store))
    }
}

/// Loads `file` into a whole SparK model if it has a decoder for as many channels, else
/// into its encoder, whose first convolution is converted.
///
/// # Errors
/// The file fits only in part.
pub fn load_weights(
    path: &Path,
    family: Family,
    in_chans: i64,
    store: &nn::VarStore,
) -> Result<LoadReport> {
    let saved = LoadedWeights::open(path)?;
    if saved.has_decoder() {
        if saved.in_chans() == in_chans {
            return load_spark(&saved.file, family, store);
        }
        eprintln!(
            "{} is for {} channels: its encoder is converted to {in_chans}, the decoder begins anew",
            path.display(),
            saved.in_chans()
        );
    }
    let prefix = format!("{ENCODER_PREFIX}.");
    let target: StateDict = store
        .variables()
        .into_iter()
        .filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?.to_owned(), tensor)))
        .collect();
    Ok(weights::load(&target, family, &saved.file, &LoadOptions::of(family))?)
}

/// Official checkpoints carry the names a SparK model has here.
fn load_spark(file: &WeightFile, family: Family, store: &nn::VarStore) -> Result<LoadReport> {
    let target: StateDict = store.variables().into_iter().collect();
    let optional = match family {
        Family::Custom => weights::is_counter,
        _ => |name: &str| {
            let encoder = name.strip_prefix(ENCODER_PREFIX).and_then(|name| name.strip_prefix('.'));
            weights::default_optional(encoder.unwrap_or(name))
        },
    };
    let options = LoadOptions { optional, ..LoadOptions::default() };
    weights::load(&target, Family::Custom, file, &options)
        .with_context(|| format!("{} does not fit", file.path.display()))
}
