//! A SparK model, or just its encoder, out of whatever file people have.

use std::path::Path;

use anyhow::{Context, Result, bail};
use backbone::models::{self, BuildOptions, Family, Model};
use backbone::weights::{self, LoadOptions, LoadReport, StateDict, WeightFile};
use engine::checkpoint::CheckpointFile;
use engine::run_dir::resolve_checkpoint;
use tch::{Device, Kind, nn};

use crate::config::TrainConfig;
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
            let state = TrainState::read(&checkpoint)?;
            let averaged = state.config.optim.ema > 0.0 && checkpoint.sections().contains("ema");
            let section = if averaged { "ema" } else { "model" };
            let file = WeightFile::from_tensors(path, checkpoint.section(section)?);
            return Ok(Self { file, config: Some(state.config) });
        }
        Ok(Self { file: weights::read(path)?, config: None })
    }

    /// The registered model: the one named, else the run's, else the one that
    /// fits best.
    ///
    /// # Errors
    /// An unknown name, or a file that fits no model completely.
    pub fn model(&self, name: Option<&str>) -> Result<Model> {
        if let Some(name) = name.or(self.config.as_ref().map(|config| config.model.as_str())) {
            return Ok(models::find(name)?);
        }
        Ok(self.file.registered_model()?)
    }

    /// Channels of the input: the run's, else what the stem of the file takes
    /// in whichever naming, else 3.
    pub fn in_chans(&self) -> i64 {
        let own = self.config.as_ref().map(|config| config.in_chans);
        own.or_else(|| self.file.in_chans()).unwrap_or(3)
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
    /// The file holds an encoder alone, or tensors are missing or of other
    /// shapes.
    pub fn spark(
        &self,
        name: Option<&str>,
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
        let model = self.model(name)?;
        let options = BuildOptions {
            in_chans: self.in_chans(),
            uninitialised: true,
            ..BuildOptions::default()
        };
        let mut store = nn::VarStore::new(device);
        let spark = Spark::new(&store.root(), width, |path| model.build(path, &options))?;
        // Before loading: the file may hold more digits than float32.
        if kind == Kind::Double {
            store.double();
        }
        load_spark(&self.file, &store)?;
        Ok((spark, store))
    }

    /// The encoder's tensors by canonical names.
    ///
    /// # Errors
    /// The file fits the model only in part.
    pub fn encoder(&self, name: Option<&str>) -> Result<(Model, StateDict)> {
        let model = self.model(name)?;
        let options = BuildOptions {
            in_chans: self.in_chans(),
            uninitialised: true,
            ..BuildOptions::default()
        };
        let store = nn::VarStore::new(Device::Cpu);
        model.build(&store.root(), &options)?;
        let target: StateDict = store.variables().into_iter().collect();
        weights::load(&target, model.family(), &self.file, &LoadOptions::default())?;
        Ok((model, target))
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
            return load_spark(&saved.file, store);
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
    Ok(weights::load(&target, family, &saved.file, &LoadOptions::default())?)
}

/// Official checkpoints carry the names a SparK model has here.
fn load_spark(file: &WeightFile, store: &nn::VarStore) -> Result<LoadReport> {
    let target: StateDict = store.variables().into_iter().collect();
    let optional = |name: &str| {
        let encoder = name.strip_prefix(ENCODER_PREFIX).and_then(|name| name.strip_prefix('.'));
        weights::default_optional(encoder.unwrap_or(name))
    };
    let options = LoadOptions { optional, ..LoadOptions::default() };
    weights::load(&target, Family::Custom, file, &options)
        .with_context(|| format!("{} does not fit", file.path.display()))
}
