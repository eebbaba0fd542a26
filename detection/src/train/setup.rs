//! From settings to objects: device, data, detector, optimizer, and where the
//! run left off.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use backbone::models::{Model, is_file};
use data::Loader;
use engine::device::{describe_device, open_device};
use engine::distributed::ProcessGroup;
use engine::graph::model_of_run;
use engine::optim::{
    LambConfig, LayerGrouping, LayerPosition, OptimizerKind, ParamGroup, has_weight_decay,
    layered_param_groups,
};
use engine::progress::during;
use engine::run_dir::display_path;
use engine::training::{ResumeMode, Run, Setup, Trainer};
use tch::{Device, Tensor};
use words::counted;

use super::DetectorState;
use super::config::{BASE_BATCH, TrainConfig};
use super::task::{Class, DetectorTraining};
use super::validate::{self, Validation};
use crate::data::{CocoDataset, CocoSource, DetectionLoader, Share, TrainLoaderOptions};
use crate::detector::Detector;
use crate::modeling::weights::BOTTOM_UP;

/// Builds everything, of the data `listed` if it is; nothing of the run's folder is touched.
///
/// # Errors
/// Settings and files that nothing can be built of.
pub fn prepare(
    config: TrainConfig,
    start: &ResumeMode,
    world: &ProcessGroup,
    listed: Option<Datasets>,
) -> Result<Setup<DetectorTraining>> {
    let (device, threads) = open_device(&config.execution, world)?;
    let model = match config.detector.backbone_plugin {
        None => {
            let folder = config.run.folder()?;
            Some(model_of_run(config.detector.backbone(), &folder, start, world)?)
        }
        Some(_) => None,
    };

    // Weights that the run starts from may have settled whether there are masks.
    let masks = config.detector.masks;
    let listed = listed.filter(|listed| listed.training.has_masks() == masks);
    let datasets = listed.map_or_else(|| read(&config, world.is_main()), Ok);
    let Datasets { training, held_out, classes_of, notes } = world.all_ok(datasets)?;
    let batches = world.all_ok(training_loader(&config, Arc::clone(&training), world))?;
    let loader = Arc::clone(batches.loader());
    let images = world.all_ok(validation_loader(&config, held_out, world))?;
    let validation = Validation { training: batches, images, classes: classes_of };
    let classes: Vec<Class> = training.categories().iter().map(Class::from).collect();
    let build = || build(&config, model.as_ref(), classes.len(), device);
    let detector = world.all_ok(during(world.is_main(), "building the detector", build))?;
    let groups = param_groups(&config, &detector);
    let optimizer = OptimizerKind::build(&config.optim, groups, LambConfig::default());
    let optimizer = world.all_ok(optimizer)?;
    let settings = (&config.optim, &config.execution);
    let mut trainer = Trainer::new(&detector.store, optimizer, settings, world)?;
    if let Some(model) = &model {
        trainer = world.all_ok(trainer.carrying(model))?;
    }
    // A plugin's batch norms know nothing of other processes.
    trainer.sync_bn &= !detector.plugin;
    let task = DetectorTraining { config, detector, validation, classes, notes, report: None };
    world.all_ok(check_batch_norms(&task, &trainer, &training))?;

    let state = DetectorState { classes: task.classes.clone() };
    let total_steps = task.config.total_steps(loader.steps());
    Ok(Setup { task, trainer, state, loader, total_steps, threads, announce })
}

/// What is learned and what it is scored on.
#[derive(Clone)]
pub struct Datasets {
    pub training: Arc<CocoDataset>,
    held_out: Arc<CocoDataset>,
    /// The place of each class in the second.
    classes_of: Vec<usize>,
    /// What is worth a look in both.
    notes: Vec<String>,
}

/// Reads the annotations, of which it is `shown` that that is being done.
///
/// # Errors
/// A file that cannot be read or scored on, other classes in the second than in the first.
pub fn read(config: &TrainConfig, shown: bool) -> Result<Datasets> {
    during(shown, "reading the annotations", || datasets(config))
}

fn datasets(config: &TrainConfig) -> Result<Datasets> {
    let [training, validation] = config.files()?;
    let mut notes = Vec::new();
    let mut open = |(file, images): (PathBuf, Option<&Path>),
                    warnings: fn(&CocoDataset) -> Vec<String>| {
        let dataset = CocoDataset::open_with(&file, images, config.detector.masks)?;
        let told = |warning: String| format!("{}: {warning}", file.display());
        notes.extend(warnings(&dataset).into_iter().map(told));
        anyhow::Ok(Arc::new(dataset))
    };
    let training = open(training, CocoDataset::warnings)?;
    let held_out = open(validation, CocoDataset::scoring_warnings)?;
    let classes_of = training.require_same_classes(&held_out)?;
    // Before hours of training rather than after them.
    let evaluator = validate::evaluator(config.detector.masks, held_out.coco())?;
    let file = held_out.annotations().display();
    notes.extend(evaluator.notes().iter().map(|note| format!("{file}: {note}")));
    Ok(Datasets { training, held_out, classes_of, notes })
}

