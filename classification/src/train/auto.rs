//! The preset `auto`: what a run is, by its images and the machine.
//!
//! On a GPU and from two hundred thousand images on it is the official recipe for ImageNet, with the
//! preset of the model's name where there is one; else the recipe of the preset `small-data`.

use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum as _;
use data::LabelledDataset;
use engine::distributed::ProcessGroup;
use engine::progress::during;
use engine::training::Preset as _;
use engine::training::auto::{
    Choices, LengthRule, Machine, Rule, checkpoint_epochs, crop_side, short_side,
};
use engine::training::trial::StepCost;
use words::counted;

use super::config::{Preset, TrainConfig};
use super::setup::list;

/// From so many images on the recipe is ImageNet's.
const VERY_MANY: usize = 200_000;
/// Fewest steps of a run, and the most.
const LEAST_STEPS: u64 = 500;
const MOST_STEPS: u64 = 200_000;
/// Images that a batch has at least.
const LEAST_BATCH: usize = 16;
/// The model's total stride is a divisor of this; crops are a multiple of it.
const STRIDE: i64 = 32;

/// What the rule goes by besides the machine.
#[derive(Debug, Clone, Copy)]
pub struct Images {
    /// How many there are to train on.
    pub count: usize,
    /// Pixels of the short side, in the median.
    pub short_side: u64,
}

impl Rule for Images {
    type Settings = TrainConfig;
    type Data = [Arc<LabelledDataset>; 2];

    const CHOSEN: &'static [&'static str] = &[
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
    const TRIED: usize = 16;
    const LEAST_PART: usize = 8;

    fn names_data(config: &TrainConfig) -> bool {
        !config.data.as_os_str().is_empty() || config.train_data.is_some()
    }

    fn look(config: &TrainConfig) -> Result<(Self, Self::Data)> {
        let datasets = list(config, &ProcessGroup::alone())?;
        let [training, _] = &datasets;
        let side = || short_side(training.images());
        let short_side = during(true, "reading headers of images", side)?;
        Ok((Images { count: training.len(), short_side }, datasets))
    }

    fn choose_recipe(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        match machine.is_small() {
            true => {
                let why = "a small network, for a processor of few cores";
                choices.choose("model", "resnet18", why)?
            }
            false => choices.choose("model", "resnet50", "the default")?,
        };
        let config = choices.settings()?;
        let most = if machine.is_small() { 128 } else { 224 };
        let (side, why) = crop_side(self.short_side, STRIDE, most, 2);
        choices.choose("input-size", side, why)?;
        let recipe = match self.is_large(machine) {
            false => Preset::SmallData,
            true => Preset::from_str(&config.model, false).unwrap_or(Preset::Resnet50),
        };
        choices.base(recipe.table()?);
        if config.backbone_weights.is_none() && config.weights.is_none() {
            choices.choose("layer-decay", 1.0, "nothing is pretrained that should be kept")?;
        }
        Ok(())
    }

    fn simplify_trial(config: &mut TrainConfig) {
        (config.optim.epochs, config.warmup_epochs) = (2, 0);
    }

    /// The base learning rate stays: it is scaled by the batch.
    fn choose_batch(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<usize> {
        let usual = match self.is_large(machine) {
            // The recipe's.
            true => choices.settings()?.optim.batch_size,
            false if machine.is_small() => 32,
            false => 64,
        };
        let few = usual.min(self.count.max(LEAST_BATCH));
        let batch = if few == usual { usual } else { 1 << few.ilog2() };
        let parts = choices.settings()?.optim.accum_steps * machine.processes;
        let why = counted(self.count, "image");
        choices.choose("batch-size", batch.next_multiple_of(parts), why)?;
        Ok(choices.settings()?.optim.batch_size)
    }

    fn choose_length(
        &self,
        choices: &mut Choices<TrainConfig>,
        machine: &Machine,
        cost: &StepCost,
    ) -> Result<()> {
        let optim = choices.settings()?.optim;
        let of = if self.is_large(machine) { "the official recipe" } else { "small-data" };
        let rule = LengthRule {
            epochs: optim.epochs,
            why: format!("as in {of}"),
            images: self.count,
            batch: optim.batch_size,
            least_steps: LEAST_STEPS,
            most_steps: MOST_STEPS,
        };
        rule.choose(choices, machine, Some(cost))?;
        let epochs = choices.settings()?.optim.epochs;
        let warmup = match self.is_large(machine) {
            true => choices.settings()?.warmup_epochs,
            false => (epochs / 20).clamp(1, 20),
        };
        choices.follow("warmup-epochs", warmup.min(epochs.saturating_sub(1)))?;
        let every = checkpoint_epochs(epochs, rule.epoch_seconds(cost, machine));
        choices.follow("checkpoint-epochs", every)?;
        // Of more epochs than the presets have, no more evaluations.
        if epochs > 100 && !self.is_large(machine) {
            choices.follow("eval-epochs", epochs / 50)?;
        }
        Ok(())
    }
}

impl Images {
    fn is_large(&self, machine: &Machine) -> bool {
        machine.has_gpu() && self.count >= VERY_MANY
    }
}

#[cfg(test)]
mod tests;
