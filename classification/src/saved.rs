//! A classifier out of whatever file people have.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use backbone::models::{self, Model};
use backbone::weights::{self, TimmConfig, WeightFile};
use data::Interpolation;
use data::names::readable;
use engine::checkpoint::CheckpointFile;
use engine::export::decimals;
use engine::precision::Precision;
use engine::remote::{Wanted, find_model, local_with};
use engine::run_dir::resolve_checkpoint;
use serde::de::DeserializeOwned;
use tch::{Device, Kind};
use words::counted;

use crate::classifier::{Classifier, ClassifierOptions, head_name};
use crate::data::ImageSettings;
use crate::inference::Logits;
use crate::train::{CropMode, TrainConfig, TrainState};
use crate::whole::WholeClassifier;

/// The best checkpoints, in a run's folder.
const BEST: [(&str, &str); 2] =
    [("checkpoints/best-ema.safetensors", "ema"), ("checkpoints/best.safetensors", "model")];

/// A checkpoint of `classify train`.
#[derive(Debug)]
pub struct TrainCheckpoint {
    /// What it was trained with.
    pub state: TrainState,
    /// The weights, or their averages, whichever did better.
    pub file: WeightFile,
    /// Top-1 accuracy of these in the run's evaluation, in 0–1.
    pub accuracy: Option<f64>,
    /// The network that a checkpoint of a `.pt2` file's carries.
    carried: Option<Model>,
}

impl TrainCheckpoint {
    /// Of a run's folder the best checkpoint (the last where none was evaluated),
    /// else the checkpoint itself; none if `path` is another file. Of weights and
    /// averages those that did better in the checkpoint's latest evaluation.
    ///
    /// # Errors
    /// A run without checkpoint yet, or a checkpoint of another program.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let found = BEST.map(|(name, section)| (path.join(name), section));
        let found = found.into_iter().filter(|(path, _)| path.exists());
        let read = |(path, section): (PathBuf, &'static str)| Self::read(&path, Some(section));
        let best: Vec<Self> = found.map(read).collect::<Result<_>>()?;
        // Of equals the averages, which come first.
        let best = best.into_iter().reduce(|a, b| if b.accuracy > a.accuracy { b } else { a });
        if best.is_some() {
            return Ok(best);
        }
        let path = resolve_checkpoint(path)?;
        if CheckpointFile::open(&path).is_err() {
            return Ok(None);
        }
        Self::read(&path, None).map(Some)
    }

    /// One section of a checkpoint; the better one if none is named.
    fn read(path: &Path, section: Option<&'static str>) -> Result<Self> {
        let file = CheckpointFile::open(path)?;
        let state = TrainState::read(&file).with_context(|| {
            format!(
                "{} is no checkpoint of `classify train`; a backbone is taken with \
                     --backbone-weights",
                path.display()
            )
        })?;
        let averaged = state.task.accuracy.and_then(|found| Some(found.ema? >= found.model));
        let section = section.unwrap_or(if averaged == Some(true) { "ema" } else { "model" });
        let accuracy = state.task.accuracy.and_then(|found| match section {
            "ema" => found.ema,
            _ => Some(found.model),
        });
        let carried = engine::graph::carried(&file)?;
        let file = WeightFile::from_tensors(path, file.section(section)?);
        Ok(Self { state, file, accuracy, carried })
    }
}

/// Which classifier to load, and how.
#[derive(Debug, Clone)]
pub struct LoadSpec<'a> {
    /// A run folder, one of our checkpoints, a weight file, or a network's `.pt2` file; any of
    /// these on a hub or in object storage.
    pub path: &'a Path,
    /// The model, if the file does not tell.
    pub model: Option<&'a str>,
    /// File of class names, one a line, if the weights do not tell.
    pub classes: Option<&'a Path>,
    /// Where to compute.
    pub device: Device,
    /// In float64 if that, else in float32.
    pub kind: Kind,
}

/// A classifier and how it is to be used.
#[derive(Debug)]
pub struct LoadedModel<C = Classifier> {
    /// Ready for evaluation.
    pub classifier: C,
    /// How its images are prepared.
    pub images: ImageSettings,
    /// What it tells apart, where that is known.
    pub classes: Option<Vec<String>>,
    /// What they were called where it was trained, if the weights tell.
    pub trained_on: Option<Vec<String>>,
    /// The arithmetic it was trained in.
    pub precision: Precision,
    /// The settings of the run it comes from.
    pub config: Option<TrainConfig>,
    /// Top-1 accuracy in the run's own evaluation, in 0–1.
    pub accuracy: Option<f64>,
}

