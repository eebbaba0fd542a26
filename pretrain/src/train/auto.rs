//! The preset `auto`: what a run is, by its images and the machine.
//!
//! The recipe follows from the number of images: that of the preset `small-data` for thousands,
//! of `one-gpu` for tens of thousands and more, and the paper's from a million on. A processor
//! always takes the first: AdamW takes the small batches that it can compute in its time. Batch,
//! arithmetic and length are then made to fit the machine.

use anyhow::{Context, Result};
use backbone::models;
use data::Dataset;
use engine::distributed::ProcessGroup;
use engine::graph::model_of_run;
use engine::optim::OptimizerKind;
use engine::progress::during;
use engine::settings::{Span, TrainSettings as _};
use engine::training::ResumeMode;
use engine::training::auto::{
    Choices, LengthRule, Machine, Measure, checkpoint_epochs, choose_parts, choose_precision,
    count, crop_side, short_side,
};
use engine::training::trial::StepCost;

use super::setup::dataset_options;
use crate::config::{BASE_BATCH, InputSize, TrainConfig};

/// From so many images on the recipe is that of `one-gpu`, and from so many on the paper's.
const MANY: usize = 10_000;
const VERY_MANY: usize = 1_000_000;
/// Fewest steps of a run, and the most: those of the paper's 1600 epochs of ImageNet.
const LEAST_STEPS: u64 = 1000;
const MOST_STEPS: u64 = 500_000;
/// Images that a batch has at least: fewer fill it by repeating, each with its own crop and mask.
const LEAST_BATCH: usize = 16;
/// Images of which a step is tried.
const TRIED: usize = 16;
/// AdamW's peak learning rate for a batch of 32: measured for ResNet-18.
const ADAMW_LR: f64 = 1e-3;
const ADAMW_BATCH: f64 = 32.0;
/// The paper's peak learning rate of LAMB, for a batch of 4096.
const LAMB_LR: f64 = 3.2e-3;
const LAMB_BATCH: f64 = 4096.0;
/// Images at a time of which batch norms know enough.
const LEAST_PART: usize = 8;

/// What is chosen; where all of it is given, the images need not be looked at.
const CHOSEN: [&str; 13] = [
    "model",
    "input-size",
    "decoder-width",
    "crop-scale",
    "optimizer",
    "base-lr",
    "precision",
    "batch-size",
    "accum-steps",
    "epochs",
    "warmup-epochs",
    "checkpoint-epochs",
    "picture-epochs",
];

/// What the rule goes by besides the machine.
#[derive(Debug, Clone, Copy)]
pub struct Images {
    /// How many there are.
    pub count: usize,
    /// Pixels of the short side, in the median.
    pub short_side: u64,
}

/// Which published recipe is nearest.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Recipe {
    SmallData,
    OneGpu,
    Paper,
}

impl Recipe {
    fn of(images: &Images, machine: &Machine) -> Self {
        match images.count {
            _ if !machine.has_gpu() => Self::SmallData,
            0..MANY => Self::SmallData,
            MANY..VERY_MANY => Self::OneGpu,
            _ => Self::Paper,
        }
    }

    fn batch(self, machine: &Machine) -> usize {
        match self {
            Self::SmallData if machine.is_small() => 32,
            Self::SmallData => 64,
            Self::OneGpu => 256,
            Self::Paper => 4096,
        }
    }
}

/// Chooses the settings of a run that are not given.
///
/// # Errors
/// Images that cannot be listed or read, settings that cannot work: what to give.
pub fn choose(
    choices: &mut Choices<TrainConfig>,
    machine: &Machine,
    measure: &Measure<TrainConfig>,
) -> Result<()> {
    let config = choices.settings()?;
    let is_named = !config.data.as_os_str().is_empty() && !config.run.output.as_os_str().is_empty();
    if !is_named || choices.are_given(&CHOSEN) {
        return Ok(());
    }
    let images = look(&config)?;
    choose_recipe(choices, &images, machine)?;
    choose_size(choices, &images, machine)?;
    let of_trial = choices.clone();
    choose_precision(choices, machine, |precision| {
        let mut trial = trial(&of_trial, machine, TRIED)?;
        trial.compute.precision = precision;
        measure(trial.resolve()?)
    })?;
    let cost = measure(trial(choices, machine, TRIED)?.resolve()?)?;
    choose_batch(choices, &images, machine)?;
    let batch = choices.settings()?.optim.batch_size;
    let of_trial = choices.clone();
    let cost = choose_parts(choices, machine, (batch, LEAST_PART), cost, |part| {
        measure(trial(&of_trial, machine, part)?.resolve()?)
    })?;
    choose_length(choices, &images, machine, &cost)
}

/// Lists the images and looks at some.
fn look(config: &TrainConfig) -> Result<Images> {
    let options = dataset_options(config, &ProcessGroup::alone(), false);
    let dataset = during(true, "listing the images", || Dataset::open(&config.data, &options))
        .with_context(|| format!("cannot train on --data {}", config.data.display()))?;
    let short_side = during(true, "reading headers of images", || short_side(&dataset))?;
    Ok(Images { count: dataset.total_samples(), short_side })
}

