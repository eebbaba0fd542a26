//! From settings to objects: device, data, classifier, optimizer, and where the
//! run left off.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use backbone::weights;
use data::names::same_names;
use data::{LabelledDataset, LabelledSource, Loader, LoaderOptions};
use engine::checkpoint::{self, CheckpointFile};
use engine::device::{described, device_among, tune_for_one_size, use_threads_among};
use engine::distributed::{Gradients, World};
use engine::optim::{AdamW, AdamWConfig, Ema, GradScaler, Lamb, LambConfig, Optimizer};
use engine::precision::Precision;
use engine::run_dir::{in_run, shown};
use engine::training::{
    RunFiles, Start, open_run, parts_of_batch, restore_run, saved_state, share_run,
    tell_world_change,
};
use tch::Device;

use super::config::{BASE_BATCH, OptimizerKind, TrainConfig};
use super::state::TrainState;
use super::step::Trainer;
use crate::classifier::{Classifier, ClassifierOptions};
use crate::data::{ImageSettings, datasets, evaluation_loader, mixup, training_loader};
use crate::saved::{OwnCheckpoint, label_names};

/// How long processes wait for rank 0's listing of the data: hours, on a slow disk.
const LISTING: Duration = Duration::from_secs(6 * 3600);

/// Everything a run works with.
pub struct Setup {
    pub files: RunFiles,
    pub loader: Loader<LabelledSource>,
    pub validation: Loader<LabelledSource>,
    pub trainer: Trainer,
    pub state: TrainState,
}

impl Setup {
    /// Builds everything, prints what will happen, and only then touches the
    /// run's folder.
    pub fn new(config: TrainConfig, start: &Start, world: &World) -> Result<Self> {
        let threads = use_threads_among(config.execution.threads, world);
        let device = world.agree(device_among(&config.execution.device, world))?;
        tune_for_one_size(device);
        world.use_device(device)?;
        let [training, held_out] = world.patiently(LISTING, || datasets(&config, world))?;
        let notes = [training.notes(), held_out.notes()].concat();
        let loader = training_loader(&config, Arc::clone(&training), world)?;
        let options = LoaderOptions::on_cores(
            config.loading.workers,
            config.loading.max_corrupt,
            world.cores(),
        );
        let images = ImageSettings::from(&config);
        let batch =
            config.eval_batch(world.part_of(config.optim.batch_size, config.optim.accum_steps)?);
        let validation = evaluation_loader(held_out, &images, batch, &options, world)?;

        let classes = training.classes().len() as i64;
        let mut trainer = world.agree(trainer(config, classes, device, world))?;
        trainer.gradients = Gradients::new(world, trainer.classifier.store())?;
        let scaler =
            (trainer.config.execution.precision == Precision::Float16).then(GradScaler::default);
        let mut state = TrainState::new(
            trainer.config.clone(),
            training.classes().to_vec(),
            scaler,
            world.size(),
        );
        let made = if world.is_main() { begin(start, &mut trainer, &mut state) } else { Ok(()) };
        let variables = trainer.classifier.variables();
        let (optimizer, averages) = (trainer.optimizer.as_mut(), trainer.ema.as_ref());
        share_run(world, made, &variables, optimizer, averages, (&mut state, |state| state.step))?;

        let files = open_run(world, &trainer.config.run.output, start, &trainer.config)?;
        if world.is_main() {
            notes.iter().for_each(|note| eprintln!("note: {note}"));
            announce(&trainer, [&loader, &validation], &state, threads);
        }
        Ok(Self { files, loader, validation, trainer, state })
    }
}

