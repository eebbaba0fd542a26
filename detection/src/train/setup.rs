//! From settings to objects: device, data, detector, optimizer, and where the
//! run left off.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use backbone::weights::LoadOptions;
use data::LoaderOptions;
use engine::checkpoint::{self, CheckpointFile};
use engine::device::{described, device_among, use_threads_among};
use engine::distributed::{Gradients, World};
use engine::optim::{
    AdamW, AdamWConfig, Chunks, Ema, GradScaler, Place, layered_param_groups, usual_decay,
};
use engine::precision::Precision;
use engine::run_dir::{in_run, shown};
use engine::training::{
    RunFiles, Start, open_run, parts_of_batch, restore_run, saved_state, share_run,
    tell_world_change,
};
use tch::{Device, Tensor};

use super::config::{BASE_BATCH, TrainConfig};
use super::state::TrainState;
use super::step::Trainer;
use super::validate;
use crate::data::{CocoDataset, DetectionLoader, Share, TrainLoaderOptions};
use crate::detector::Detector;
use crate::modeling::weights::{BOTTOM_UP, ReadOptions, read_backbone, read_detector};
use crate::saved;

/// Everything a run works with.
pub struct Setup {
    pub files: RunFiles,
    pub loader: DetectionLoader,
    pub validation: DetectionLoader,
    /// For each class that is learned the validation data's of the same name.
    pub validation_classes: Vec<usize>,
    pub trainer: Trainer,
    pub state: TrainState,
}

impl Setup {
    /// Builds everything, prints what will happen, and only then touches the
    /// run's folder.
    pub fn new(config: TrainConfig, start: &Start, world: &World) -> Result<Self> {
        let threads = use_threads_among(config.threads, world);
        let device = world.agree(device_among(&config.device, world))?;
        world.use_device(device)?;

        let (training, validation, validation_classes) = world.agree(datasets(&config, world))?;
        let loader = world.agree(training_loader(&config, Arc::clone(&training), world))?;
        let validation = world.agree(validation_loader(&config, validation, world))?;
        let classes = training.categories().len() as i64;
        let mut trainer = world.agree(trainer(config, classes, device, world))?;
        world.agree(check_batch_norms(&trainer, &training))?;
        trainer.gradients = Gradients::new(world, &trainer.detector.store)?;
        let scaler = (trainer.config.precision == Precision::Float16).then(GradScaler::default);
        let config = trainer.config.clone();
        let mut state = TrainState::new(config, &training, scaler, world.size());
        let made = if world.is_main() { begin(start, &mut trainer, &mut state) } else { Ok(()) };
        let variables = trainer.detector.variables();
        let (optimizer, averages) = (trainer.optimizer.as_mut(), trainer.ema.as_ref());
        share_run(world, made, &variables, optimizer, averages, (&mut state, |state| state.step))?;

        let files = open_run(world, &trainer.config.output, start, &trainer.config)?;
        if world.is_main() {
            announce(&trainer, &loader, &validation, &state, threads);
        }
        Ok(Self { files, loader, validation, validation_classes, trainer, state })
    }
}

/// What is learned and what it is scored on, with the place of each class in the second.
fn datasets(
    config: &TrainConfig,
    world: &World,
) -> Result<(Arc<CocoDataset>, Arc<CocoDataset>, Vec<usize>)> {
    let [training, validation] = config.files()?;
    let open = |(file, images): (std::path::PathBuf, Option<&Path>)| -> Result<Arc<CocoDataset>> {
        let dataset = CocoDataset::open_with(&file, images, config.masks)?;
        for warning in dataset.warnings().iter().filter(|_| world.is_main()) {
            eprintln!("note: {}: {warning}", file.display());
        }
        Ok(Arc::new(dataset))
    };
    let (training, validation) = (open(training)?, open(validation)?);
    let classes = training.require_same_classes(&validation)?;
    // Before hours of training rather than after them.
    let evaluator = validate::evaluator(config, validation.coco())?;
    for note in evaluator.notes().iter().filter(|_| world.is_main()) {
        eprintln!("note: {}: {note}", validation.annotations().display());
    }
    Ok((training, validation, classes))
}

/// How data is read.
pub fn loader_options(config: &TrainConfig) -> LoaderOptions {
    LoaderOptions::new(config.workers, config.max_corrupt)
}