fn training_loader(
    config: &TrainConfig,
    dataset: Arc<CocoDataset>,
    world: &ProcessGroup,
) -> Result<DetectionLoader> {
    world.micro_batch_size(config.optim.batch_size, config.optim.accum_steps)?;
    let options = TrainLoaderOptions {
        batch_size: config.optim.batch_size,
        share: Share::from(world),
        seed: config.execution.seed,
        keep_empty: config.keep_empty,
        loader: config.loading.options(world),
    };
    Ok(DetectionLoader::training(dataset, config.augmentation.clone(), &options)?)
}

/// Images one by one: padding to a batch's largest would cost more than it saves
/// on a CPU, and results do not depend on the neighbours.
fn validation_loader(
    config: &TrainConfig,
    dataset: Arc<CocoDataset>,
    world: &ProcessGroup,
) -> Result<DetectionLoader> {
    let options = config.loading.options(world);
    let share = Share::from(world);
    Ok(DetectionLoader::evaluation(dataset, config.inference.transform(), 1, &options, share)?)
}

fn build(
    config: &TrainConfig,
    model: Option<&Model>,
    classes: usize,
    device: Device,
) -> Result<Detector> {
    tch::manual_seed(config.execution.seed as i64);
    let mut detector = Detector::build(&config.detector, model, classes as i64, device)?;
    detector.use_kind(config.execution.precision.parameters())?;
    Ok(detector)
}

/// Refuses images so small that one of them leaves batch norms one value a channel, of
/// which there is no variance.
fn check_batch_norms(
    task: &DetectorTraining,
    trainer: &Trainer,
    dataset: &CocoDataset,
) -> Result<()> {
    let DetectorTraining { config, detector, .. } = task;
    let shared = trainer.sync_bn && !trainer.world.is_alone();
    let freeze_at = config.detector.freeze_at;
    if shared || trainer.micro_batch_size > 1 || !detector.model.trains_batch_norms(freeze_at) {
        return Ok(());
    }
    let stride = detector.model.bottom_up().total_stride() as usize;
    for index in 0..dataset.len() {
        let record = dataset.record(index);
        let size = (record.height as usize, record.width as usize);
        let (height, width) = config.augmentation.smallest(size);
        ensure!(
            height.max(width) > stride,
            "{} is trained on alone and with {height} × {width} pixels, but batch norm expects \
             more than 1 value per channel when training, and a map of stride {stride} leaves it \
             1; raise --batch-size or the sizes that images are resized to, or lower --accum-steps",
            dataset.name(index)
        );
    }
    Ok(())
}

fn param_groups(config: &TrainConfig, detector: &Detector) -> Vec<ParamGroup> {
    let variables = detector.variables();
    let bottom_up = detector.model.bottom_up();
    let learned: Vec<(String, Tensor, LayerPosition)> = variables
        .iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .map(|(name, tensor)| {
            let canonical = name.strip_prefix(BOTTOM_UP).unwrap_or_default();
            let place = LayerPosition::in_backbone(bottom_up, canonical);
            (name.clone(), tensor.shallow_clone(), place)
        })
        .collect();
    let decays = |name: &str, shape: &[i64]| {
        has_weight_decay(name, shape) || config.decay_biases && is_bias_of_layer(name, &variables)
    };
    layered_param_groups(learned, LayerGrouping::CONVNEXT, config.layer_decay, decays)
}

/// Whether `name` is the bias of a convolution or linear layer: beside a weight
/// of several dimensions, which norms have not.
fn is_bias_of_layer(name: &str, variables: &BTreeMap<String, Tensor>) -> bool {
    let weight = name.strip_suffix(".bias").map(|layer| format!("{layer}.weight"));
    weight.and_then(|name| variables.get(&name)).is_some_and(|weight| weight.dim() > 1)
}

/// Says what is about to run.
fn announce(run: &Run<DetectorTraining>, _: &Loader<CocoSource>, threads: usize) {
    let Run { task, trainer, .. } = run;
    let DetectorTraining { config, detector, notes, .. } = task;
    notes.iter().for_each(|note| eprintln!("note: {note}"));
    let count = |prefix: &str| -> f64 {
        let variables = trainer.variables.iter();
        let learned = variables.filter(|(name, t)| name.starts_with(prefix) && t.requires_grad());
        learned.map(|(_, tensor)| tensor.numel()).sum::<usize>() as f64 / 1e6
    };
    let (backbone, all) = (count(BOTTOM_UP), count(""));
    let device = describe_device(trainer.device, threads);
    eprintln!(
        "{}: {} with the settings of {}, {device}, {:?}\n\
         images   {} of {} with objects to train on, {} for validation, {}\n\
         model    backbone {backbone:.1} M learned parameters, the rest {:.1} M\n\
         batch    {}\n\
         lr       {}, layer decay {}, weight decay {}\n\
         output   {}",
        config.run.name,
        detector.model.config().name(),
        config.detector.detector,
        config.execution.precision,
        task.validation.training.image_count(),
        task.validation.training.dataset().len(),
        task.validation.images.image_count(),
        counted(task.classes.len(), "class"),
        all - backbone,
        run.describe_batch(),
        config.optim.describe_lr(BASE_BATCH),
        config.layer_decay,
        config.optim.weight_decay,
        display_path(&config.run.output),
    );
    let from_file = is_file(config.detector.backbone()) && !detector.plugin;
    let is_begun = config.backbone_weights.is_some() || config.weights.is_some();
    if from_file && !is_begun && run.plan.done == 0 {
        let file = config.detector.backbone();
        eprintln!("weights  the backbone's those of {file}, the rest random");
    }
}
