//! A detector out of whatever file people have.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use backbone::models::Model;
use backbone::weights;
use engine::checkpoint::{self, CheckpointFile};
use engine::precision::Precision;
use engine::remote;
use engine::run_dir::resolve_checkpoint;
use engine::settings::{LoadingSettings, Settings as _, from_layers};
use engine::training::Preset as _;
use tch::{Device, Kind, Tensor};
use toml::Table;
use words::counted;

use crate::detector::Detector;
use crate::modeling::weights::{ReadOptions, is_predictor, read_detector};
use crate::published::Published;
use crate::settings::InferenceSettings;
use crate::train::{Class, Preset, TrainConfig, TrainState};

/// A checkpoint of `detect train`.
#[derive(Debug)]
pub struct TrainCheckpoint {
    path: PathBuf,
    /// What it was trained with.
    pub state: TrainState,
    /// The averaged weights where there are any, by names in memory.
    tensors: BTreeMap<String, Tensor>,
    /// The backbone that a checkpoint of a `.pt2` file's carries.
    carried: Option<Model>,
}

/// The run folder's last checkpoint, or the checkpoint itself; none if `path` is
/// another file.
///
/// # Errors
/// A run without checkpoint yet, or a checkpoint of another program.
pub fn own_checkpoint(path: &Path) -> Result<Option<TrainCheckpoint>> {
    let path = resolve_checkpoint(path)?;
    let Ok(file) = CheckpointFile::open(&path) else { return Ok(None) };
    let state = TrainState::read(&file)
        .with_context(|| format!("{} is no checkpoint of `detect train`", path.display()))?;
    let averaged = state.config.optim.ema > 0.0 && file.sections().contains("ema");
    let tensors = file.section(if averaged { "ema" } else { "model" })?;
    let carried = engine::graph::carried(&file)?;
    Ok(Some(TrainCheckpoint { path, state, tensors, carried }))
}

impl TrainCheckpoint {
    /// Takes its weights over into `detector`; the layers whose outputs are
    /// classes are left as they are for `reset_head`.
    ///
    /// # Errors
    /// Another detector, or other classes.
    pub fn load(&self, detector: &Detector, reset_head: bool) -> Result<()> {
        let (own, wanted) = (self.state.task.classes.len(), detector.model.config().num_classes);
        ensure!(
            reset_head || own as i64 == wanted,
            "{} has {}, but the data has {wanted}; --reset-head learns these anew",
            self.path.display(),
            counted(own, "class")
        );
        let mut target = detector.variables();
        target.retain(|name, _| !(reset_head && is_predictor(name)));
        // A run in double precision may be used in single.
        let fitting = self.tensors.iter().map(|(name, tensor)| {
            let kind = target.get(name).map_or(tensor.kind(), Tensor::kind);
            let cast = tensor.is_floating_point() && kind != tensor.kind();
            (name.clone(), if cast { tensor.to_kind(kind) } else { tensor.shallow_clone() })
        });
        Ok(checkpoint::restore(&self.path, &fitting.collect(), &target)?)
    }
}

/// Which detector to load, and how.
#[derive(Debug, Clone)]
pub struct LoadSpec<'a> {
    /// A run folder, one of our checkpoints, or a weight file; any of these on a hub or in
    /// object storage.
    pub path: &'a Path,
    /// The settings of a weight file, which does not tell them.
    pub preset: Option<Preset>,
    /// Settings over those of the checkpoint or preset.
    pub settings: Table,
    /// Where to compute.
    pub device: Device,
    /// In float64 if that, else in float32.
    pub kind: Kind,
}

/// A detector and how it is to be used.
#[derive(Debug)]
pub struct LoadedModel {
    /// Ready for evaluation.
    pub detector: Detector,
    /// How images are fed to it.
    pub inference: InferenceSettings,
    /// How they are read.
    pub loading: LoadingSettings,
    /// The arithmetic it runs in.
    pub precision: Precision,
    /// What it tells apart, where that is known.
    pub classes: Option<Vec<Class>>,
    /// All settings that it was loaded with.
    pub settings: Table,
    /// The settings of the run it comes from, if it does.
    pub run: Option<TrainConfig>,
}