fn training_loader(
    config: &TrainConfig,
    dataset: Arc<CocoDataset>,
    world: &World,
) -> Result<DetectionLoader> {
    world.part_of(config.batch_size, config.accum_steps)?;
    let options = TrainLoaderOptions {
        batch_size: config.batch_size,
        share: Share::from(world),
        seed: config.seed,
        keep_empty: config.keep_empty,
        loader: LoaderOptions::on_cores(config.workers, config.max_corrupt, world.cores()),
    };
    Ok(DetectionLoader::training(dataset, config.augmentation.clone(), &options)?)
}

/// Images one by one: padding to a batch's largest would cost more than it saves
/// on a CPU, and results do not depend on the neighbours.
fn validation_loader(
    config: &TrainConfig,
    dataset: Arc<CocoDataset>,
    world: &World,
) -> Result<DetectionLoader> {
    let options = LoaderOptions::on_cores(config.workers, config.max_corrupt, world.cores());
    let share = Share::from(world);
    Ok(DetectionLoader::evaluation(dataset, config.eval_transform(), 1, &options, share)?)
}

fn trainer(config: TrainConfig, classes: i64, device: Device, world: &World) -> Result<Trainer> {
    let mut detector = Detector::build(&config, classes, device)?;
    detector.use_kind(config.precision.parameters())?;
    // Of one process until all have got this far.
    let gradients = Gradients::alone();
    let part_size = world.part_of(config.batch_size, config.accum_steps)?;
    let world = world.clone();
    let optimizer = optimizer(&config, &detector)?;
    let ema =
        (config.ema > 0.0).then(|| Ema::new(&detector.variables(), config.ema)).transpose()?;
    let optimizer = Box::new(optimizer);
    Ok(Trainer { config, detector, optimizer, ema, world, gradients, part_size })
}