impl<'a> LoadSpec<'a> {
    /// What `path` itself tells.
    pub fn new(path: &'a Path, device: Device, kind: Kind) -> Self {
        Self { path, model: None, classes: None, device, kind }
    }

    /// As [`LoadSpec::load`], or the network in a `.pt2` file with the classifier that it was
    /// exported with.
    ///
    /// # Errors
    /// Those of [`LoadSpec::load`]; a network that returns no logits.
    pub fn load_any(&self) -> Result<LoadedModel<Box<dyn Logits>>> {
        let path = local_with(self.path, Wanted::Best)?;
        let local = LoadSpec { path: &path, ..self.clone() };
        local.load_any_local()
    }

    fn load_any_local(&self) -> Result<LoadedModel<Box<dyn Logits>>> {
        let named = self.model.or_else(|| self.path.to_str());
        let graph = named.filter(|name| models::is_file(name));
        let whole = graph.map_or(Ok(None), |name| self.load_whole(name))?;
        whole.map_or_else(|| self.load_local().map(LoadedModel::boxed), Ok)
    }

    /// The network in the `.pt2` file `name` as it was exported; none if the weights have a head
    /// that `classify train` has learned.
    fn load_whole(&self, name: &str) -> Result<Option<LoadedModel<Box<dyn Logits>>>> {
        if TrainCheckpoint::open(self.path)?.is_some() {
            return Ok(None);
        }
        let model = find_model(name)?;
        let Some(graph) = model.graph() else { return Ok(None) };
        let file = weights::read(self.path)?;
        let images = image_settings(&file)?;
        let whole = WholeClassifier::new(graph, self.device, self.kind);
        let whole = whole.and_then(|whole| whole.load(&file).map(|()| whole));
        let head = format!("{}.weight", head_name(model.family()));
        let learned = file.tensors.contains_key(&head);
        let classifier = match whole {
            Ok(whole) if !learned || whole.variables().contains_key(&head) => whole,
            Err(error) if !learned => return Err(error),
            _ => return Ok(None),
        };
        let trained_on = label_names(&file);
        Ok(Some(LoadedModel {
            classes: self.class_names(&trained_on, classifier.num_classes())?,
            classifier: Box::new(classifier),
            images,
            trained_on,
            precision: Precision::Float32,
            config: None,
            accuracy: None,
        }))
    }

    /// Builds the classifier and reads its weights.
    ///
    /// # Errors
    /// A file that cannot be read, is of no model that is known, or has no head.
    pub fn load(&self) -> Result<LoadedModel> {
        let path = local_with(self.path, Wanted::Best)?;
        LoadSpec { path: &path, ..self.clone() }.load_local()
    }

    fn load_local(&self) -> Result<LoadedModel> {
        let own = TrainCheckpoint::open(self.path)?;
        let (file, state, accuracy, carried) = match own {
            Some(own) => (own.file, Some(own.state), own.accuracy, own.carried),
            None => (weights::read(self.path)?, None, None, None),
        };
        let config = state.as_ref().map(|state| state.config.clone());
        let model = match (self.model, carried, &config) {
            (Some(name), ..) => find_model(name)?,
            (None, Some(carried), _) => carried,
            (None, None, Some(config)) => find_model(&config.model)?,
            (None, None, None) => file.registered_model()?,
        };
        let num_classes = file.classes(model.family()).with_context(|| {
            format!(
                "{} has no classifier; `classify train --backbone-weights` makes one of a backbone",
                file.path.display()
            )
        })?;
        let trained_on = state.map(|state| state.task.classes).or_else(|| label_names(&file));
        let classes = self.class_names(&trained_on, num_classes)?;
        let in_chans = match model.graph() {
            Some(graph) => graph.in_chans(),
            None => file.in_chans().unwrap_or(3),
        };
        ensure!(
            in_chans == 3,
            "{} takes images of {in_chans} channels, but images are read as RGB",
            file.path.display()
        );
        let options =
            ClassifierOptions { uninitialised: true, ..ClassifierOptions::new(num_classes) };
        let mut classifier = Classifier::build(&model, &options, self.device)?;
        // Before loading: the file may hold more digits than float32.
        if self.kind == Kind::Double {
            classifier.double();
        }
        classifier.load(&file)?;
        let images = config.as_ref().map_or_else(|| image_settings(&file), |c| Ok(c.into()))?;
        let precision =
            config.as_ref().map_or(Precision::Float32, |config| config.execution.precision);
        Ok(LoadedModel { classifier, images, classes, trained_on, precision, config, accuracy })
    }