impl LoadSpec<'_> {
    /// Builds the detector and reads its weights.
    ///
    /// # Errors
    /// A file that cannot be read, settings missing or wrong, weights that fit
    /// only in part.
    pub fn load(self) -> Result<LoadedModel> {
        let path = remote::local(self.path)?;
        let local = LoadSpec { path: &path, ..self };
        match own_checkpoint(&path)? {
            Some(own) => local.load_checkpoint(&own),
            None => local.load_weights(),
        }
    }

    fn load_checkpoint(self, own: &TrainCheckpoint) -> Result<LoadedModel> {
        ensure!(
            self.preset.is_none(),
            "--preset is given, but {} has its own settings",
            own.path.display()
        );
        let mut config: TrainConfig =
            from_layers([own.state.config.to_table(), self.settings.clone()])?;
        config.resolve_detector()?;
        let classes = own.state.task.classes.clone();
        let is_own = config.detector.backbone == own.state.config.detector.backbone;
        let model = own.carried.as_ref().filter(|_| is_own);
        let count = classes.len() as i64;
        let mut detector = Detector::build(&config.detector, model, count, self.device)?;
        own.load(&detector, false)?;
        detector.use_kind(self.kind)?;
        Ok(LoadedModel {
            run: Some(config.clone()),
            ..LoadedModel::of(detector, config, Some(classes))
        })
    }

    fn load_weights(self) -> Result<LoadedModel> {
        let published = Published::read(self.path)?;
        let base = match (&published, self.preset) {
            (Some(published), None) => published.settings()?,
            (None, Some(preset)) if preset.is_automatic() => bail!(
                "--preset is auto, which chooses what is trained, but {} is a trained detector: \
                 name the preset that it is of, and what was changed in it with --config",
                self.path.display()
            ),
            (None, Some(preset)) => preset.table()?,
            (Some(_), Some(_)) => {
                bail!("--preset is given, but {} has its own settings", self.path.display())
            }
            (None, None) => bail!(
                "{} does not tell which detector it is of: name one with --preset, and what was \
                 changed in it with --config",
                self.path.display()
            ),
        };
        let mut config: TrainConfig = from_layers([base, self.settings.clone()])?;
        config.resolve_detector()?;
        let count = classes_in(self.path)?;
        let mut detector = Detector::build(&config.detector, None, count, self.device)?;
        // Before loading: the file may hold more digits than float32.
        detector.use_kind(self.kind)?;
        let settings = detector.model.config().clone();
        read_detector(self.path, &detector.store, &settings, &ReadOptions::default())?;
        let classes = published.and_then(|published| published.classes);
        ensure!(
            classes.as_ref().is_none_or(|classes| classes.len() as i64 == count),
            "{} tells apart {}, but its config.json names others",
            self.path.display(),
            counted(count, "class")
        );
        Ok(LoadedModel::of(detector, config, classes))
    }
}

/// How many classes the detector in a weight file tells apart.
fn classes_in(path: &Path) -> Result<i64> {
    let file = weights::read(path)?;
    let scores = file.tensors.iter().find(|(name, _)| name.ends_with("cls_score.weight"));
    let Some((_, weight)) = scores else {
        bail!("{} is no detector: it has no cls_score.weight", path.display());
    };
    Ok(weight.size()[0] - 1)
}

impl LoadedModel {
    fn of(detector: Detector, config: TrainConfig, classes: Option<Vec<Class>>) -> Self {
        let settings = config.to_table();
        let TrainConfig { inference, loading, execution, .. } = config;
        let precision = execution.precision;
        Self { detector, inference, loading, precision, classes, settings, run: None }
    }

    /// Whether it finds masks, not boxes alone.
    pub fn has_masks(&self) -> bool {
        self.detector.model.config().mask_head.is_some()
    }

    /// Names by class; `class 7` where they are not known.
    pub fn names(&self) -> Vec<String> {
        match &self.classes {
            Some(classes) => classes.iter().map(|class| class.name.clone()).collect(),
            None => (0..self.detector.model.config().num_classes)
                .map(|class| format!("class {class}"))
                .collect(),
        }
    }
}