/// Refuses images so small that one of them leaves batch norms one value a channel, of
/// which there is no variance.
fn check_batch_norms(trainer: &Trainer, dataset: &CocoDataset) -> Result<()> {
    let (config, detector) = (&trainer.config, &trainer.detector);
    let shared = trainer.synchronised() && !trainer.world.is_alone();
    if shared || trainer.part_size > 1 || !detector.model.trains_batch_norms(config.freeze) {
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

fn optimizer(config: &TrainConfig, detector: &Detector) -> Result<AdamW> {
    let variables = detector.variables();
    let bottom_up = detector.model.bottom_up();
    let learned: Vec<(String, Tensor, Place)> = variables
        .iter()
        .filter(|(_, tensor)| tensor.requires_grad())
        .map(|(name, tensor)| {
            let canonical = name.strip_prefix(BOTTOM_UP).unwrap_or_default();
            let place = Place::of(canonical, bottom_up.stage_index(canonical));
            (name.clone(), tensor.shallow_clone(), place)
        })
        .collect();
    let decays = |name: &str, shape: &[i64]| {
        usual_decay(name, shape) || config.decay_biases && is_bias_of_layer(name, &variables)
    };
    let groups = layered_param_groups(learned, Chunks::OF_THREE, config.layer_decay, decays);
    let options = AdamWConfig {
        betas: (config.beta1, config.beta2),
        max_grad_norm: (config.clip_grad > 0.0).then_some(config.clip_grad),
        ..AdamWConfig::default()
    };
    Ok(AdamW::new(groups, options)?)
}

/// Whether `name` is the bias of a convolution or linear layer: beside a weight
/// of several dimensions, which norms have not.
fn is_bias_of_layer(name: &str, variables: &BTreeMap<String, Tensor>) -> bool {
    let weight = name.strip_suffix(".bias").map(|layer| format!("{layer}.weight"));
    weight.and_then(|name| variables.get(&name)).is_some_and(|weight| weight.dim() > 1)
}

/// Weights and state to begin with: a checkpoint's, weight files', or random
/// ones.
fn begin(start: &Start, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    if let Some(file) = start.open(&trainer.config.output)? {
        restore(&file, trainer, state)?;
        if matches!(start, Start::From { .. }) {
            state.forget_best();
        }
        return Ok(());
    }
    initial_weights(trainer)?;
    if trainer.config.ema > 0.0 {
        trainer.ema = Some(Ema::new(&trainer.detector.variables(), trainer.config.ema)?);
    }
    Ok(())
}

/// Takes in the weight files that the settings name.
fn initial_weights(trainer: &Trainer) -> Result<()> {
    let (config, detector) = (&trainer.config, &trainer.detector);
    let settings = detector.model.config();
    if let Some(path) = &config.backbone_weights {
        let path = in_run(path)?;
        let report = read_backbone(&path, &detector.store, settings, &LoadOptions::default())?;
        eprintln!("backbone from {}:\n{report}", path.display());
    }
    if let Some(path) = &config.weights {
        match saved::own_checkpoint(path)? {
            Some(own) => {
                own.load(detector, config.new_classes)?;
                eprintln!("initial weights from {}", path.display());
            }
            None => {
                let without_predictors = config.new_classes;
                let options = ReadOptions { without_predictors, ..Default::default() };
                let report = read_detector(path, &detector.store, settings, &options)?;
                eprintln!("initial weights from {}:\n{report}", path.display());
            }
        }
    }
    Ok(())
}

/// Takes model, optimizer, averages and state from a checkpoint.
fn restore(file: &CheckpointFile, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    let path = file.path();
    let saved: TrainState = saved_state(file, TrainState::VERSION)?;
    ensure!(
        saved.classes == state.classes,
        "{} was trained on other classes ({}) than the data has ({}); to learn these from it, \
         begin a new run with --weights {0} --new-classes",
        path.display(),
        names(&saved.classes),
        names(&state.classes)
    );
    let variables = trainer.detector.variables();
    let settings = (&saved.config, &trainer.config);
    restore_run(file, &variables, trainer.optimizer.as_mut(), settings)?;
    if let Some(ema) = &trainer.ema {
        ensure!(
            file.sections().contains("ema"),
            "{} does not fit these settings: it has no averaged weights; continue with --ema 0",
            path.display()
        );
        checkpoint::restore(path, &file.section("ema")?, ema.averages())?;
    }
    let (batch_size, synchronised) = (trainer.config.batch_size, trainer.synchronised());
    tell_world_change(&trainer.world, saved.processes, batch_size, synchronised);
    state.continue_from(saved);
    Ok(())
}

/// The first classes' names.
fn names(classes: &[super::Class]) -> String {
    let shown: Vec<&str> = classes.iter().take(4).map(|class| class.name.as_str()).collect();
    let more = if classes.len() > shown.len() { ", …" } else { "" };
    format!("{}: {}{more}", classes.len(), shown.join(", "))
}

/// Says what is about to run.
fn announce(
    trainer: &Trainer,
    loader: &DetectionLoader,
    validation: &DetectionLoader,
    state: &TrainState,
    threads: usize,
) {
    let config = &trainer.config;
    let (steps, detector) = (loader.steps(), &trainer.detector);
    let count = |prefix: &str| -> f64 {
        let variables = detector.variables();
        let learned = variables.iter().filter(|(n, t)| n.starts_with(prefix) && t.requires_grad());
        learned.map(|(_, tensor)| tensor.numel()).sum::<usize>() as f64 / 1e6
    };
    let (backbone, all) = (count(BOTTOM_UP), count(""));
    let parts = parts_of_batch(&trainer.world, config.batch_size, config.accum_steps);
    let device = described(detector.device(), threads);
    let total = config.total_steps(steps);
    eprintln!(
        "{}: {} with the settings of {}, {device}, {:?}\n\
         images   {} of {} with objects to train on, {} for validation, {} classes\n\
         model    backbone {backbone:.1} M learned parameters, the rest {:.1} M\n\
         batch    {}{parts}: {steps} steps an epoch, {total} in all\n\
         lr       {:.3e} at its peak ({:e} · {} / {BASE_BATCH}), layer decay {}, weight decay {}\n\
         output   {}",
        config.name,
        detector.model.config().name(),
        config.detector,
        config.precision,
        loader.image_count(),
        loader.dataset().len(),
        validation.image_count(),
        state.classes.len(),
        all - backbone,
        config.batch_size,
        config.peak_lr(),
        config.base_lr,
        config.batch_size,
        config.layer_decay,
        config.weight_decay,
        shown(&config.output),
    );
    if state.step > 0 {
        eprintln!("resuming after step {} of {total}", state.step);
    }
}