fn trainer(
    config: TrainConfig,
    num_classes: i64,
    device: Device,
    world: &World,
) -> Result<Trainer> {
    tch::manual_seed(config.execution.seed as i64);
    let options = ClassifierOptions {
        drop_path: config.drop_path,
        head_init_scale: config.head_init_scale,
        ..ClassifierOptions::new(num_classes)
    };
    let mut classifier = Classifier::build(config.registered_model()?, &options, device)?;
    if config.execution.precision == Precision::Float64 {
        classifier.double();
    }
    // Of one process until all have got this far.
    let gradients = Gradients::alone();
    let part_size = world.part_of(config.optim.batch_size, config.optim.accum_steps)?;
    let world = world.clone();
    check_batch_norms(&config, &classifier, part_size, &world)?;
    let optimizer = optimizer(&config, &classifier)?;
    let ema = averages(&config, &classifier)?;
    let mixup = mixup(&config)?;
    Ok(Trainer { config, classifier, optimizer, ema, mixup, world, gradients, part_size })
}

/// Refuses parts of a batch that leave batch norms one value a channel, of which there
/// is no variance.
fn check_batch_norms(
    config: &TrainConfig,
    classifier: &Classifier,
    part: usize,
    world: &World,
) -> Result<()> {
    let backbone = classifier.backbone();
    let side = config.input_size.div_ceil(backbone.total_stride() as usize);
    let shared = config.execution.sync_bn && !world.is_alone();
    ensure!(
        !backbone.has_batch_norms() || shared || part * side * side > 1,
        "a part of a batch is {part} image of {0} × {0} pixels, but batch norm expects more than 1 \
         value per channel when training, and the last stage leaves it 1; raise --batch-size or \
         --input-size, or lower --accum-steps",
        config.input_size
    );
    Ok(())
}

/// The optimizer of `config` for all of `classifier`'s parameters.
///
/// # Errors
/// Settings out of range.
pub fn optimizer(config: &TrainConfig, classifier: &Classifier) -> Result<Box<dyn Optimizer>> {
    let groups = classifier.param_groups(config.layer_decay);
    let max_grad_norm = (config.optim.clip_grad > 0.0).then_some(config.optim.clip_grad);
    let betas = (config.optim.beta1, config.beta2);
    Ok(match config.optim.optimizer {
        OptimizerKind::Lamb => {
            let options = LambConfig {
                betas,
                max_grad_norm,
                bias_correction: false,
                always_adapt: true,
                ..LambConfig::default()
            };
            Box::new(Lamb::new(groups, options)?)
        }
        OptimizerKind::Adamw => {
            let options = AdamWConfig { betas, max_grad_norm, ..AdamWConfig::default() };
            Box::new(AdamW::new(groups, options)?)
        }
    })
}

/// Averages of `classifier`'s variables that begin with their values now, if
/// `config` asks for any.
///
/// # Errors
/// A decay out of range.
pub fn averages(config: &TrainConfig, classifier: &Classifier) -> Result<Option<Ema>> {
    if config.optim.ema == 0.0 {
        return Ok(None);
    }
    let ema = Ema::new(&classifier.variables(), config.optim.ema)?;
    Ok(Some(if config.optim.ema_warmup { ema } else { ema.with_constant_decay() }))
}

/// Weights and state to begin with: a checkpoint's, weight files', or random
/// ones.
fn begin(start: &Start, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    if let Some(file) = start.open(&trainer.config.run.output)? {
        restore(&file, trainer, state)?;
        if matches!(start, Start::From { .. }) {
            state.forget_best();
        }
        return Ok(());
    }
    initial_weights(trainer, state)?;
    trainer.ema = averages(&trainer.config, &trainer.classifier)?;
    Ok(())
}

/// Takes in the weight files that the settings name.
fn initial_weights(trainer: &Trainer, state: &TrainState) -> Result<()> {
    let (config, classifier) = (&trainer.config, &trainer.classifier);
    if let Some(path) = &config.backbone_weights {
        let path = in_run(path)?;
        let report = classifier.load_backbone(&weights::read(&path)?)?;
        eprintln!("backbone from {}:\n{report}", path.display());
    }
    let Some(path) = &config.weights else { return Ok(()) };
    let (file, classes) = match OwnCheckpoint::open(path)? {
        Some(own) => (own.file, Some(own.state.classes)),
        None => {
            let file = weights::read(path)?;
            let names = label_names(&file);
            (file, names)
        }
    };
    if config.reset_head {
        let report = classifier.load_backbone(&file)?;
        eprintln!("backbone from {}, with a new head:\n{report}", file.path.display());
        return Ok(());
    }
    let report = classifier.load(&file)?;
    if let Some(classes) = classes {
        ensure!(
            same_names(&classes, &state.classes),
            "{} was trained on as many, but other classes ({}) than the data has ({}); with \
             --new-head its backbone is taken and the head learned anew",
            file.path.display(),
            some(&classes),
            some(&state.classes)
        );
    }
    eprintln!("initial weights from {}:\n{report}", file.path.display());
    Ok(())
}

