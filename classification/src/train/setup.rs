//! From settings to objects: device, data, classifier, optimizer, and where the
//! run left off.

use std::sync::Arc;

use anyhow::{Result, ensure};
use backbone::models::Model;
use data::names::first_names;
use data::{LabelledDataset, LabelledSource, Loader};
use engine::device::{describe_device, enable_cudnn_benchmark, open_device};
use engine::distributed::{LISTING, ProcessGroup};
use engine::graph::model_of_run;
use engine::optim::{LambConfig, Optimizer, OptimizerKind};
use engine::precision::Precision;
use engine::progress::during;
use engine::run_dir::display_path;
use engine::training::{ResumeMode, Run, Setup, Trainer};
use tch::Device;

use super::ClassifierState;
use super::config::{BASE_BATCH, TrainConfig};
use super::task::FineTuning;
use crate::classifier::{Classifier, ClassifierOptions};
use crate::data::{ImageSettings, datasets, evaluation_loader, mixup, training_loader};

/// Builds everything, of the images `listed` if they are; nothing of the run's folder is touched.
///
/// # Errors
/// Settings and files that nothing can be built of.
pub fn prepare(
    config: TrainConfig,
    start: &ResumeMode,
    world: &ProcessGroup,
    listed: Option<[Arc<LabelledDataset>; 2]>,
) -> Result<Setup<FineTuning>> {
    let (device, threads) = open_device(&config.execution, world)?;
    enable_cudnn_benchmark(device);
    let model = model_of_run(&config.model, &config.run.folder()?, start, world)?;
    let [training, held_out] = listed.map_or_else(|| list(&config, world), Ok)?;
    let loader = training_loader(&config, Arc::clone(&training), world)?;
    let micro_batch = world.micro_batch_size(config.optim.batch_size, config.optim.accum_steps)?;
    let batch = config.eval_batch(micro_batch);
    let options = config.loading.options(world);
    let images = ImageSettings::from(&config);
    let validation = evaluation_loader(held_out, &images, batch, &options, world)?;

    let classes = training.classes().to_vec();
    let build = || build(&config, &model, classes.len() as i64, device);
    let classifier = world.all_ok(during(world.is_main(), "building the model", build))?;
    let optimizer = world.all_ok(optimizer(&config, &classifier))?;
    world.all_ok(check_batch_norms(&config, &classifier, micro_batch, world))?;
    let settings = (&config.optim, &config.execution);
    let trainer = Trainer::new(classifier.store(), optimizer, settings, world)?;
    let trainer = world.all_ok(trainer.carrying(&model))?;
    let mixup = mixup(&config)?;
    let task = FineTuning { config, classifier, mixup, validation, classes };

    let state = ClassifierState { accuracy: None, classes: task.classes.clone() };
    let (total_steps, loader) = (loader.steps() * task.config.optim.epochs, Arc::new(loader));
    Ok(Setup { task, trainer, state, loader, total_steps, threads, announce })
}

/// Lists the images to train on and those for validation.
///
/// # Errors
/// As [`datasets`].
pub fn list(config: &TrainConfig, world: &ProcessGroup) -> Result<[Arc<LabelledDataset>; 2]> {
    let list = || world.with_timeout(LISTING, || datasets(config, world));
    during(world.is_main(), "listing the images", list)
}

fn build(
    config: &TrainConfig,
    model: &Model,
    num_classes: i64,
    device: Device,
) -> Result<Classifier> {
    tch::manual_seed(config.execution.seed as i64);
    let options = ClassifierOptions {
        drop_path: drop_path(config, model),
        head_init_scale: config.head_init_scale,
        ..ClassifierOptions::new(num_classes)
    };
    let mut classifier = Classifier::build(model, &options, device)?;
    if config.execution.precision == Precision::Float64 {
        classifier.double();
    }
    Ok(classifier)
}

/// The rate that `model` is built with: none where a `.pt2` file's network has no blocks that drop,
/// since presets bring one.
fn drop_path(config: &TrainConfig, model: &Model) -> f64 {
    let drops = model.graph().is_none_or(|graph| graph.has_drop_path());
    config.drop_path.filter(|_| drops).unwrap_or(0.0)
}

/// Refuses parts of a batch that leave batch norms one value a channel, of which there
/// is no variance.
fn check_batch_norms(
    config: &TrainConfig,
    classifier: &Classifier,
    part: usize,
    world: &ProcessGroup,
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

/// The optimizer of `config` for all of `classifier`'s parameters; LAMB as in the official
/// fine-tuning of ResNets: the trust ratio for all parameters, no bias correction.
///
/// # Errors
/// Settings out of range.
pub fn optimizer(config: &TrainConfig, classifier: &Classifier) -> Result<Box<dyn Optimizer>> {
    let lamb = LambConfig { bias_correction: false, always_adapt: true, ..LambConfig::default() };
    let groups = classifier.param_groups(config.layer_decay);
    Ok(OptimizerKind::build(&config.optim, groups, lamb)?)
}

/// Says what is about to run.
fn announce(run: &Run<FineTuning>, loader: &Loader<LabelledSource>, threads: usize) {
    let Run { task, trainer, plan, .. } = run;
    let FineTuning { config, classes, validation, .. } = task;
    let [training, validation] = [loader, validation].map(Loader::dataset);
    for note in training.notes().iter().chain(validation.notes()) {
        eprintln!("note: {note}");
    }
    let rate = config.drop_path.unwrap_or(0.0);
    if drop_path(config, task.classifier.model()) != rate {
        eprintln!(
            "note: {} has no drop-path, so that a rate of {rate} does nothing; to drop, export it \
             with a rate above 0 and in train mode",
            config.model
        );
    }
    let learned = trainer.variables.values().filter(|tensor| tensor.requires_grad());
    let learned = learned.map(|tensor| tensor.numel()).sum::<usize>() as f64 / 1e6;
    eprintln!(
        "{}: {} on {}, {:?}\n\
         images   {} to train on, {} for validation, {} classes ({})\n\
         model    {learned:.1} M learned parameters, {} × {} pixels\n\
         batch    {}\n\
         lr       {}, layer decay {}, weight decay {}\n\
         output   {}",
        config.run.name,
        config.model,
        describe_device(trainer.device, threads),
        config.execution.precision,
        training.len(),
        validation.len(),
        classes.len(),
        first_names(classes.iter().map(String::as_str)),
        config.input_size,
        config.input_size,
        run.describe_batch(),
        config.optim.describe_lr(BASE_BATCH),
        config.layer_decay,
        config.optim.weight_decay,
        display_path(&config.run.output),
    );
    if config.backbone_weights.is_none() && config.weights.is_none() && plan.done == 0 {
        match task.classifier.model().graph() {
            Some(_) => eprintln!("weights  those of {}, the head's random", config.model),
            None => {
                eprintln!("weights  random; --backbone-weights begins with a pretrained backbone");
            }
        }
    }
}