/// What is learned, and how: all that follows from the number of images and the machine.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_recipe(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
) -> Result<()> {
    let recipe = Recipe::of(images, machine);
    match machine.is_small() {
        true => {
            let why = "a small network, for a processor of few cores";
            choices.choose("model", "resnet18", why)?;
            choices.follow("decoder-width", 256)?;
        }
        false => {
            choices.choose("model", "resnet50", "the default")?;
            let width = if recipe == Recipe::SmallData { 512 } else { 768 };
            choices.follow("decoder-width", width)?;
        }
    }
    if recipe == Recipe::SmallData {
        choices.follow("crop-scale", Span::new(0.4, 1.0))?;
        choices.follow("optimizer", OptimizerKind::Adamw)?;
    }
    Ok(())
}

/// The size of crops.
fn choose_size(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
) -> Result<()> {
    if choices.is_given("input-size") {
        return Ok(());
    }
    let stride = total_stride(&choices.settings()?)?;
    let most = if machine.is_small() { 128 } else { 224 };
    let (side, why) = crop_side(images.short_side, stride, most, 2);
    choices.choose("input-size", InputSize::square(side), why)?;
    Ok(())
}

/// The model's total stride; a file's network is read.
fn total_stride(config: &TrainConfig) -> Result<i64> {
    let start = ResumeMode::New { overwrite: false };
    let name = match &config.stages {
        Some(stages) => models::with_stages(&config.model, stages)?,
        None => config.model.clone(),
    };
    let model = model_of_run(&name, &config.run.output, &start, &ProcessGroup::alone())?;
    Ok(model.total_stride())
}

/// Images of a step, and the learning rate that goes with them.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_batch(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
) -> Result<()> {
    let recipe = Recipe::of(images, machine);
    let usual = recipe.batch(machine);
    let mut batch = usual.min(images.count.max(LEAST_BATCH));
    // Between those a power of two.
    batch = if batch == usual { usual } else { 1 << batch.ilog2() };
    let parts = choices.settings()?.optim.accum_steps * machine.processes;
    batch = batch.next_multiple_of(parts);
    let number = count(images.count as u64);
    let why = match recipe {
        _ if batch < usual => format!("{number} images"),
        Recipe::SmallData if images.count >= MANY => {
            format!("{number} images, on a processor")
        }
        _ => format!("{number} images"),
    };
    choices.choose("batch-size", batch, why)?;
    choose_lr(choices, recipe)
}

/// The base learning rate: of AdamW and LAMB the square root of the batch, as is usual for
/// optimizers that divide by the gradients' size (Malladi et al., NeurIPS 2022), but in proportion
/// to it in the paper's recipe.
fn choose_lr(choices: &mut Choices<TrainConfig>, recipe: Recipe) -> Result<()> {
    let optim = choices.settings()?.optim;
    let batch = optim.batch_size as f64;
    let (peak, of) = match optim.optimizer {
        OptimizerKind::Adamw => (ADAMW_LR, ADAMW_BATCH),
        OptimizerKind::Lamb if recipe != Recipe::Paper => (LAMB_LR, LAMB_BATCH),
        _ => return Ok(()),
    };
    let base = peak * (batch / of).sqrt() * BASE_BATCH / batch;
    let base: f64 = format!("{base:.2e}").parse()?;
    let why = format!("{:?}; {peak:e} at {of}, by the square root of the batch", optim.optimizer);
    choices.choose("base-lr", base, why)?;
    Ok(())
}

/// How long the run is, and how often it is saved and drawn.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_length(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
    cost: &StepCost,
) -> Result<()> {
    let (epochs, of) = match images.count {
        0..MANY => (800, "small-data"),
        MANY..VERY_MANY => (400, "one-gpu"),
        _ => (1600, "paper"),
    };
    let rule = LengthRule {
        epochs,
        why: format!("as in {of}, for {} images", count(images.count as u64)),
        images: images.count,
        batch: choices.settings()?.optim.batch_size,
        least_steps: LEAST_STEPS,
        most_steps: MOST_STEPS,
    };
    rule.choose(choices, machine, Some(cost))?;
    let epochs = choices.settings()?.optim.epochs;
    // A twentieth, as all presets have, but not the whole of a run of one epoch.
    choices.follow("warmup-epochs", (epochs / 20).clamp(1, 40).min(epochs.saturating_sub(1)))?;
    let seconds = rule.epoch_seconds(cost, machine);
    choices.follow("checkpoint-epochs", checkpoint_epochs(epochs, seconds))?;
    if seconds > 1800.0 {
        let steps = (1800.0 / seconds * rule.steps() as f64) as u64;
        choices.follow("checkpoint-steps", steps.max(1))?;
    }
    choices.follow("picture-epochs", (epochs / 10).max(1))?;
    Ok(())
}

/// Settings to try steps with: `batch` images of this process.
fn trial(choices: &Choices<TrainConfig>, machine: &Machine, batch: usize) -> Result<TrainConfig> {
    let mut config = choices.settings()?;
    let optim = &mut config.optim;
    (optim.batch_size, optim.accum_steps, optim.epochs) = (batch, 1, 2);
    (config.warmup_epochs, config.shard_by_rank) = (0, false);
    config.compute.threads = machine.cores;
    config.crops.refresh_index = false;
    config.probe = None;
    Ok(config)
}

#[cfg(test)]
mod tests;
