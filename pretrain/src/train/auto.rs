//! The preset `auto`: what a run is, by its images and the machine.
//!
//! The recipe follows from the number of images: that of the preset `small-data` for thousands,
//! of `one-gpu` for tens of thousands and more, and the paper's from a million on. A processor
//! always takes the first: AdamW takes the small batches that it can compute in its time. Batch,
//! arithmetic and length are then made to fit the machine.

use std::sync::Arc;

use anyhow::Result;
use backbone::models;
use data::Dataset;
use engine::distributed::ProcessGroup;
use engine::graph::model_of_run;
use engine::optim::OptimizerKind;
use engine::progress::during;
use engine::settings::Span;
use engine::training::ResumeMode;
use engine::training::auto::{
    Choices, LengthRule, Machine, Rule, checkpoint_epochs, crop_side, short_side,
};
use engine::training::trial::StepCost;
use words::counted;

use super::setup::list;
use crate::config::{BASE_BATCH, InputSize, TrainConfig};

/// From so many images on the recipe is that of `one-gpu`, and from so many on the paper's.
const MANY: usize = 10_000;
const VERY_MANY: usize = 1_000_000;
/// Fewest steps of a run, and the most: those of the paper's 1600 epochs of ImageNet.
const LEAST_STEPS: u64 = 1000;
const MOST_STEPS: u64 = 500_000;
/// Images that a batch has at least: fewer fill it by repeating, each with its own crop and mask.
const LEAST_BATCH: usize = 16;
/// AdamW's peak learning rate for a batch of 32: measured for ResNet-18.
const ADAMW_LR: f64 = 1e-3;
const ADAMW_BATCH: f64 = 32.0;
/// The paper's peak learning rate of LAMB, for a batch of 4096.
const LAMB_LR: f64 = 3.2e-3;
const LAMB_BATCH: f64 = 4096.0;

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

impl Rule for Images {
    type Settings = TrainConfig;
    type Data = Arc<Dataset>;

    const CHOSEN: &'static [&'static str] = &[
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
    const TRIED: usize = 16;
    const LEAST_PART: usize = 8;

    fn names_data(config: &TrainConfig) -> bool {
        !config.data.as_os_str().is_empty()
    }

    fn look(config: &TrainConfig) -> Result<(Self, Arc<Dataset>)> {
        let dataset = list(config, &ProcessGroup::alone())?;
        let short_side = during(true, "reading headers of images", || short_side(&dataset))?;
        Ok((Images { count: dataset.total_samples(), short_side }, dataset))
    }

    fn choose_recipe(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        let recipe = Recipe::of(self, machine);
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
        self.choose_size(choices, machine)
    }

    fn simplify_trial(config: &mut TrainConfig) {
        (config.optim.epochs, config.warmup_epochs, config.probe) = (2, 0, None);
    }

    fn choose_batch(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<usize> {
        let recipe = Recipe::of(self, machine);
        let usual = recipe.batch(machine);
        let mut batch = usual.min(self.count.max(LEAST_BATCH));
        // Between those a power of two.
        batch = if batch == usual { usual } else { 1 << batch.ilog2() };
        let parts = choices.settings()?.optim.accum_steps * machine.processes;
        batch = batch.next_multiple_of(parts);
        let images = counted(self.count, "image");
        let why = match recipe {
            Recipe::SmallData if self.count >= MANY => format!("{images}, on a processor"),
            _ => images,
        };
        choices.choose("batch-size", batch, why)?;
        choose_lr(choices, recipe)?;
        Ok(choices.settings()?.optim.batch_size)
    }

    fn choose_length(
        &self,
        choices: &mut Choices<TrainConfig>,
        machine: &Machine,
        cost: &StepCost,
    ) -> Result<()> {
        let (epochs, of) = match self.count {
            0..MANY => (800, "small-data"),
            MANY..VERY_MANY => (400, "one-gpu"),
            _ => (1600, "paper"),
        };
        let rule = LengthRule {
            epochs,
            why: format!("as in {of}, for {}", counted(self.count, "image")),
            images: self.count,
            batch: choices.settings()?.optim.batch_size,
            least_steps: LEAST_STEPS,
            most_steps: MOST_STEPS,
        };
        rule.choose(choices, machine, Some(cost))?;
        let epochs = choices.settings()?.optim.epochs;
        // A twentieth, as all presets have, but not the whole of a run of one epoch.
        choices
            .follow("warmup-epochs", (epochs / 20).clamp(1, 40).min(epochs.saturating_sub(1)))?;
        let seconds = rule.epoch_seconds(cost, machine);
        choices.follow("checkpoint-epochs", checkpoint_epochs(epochs, seconds))?;
        if seconds > 1800.0 {
            let steps = (1800.0 / seconds * rule.steps() as f64) as u64;
            choices.follow("checkpoint-steps", steps.max(1))?;
        }
        choices.follow("picture-epochs", (epochs / 10).max(1))?;
        Ok(())
    }
}

impl Images {
    /// The size of crops.
    fn choose_size(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        if choices.is_given("input-size") {
            return Ok(());
        }
        let stride = total_stride(&choices.settings()?)?;
        let most = if machine.is_small() { 128 } else { 224 };
        let (side, why) = crop_side(self.short_side, stride, most, 2);
        choices.choose("input-size", InputSize::square(side), why)?;
        Ok(())
    }
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

#[cfg(test)]
mod tests;