    /// What `num_classes` classes are called: as the file of names says, else as in training.
    fn class_names(
        &self,
        trained_on: &Option<Vec<String>>,
        num_classes: i64,
    ) -> Result<Option<Vec<String>>> {
        let classes = match self.classes {
            Some(names) => Some(read_names(names)?),
            None => trained_on.clone(),
        };
        if let Some(classes) = &classes {
            ensure!(
                classes.len() as i64 == num_classes,
                "there are {}, but {} has {}",
                counted(classes.len(), "class name"),
                self.path.display(),
                counted(num_classes, "class")
            );
        }
        Ok(classes)
    }
}

impl LoadedModel<Box<dyn Logits>> {
    /// Names by class; `class 7` where they are not known.
    pub fn names(&self) -> Vec<String> {
        let numbered = || (0..self.classifier.num_classes()).map(|class| format!("class {class}"));
        self.classes.clone().unwrap_or_else(|| numbered().collect())
    }
}

impl LoadedModel {
    fn boxed(self) -> LoadedModel<Box<dyn Logits>> {
        let Self { classifier, images, classes, trained_on, precision, config, accuracy } = self;
        let classifier = Box::new(classifier);
        LoadedModel { classifier, images, classes, trained_on, precision, config, accuracy }
    }

    /// What timm is told of the classifier.
    pub fn timm_config(&self) -> TimmConfig {
        let side = self.images.size as i64;
        let squash = self.images.crop_mode == CropMode::Squash;
        TimmConfig {
            input_size: (side, side),
            mean: decimals(&self.images.mean),
            std: decimals(&self.images.std),
            // timm crops what it has squeezed, too.
            crop_pct: if squash { 1.0 } else { self.images.crop },
            squash,
            interpolation: match self.images.interpolation {
                Interpolation::Bicubic => "bicubic".into(),
                Interpolation::Bilinear => "bilinear".into(),
            },
            label_names: self.classes.clone().unwrap_or_default(),
            ..TimmConfig::imagenet(self.classifier.model().name.as_ref())
        }
    }
}

/// Names of classes, one a line.
fn read_names(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read class names from {}", path.display()))?;
    let lines = data::text::lines(path, bytes)?;
    Ok(lines.into_iter().map(|(_, line)| readable(OsStr::from_bytes(&line))).collect())
}

/// The names that lie beside the weights in a timm folder.
pub fn label_names(file: &WeightFile) -> Option<Vec<String>> {
    serde_json::from_str(file.metadata.get("label_names")?).ok()
}

/// How images are prepared as a timm folder says, else as for ImageNet: 224
/// pixels out of 256.
pub fn image_settings(file: &WeightFile) -> Result<ImageSettings> {
    let size: Option<[usize; 3]> = told(file, "input_size")?;
    let known = [("center", CropMode::Center), ("squash", CropMode::Squash)];
    let words = ("crop mode", "the centre is cropped");
    let crop_mode = one_of(file, "crop_mode", known, words)?;
    let known = [("bicubic", Interpolation::Bicubic), ("bilinear", Interpolation::Bilinear)];
    let words = ("interpolation", "bicubic is taken");
    let interpolation = one_of(file, "interpolation", known, words)?;
    let default = ImageSettings::IMAGENET;
    Ok(ImageSettings {
        size: size.map_or(default.size, |[_, height, _]| height),
        crop: told(file, "crop_pct")?.unwrap_or(default.crop),
        crop_mode,
        interpolation,
        mean: told(file, "mean")?.unwrap_or(default.mean),
        std: told(file, "std")?.unwrap_or(default.std),
    })
}

/// What the configuration in a timm folder says of `key`.
fn told<T: DeserializeOwned>(file: &WeightFile, key: &str) -> Result<Option<T>> {
    let Some(text) = file.metadata.get(key) else { return Ok(None) };
    let value = serde_json::from_str(text)
        .with_context(|| format!("{}: {key} in config.json is {text}", file.path.display()))?;
    Ok(Some(value))
}

/// The same of a `key` that is one of `known`, the first if it is not: `what` that is, and what
/// becomes of it, are then told.
fn one_of<T: Copy>(
    file: &WeightFile,
    key: &str,
    known: [(&str, T); 2],
    (what, instead): (&str, &str),
) -> Result<T> {
    let Some(name) = told::<String>(file, key)? else { return Ok(known[0].1) };
    let found = known.iter().find(|(known, _)| *known == name);
    if found.is_none() {
        eprintln!("note: {what} {name:?} is not known here: {instead}");
    }
    Ok(found.unwrap_or(&known[0]).1)
}
