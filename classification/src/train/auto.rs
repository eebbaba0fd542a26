//! The preset `auto`: what a run is, by its images and the machine.
//!
//! On a GPU and from two hundred thousand images on it is the official recipe for ImageNet, with the
//! preset of the model's name where there is one; else the recipe of the preset `small-data`.

use anyhow::{Context, Result};
use data::LabelledDataset;
use engine::distributed::ProcessGroup;
use engine::progress::during;
use engine::settings::TrainSettings as _;
use engine::training::Preset as _;
use engine::training::auto::{
    Choices, LengthRule, Machine, Measure, checkpoint_epochs, choose_parts, choose_precision,
    count, crop_side, short_side,
};
use engine::training::trial::StepCost;

use clap::ValueEnum as _;

use super::config::{Preset, TrainConfig};
use crate::data::dataset_options;

/// From so many images on the recipe is ImageNet's.
const VERY_MANY: usize = 200_000;
/// Fewest steps of a run, and the most.
const LEAST_STEPS: u64 = 500;
const MOST_STEPS: u64 = 200_000;
/// Images of which a step is tried, that a batch has at least, and that batch norms see at a time.
const TRIED: usize = 16;
const LEAST_BATCH: usize = 16;
const LEAST_PART: usize = 8;
/// The model's total stride is a divisor of this; crops are a multiple of it.
const STRIDE: i64 = 32;

/// What is chosen; where all of it is given, the images need not be looked at.
const CHOSEN: [&str; 10] = [
    "model",
    "input-size",
    "layer-decay",
    "optimizer",
    "precision",
    "batch-size",
    "accum-steps",
    "epochs",
    "warmup-epochs",
    "checkpoint-epochs",
];

/// What the rule goes by besides the machine.
#[derive(Debug, Clone, Copy)]
pub struct Images {
    /// How many there are to train on.
    pub count: usize,
    /// Pixels of the short side, in the median.
    pub short_side: u64,
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
    let has_data = !config.data.as_os_str().is_empty() || config.train_data.is_some();
    let is_named = has_data && !config.run.output.as_os_str().is_empty();
    if !is_named || choices.are_given(&CHOSEN) {
        return Ok(());
    }
    let images = look(&config)?;
    choose_recipe(choices, &images, machine)?;
    let of_trial = choices.clone();
    choose_precision(choices, machine, |precision| {
        let mut config = trial(&of_trial, machine, TRIED)?;
        config.execution.precision = precision;
        measure(config.resolve()?)
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
    let [training, _] = config.folders()?;
    let options = dataset_options(config, &ProcessGroup::alone());
    let open = || LabelledDataset::open(&training, &options);
    let dataset = during(true, "listing the images", open)
        .with_context(|| format!("cannot train on {}", training.display()))?;
    let side = during(true, "reading headers of images", || short_side(dataset.images()))?;
    Ok(Images { count: dataset.len(), short_side: side })
}

/// The recipe, the model and the size of crops.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_recipe(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
) -> Result<()> {
    match machine.is_small() {
        true => {
            choices.choose("model", "resnet18", "a small network, for a processor of few cores")?
        }
        false => choices.choose("model", "resnet50", "the default")?,
    };
    let config = choices.settings()?;
    let most = if machine.is_small() { 128 } else { 224 };
    let (side, why) = crop_side(images.short_side, STRIDE, most, 2);
    choices.choose("input-size", side, why)?;
    let recipe = match is_large(images, machine) {
        false => Preset::SmallData,
        true => Preset::from_str(&config.model, false).unwrap_or(Preset::Resnet50),
    };
    choices.base(recipe.table()?);
    if config.backbone_weights.is_none() && config.weights.is_none() {
        choices.choose("layer-decay", 1.0, "nothing is pretrained that should be kept")?;
    }
    Ok(())
}

fn is_large(images: &Images, machine: &Machine) -> bool {
    machine.has_gpu() && images.count >= VERY_MANY
}

/// Images of a step. The base learning rate stays: it is scaled by the batch.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_batch(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
) -> Result<()> {
    let usual = match is_large(images, machine) {
        // The recipe's.
        true => choices.settings()?.optim.batch_size,
        false if machine.is_small() => 32,
        false => 64,
    };
    let few = usual.min(images.count.max(LEAST_BATCH));
    let batch = if few == usual { usual } else { 1 << few.ilog2() };
    let parts = choices.settings()?.optim.accum_steps * machine.processes;
    let why = format!("{} images", count(images.count as u64));
    choices.choose("batch-size", batch.next_multiple_of(parts), why)?;
    Ok(())
}

/// How long the run is, and how often it is saved and evaluated.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_length(
    choices: &mut Choices<TrainConfig>,
    images: &Images,
    machine: &Machine,
    cost: &StepCost,
) -> Result<()> {
    let optim = choices.settings()?.optim;
    let of = if is_large(images, machine) { "the official recipe" } else { "small-data" };
    let rule = LengthRule {
        epochs: optim.epochs,
        why: format!("as in {of}"),
        images: images.count,
        batch: optim.batch_size,
        least_steps: LEAST_STEPS,
        most_steps: MOST_STEPS,
    };
    rule.choose(choices, machine, Some(cost))?;
    let epochs = choices.settings()?.optim.epochs;
    let warmup = match is_large(images, machine) {
        true => choices.settings()?.warmup_epochs,
        false => (epochs / 20).clamp(1, 20),
    };
    choices.follow("warmup-epochs", warmup.min(epochs.saturating_sub(1)))?;
    let every = checkpoint_epochs(epochs, rule.epoch_seconds(cost, machine));
    choices.follow("checkpoint-epochs", every)?;
    // Of more epochs than the presets have, no more evaluations.
    if epochs > 100 && !is_large(images, machine) {
        choices.follow("eval-epochs", epochs / 50)?;
    }
    Ok(())
}

/// Settings to try steps with: `batch` images of this process.
fn trial(choices: &Choices<TrainConfig>, machine: &Machine, batch: usize) -> Result<TrainConfig> {
    let mut config = choices.settings()?;
    let optim = &mut config.optim;
    (optim.batch_size, optim.accum_steps, optim.epochs) = (batch, 1, 2);
    (config.warmup_epochs, config.execution.threads) = (0, machine.cores);
    config.crops.refresh_index = false;
    Ok(config)
}

#[cfg(test)]
mod tests;