/// Takes model, optimizer, averages and state from a checkpoint.
fn restore(file: &CheckpointFile, trainer: &mut Trainer, state: &mut TrainState) -> Result<()> {
    let saved: TrainState = saved_state(file, TrainState::VERSION)?;
    let path = file.path().display();
    ensure!(
        same_names(&saved.classes, &state.classes),
        "{path} was trained on other classes ({}) than the data has ({}); to learn these from it, \
         begin a new run with --weights {path} --new-head",
        some(&saved.classes),
        some(&state.classes)
    );
    let model = trainer.classifier.variables();
    let settings = (&saved.config, &trainer.config);
    restore_run(file, &model, trainer.optimizer.as_mut(), settings)?;
    if let Some(ema) = &trainer.ema {
        ensure!(
            file.sections().contains("ema"),
            "{path} does not fit these settings: it has no averaged weights; continue with --ema 0"
        );
        checkpoint::restore(file.path(), &file.section("ema")?, ema.averages())?;
    }
    let (batch_size, synchronised) =
        (trainer.config.optim.batch_size, trainer.config.execution.sync_bn);
    tell_world_change(&trainer.world, saved.processes, batch_size, synchronised);
    state.continue_from(saved);
    Ok(())
}

/// The first names, and how many there are.
fn some(classes: &[String]) -> String {
    let shown = classes.iter().take(4).cloned().collect::<Vec<_>>().join(", ");
    let more = if classes.len() > 4 { ", …" } else { "" };
    format!("{}: {shown}{more}", classes.len())
}

/// Says what is about to run.
fn announce(
    trainer: &Trainer,
    [loader, validation]: [&Loader<LabelledSource>; 2],
    state: &TrainState,
    threads: usize,
) {
    let (config, classifier) = (&trainer.config, &trainer.classifier);
    let images = |loader: &Loader<LabelledSource>| -> Arc<LabelledDataset> {
        Arc::clone(loader.source().dataset())
    };
    let learned = classifier.variables().into_values().filter(|tensor| tensor.requires_grad());
    let learned = learned.map(|tensor| tensor.numel()).sum::<usize>() as f64 / 1e6;
    let parts = parts_of_batch(&trainer.world, config.optim.batch_size, config.optim.accum_steps);
    let (steps, total) = (loader.steps(), loader.steps() * config.optim.epochs);
    eprintln!(
        "{}: {} on {}, {:?}\n\
         images   {} to train on, {} for validation, {} classes ({})\n\
         model    {learned:.1} M learned parameters, {} × {} pixels\n\
         batch    {}{parts}: {steps} steps an epoch, {total} in all\n\
         lr       {:.3e} at its peak ({:e} · {} / {BASE_BATCH}), layer decay {}, weight decay {}\n\
         output   {}",
        config.run.name,
        config.model,
        described(classifier.device(), threads),
        config.execution.precision,
        images(loader).len(),
        images(validation).len(),
        state.classes.len(),
        some(&state.classes),
        config.input_size,
        config.input_size,
        config.optim.batch_size,
        config.peak_lr(),
        config.optim.base_lr,
        config.optim.batch_size,
        config.layer_decay,
        config.optim.weight_decay,
        shown(&config.run.output),
    );
    if config.backbone_weights.is_none() && config.weights.is_none() && state.step == 0 {
        eprintln!("weights  random; --backbone-weights begins with a pretrained backbone");
    }
    if state.step > 0 {
        eprintln!("resuming after step {} of {total}", state.step);
    }
}
