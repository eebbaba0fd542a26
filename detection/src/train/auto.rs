//! The preset `auto`: what a run is, by its images, its objects and the machine.
//!
//! On a GPU and from ten thousand images on it is the recipe for COCO, at its length or, for fewer
//! images than COCO has, more epochs of it; else that of the preset `small-data`, with image and
//! anchor sizes that fit the data. A detector that the run starts from stays what it is.

use anyhow::{Context, Result};
use backbone::weights;
use engine::precision::Precision;
use engine::run_dir::{display_path, resolve_checkpoint};
use engine::settings::Settings as _;
use engine::training::Preset as _;
use engine::training::auto::{Choices, LengthRule, Machine, Rule, checkpoint_epochs};
use engine::training::trial::StepCost;
use toml::Table;
use words::counted;

use super::config::{Preset, Schedule, TrainConfig};
use super::setup::{Datasets, read};
use crate::data::{Augmentation, CocoDataset, TrainTransform};
use crate::published::Published;
use crate::saved::own_checkpoint;
use crate::settings::DetectorSettings;

/// From so many images on the recipe is COCO's, and from so many on as long.
const MANY: usize = 10_000;
const VERY_MANY: usize = 50_000;
/// Images smaller than that are not enlarged to COCO's 800 pixels.
const SMALL_SIDE: f64 = 400.0;
/// Fewest steps of a run, and the most: three times COCO's schedule.
const LEAST_STEPS: u64 = 1000;
const MOST_STEPS: u64 = 270_000;
/// Images whose objects are looked at.
const SAMPLE: usize = 2000;
/// Sides of images are multiples of it.
const STEP: f64 = 32.0;

/// What the rule goes by besides the machine.
#[derive(Debug, Clone)]
pub struct DetectionRule {
    /// The data.
    pub facts: Facts,
    /// The weights.
    pub start: Start,
}

/// What is known of a data set.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// How many images there are to train on.
    pub images: usize,
    /// Pixels of their short side, in the median.
    pub short_side: f64,
    /// Side of a square as large as an object's box, as a share of its image's short side; in the
    /// median.
    pub object_share: f64,
}

impl Rule for DetectionRule {
    type Settings = TrainConfig;
    type Data = Datasets;

    const CHOSEN: &'static [&'static str] = &[
        "backbone",
        "model",
        "augmentation",
        "eval-short-side",
        "precision",
        "batch-size",
        "accum-steps",
        "epochs",
        "iterations",
        "warmup-iterations",
        "checkpoint-epochs",
    ];
    const TRIED: usize = 4;
    const LEAST_PART: usize = 2;

    fn names_data(config: &TrainConfig) -> bool {
        !config.data.as_os_str().is_empty() || config.train_annotations.is_some()
    }

    fn look(config: &TrainConfig) -> Result<(Self, Datasets)> {
        config.clone().resolve_detector()?;
        let datasets = read(config, true)?;
        let facts = Facts::of(&datasets.training, config.keep_empty)?;
        Ok((Self { facts, start: Start::of(config)? }, datasets))
    }

    fn choose_recipe(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        let start = &self.start;
        let mut base = match self.is_large(machine) {
            true => Table::new(),
            false => Preset::SmallData.table()?,
        };
        // Of these the rule has its own.
        for key in ["backbone", "model", "freeze", "augmentation"] {
            base.remove(key);
        }
        if start.whole {
            base.remove("small");
        }
        base.extend(start.detector.clone().unwrap_or_default());
        choices.base(base);
        for (key, value) in [("eval-steps", 0), ("iterations", 0), ("checkpoint-steps", 0)] {
            choices.follow(key, value)?;
        }
        choices.follow("schedule", Schedule::Cosine)?;
        if !start.whole {
            self.choose_backbone(choices, machine)?;
        }
        self.choose_sizes(choices, machine)?;
        if !start.pretrained {
            choices.choose("layer-decay", 1.0, "nothing is pretrained that should be kept")?;
        }
        if choices.settings()?.detector.backbone_plugin.is_some() {
            choices.choose("precision", Precision::Float32, "what plugins compute in")?;
        }
        Ok(())
    }

    fn simplify_trial(config: &mut TrainConfig) {
        config.schedule = Schedule::Cosine;
    }

    /// The base learning rate stays: it is scaled by the batch.
    fn choose_batch(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<usize> {
        let (usual, why) = match (self.is_large(machine), machine.is_small()) {
            (true, _) => (16, "as in the recipes for COCO"),
            (_, true) => (4, "few images a step make many steps of a processor's time"),
            _ => (8, "as in small-data"),
        };
        let parts = choices.settings()?.optim.accum_steps * machine.processes;
        let batch = usual.min(self.facts.images.max(2)).next_multiple_of(parts);
        choices.choose("batch-size", batch, why)?;
        Ok(choices.settings()?.optim.batch_size)
    }

    fn choose_length(
        &self,
        choices: &mut Choices<TrainConfig>,
        machine: &Machine,
        cost: &StepCost,
    ) -> Result<()> {
        self.choose_norms(choices, machine)?;
        let images = counted(self.facts.images, "image");
        let (epochs, why) = match self.facts.images {
            0..MANY => (50, format!("as in small-data, for {images}")),
            MANY..VERY_MANY => (24, format!("twice COCO's schedule, for {images}")),
            _ => (12, format!("COCO's schedule, for {images}")),
        };
        let rule = LengthRule {
            epochs,
            why,
            images: self.facts.images,
            batch: choices.settings()?.optim.batch_size,
            least_steps: LEAST_STEPS,
            most_steps: MOST_STEPS,
        };
        // A number of steps that is given is the length.
        if choices.settings()?.iterations == 0 {
            rule.choose(choices, machine, Some(cost))?;
        }
        let config = choices.settings()?;
        let steps = config.total_steps(rule.steps());
        let epochs = steps.div_ceil(rule.steps());
        let unit = if config.iterations == 0 { config.optim.epochs } else { steps };
        // Where a schedule of steps is asked for: those of COCO's 60,000 and 80,000 of 90,000.
        choices.follow("milestones", [unit * 2 / 3, unit * 8 / 9])?;
        choices.follow("warmup-iterations", (steps / 20).clamp(1, 1000))?;
        let every = checkpoint_epochs(epochs, rule.epoch_seconds(cost, machine));
        choices.follow("checkpoint-epochs", every)?;
        choices.follow("eval-epochs", (epochs / 10).max(1))?;
        Ok(())
    }
}

/// What a run starts from.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The backbone that weights tell, and whose it is.
    pub backbone: Option<(String, String)>,
    /// A whole detector's settings, if it tells them.
    pub detector: Option<Table>,
    /// Whether there are any weights.
    pub pretrained: bool,
    /// Whether it is a whole detector.
    pub whole: bool,
}

impl Start {
    /// That of a run with these settings.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(config: &TrainConfig) -> Result<Self> {
        if let Some(path) = &config.weights {
            let path = resolve_checkpoint(path)?;
            let own = own_checkpoint(&path)?.map(|own| own.state.config.to_table());
            let published = match &own {
                None => {
                    Published::read(&path)?.map(|published| published.settings()).transpose()?
                }
                Some(_) => None,
            };
            let known = DetectorSettings::default().to_table();
            let known: Vec<&String> = known.keys().collect();
            let optional = ["backbone", "backbone-plugin", "drop-path", "model"];
            let of_detector = |mut settings: Table| {
                settings.retain(|key, _| {
                    known.iter().any(|name| *name == key) || optional.contains(&key)
                });
                settings
            };
            let detector = own.or(published).map(of_detector);
            return Ok(Self { detector, pretrained: true, whole: true, backbone: None });
        }
        let Some(path) = &config.backbone_weights else { return Ok(Self::default()) };
        let file = weights::read(resolve_checkpoint(path)?)?;
        let model = file.registered_model().ok();
        let backbone = model.map(|model| (model.name.to_string(), display_path(path)));
        Ok(Self { backbone, pretrained: true, ..Self::default() })
    }
}

impl Facts {
    /// Those of the images that are trained on: of all, or of the ones with objects.
    fn of(dataset: &CocoDataset, keep_empty: bool) -> Result<Self> {
        let used: Vec<usize> = (0..dataset.len())
            .filter(|&index| keep_empty || dataset.object_count(index) > 0)
            .collect();
        let count = SAMPLE.min(used.len());
        let (mut sides, mut shares) = (Vec::new(), Vec::new());
        for index in (0..count).map(|number| used[number * used.len() / count]) {
            let record = dataset.record(index);
            let side = f64::from(record.width.min(record.height));
            sides.push(side);
            shares.extend(dataset.object_sides(index).map(|object| object / side));
        }
        let nothing = || format!("{} has no objects to train on", dataset.annotations().display());
        Ok(Facts {
            images: used.len(),
            short_side: median(&mut sides).with_context(nothing)?,
            object_share: median(&mut shares).with_context(nothing)?,
        })
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn to_step(side: f64) -> f64 {
    (side / STEP).round().max(1.0) * STEP
}

impl DetectionRule {
    fn is_large(&self, machine: &Machine) -> bool {
        machine.has_gpu() && self.facts.images >= MANY
    }

    fn choose_backbone(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        let is_plugin = choices.is_given("backbone-plugin");
        let (model, why) = match &self.start.backbone {
            _ if is_plugin => return Ok(()),
            Some((model, of)) => (model.as_str(), format!("that of {of}")),
            None if machine.is_small() => {
                ("resnet18", "a small network, for a processor of few cores".into())
            }
            None => ("resnet50", "the default".into()),
        };
        choices.choose("backbone", model, why)?;
        Ok(())
    }

    /// Sizes of images, by theirs, and of anchors, by the objects'.
    fn choose_sizes(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        let facts = &self.facts;
        let side = match self.is_large(machine) && facts.short_side >= SMALL_SIDE {
            true => 800.0,
            false => {
                let (least, most) = match (machine.has_gpu(), machine.is_small()) {
                    (true, _) => (320.0, 640.0),
                    (_, true) => (192.0, 320.0),
                    _ => (256.0, 448.0),
                };
                to_step(facts.short_side.clamp(least, most))
            }
        };
        let images = format!("the images' short side is {:.0} px", facts.short_side);
        if side < 800.0 {
            // The spread of the preset small-data: 320 to 512 around 448, at most 800.
            let [low, high, max] = [0.72, 1.15, 1.8].map(|factor| to_step(side * factor) as usize);
            let short: Vec<usize> = (low..=high).step_by(STEP as usize).collect();
            let steps = vec![
                Augmentation::ResizeShortestEdge { short, max },
                Augmentation::Flip { probability: 0.5 },
            ];
            choices.follow("augmentation", TrainTransform::new(steps)?)?;
            choices.choose("eval-short-side", side as usize, images)?;
            choices.follow("eval-max-side", max)?;
        }
        let side = choices.settings()?.inference.eval_short_side as f64;
        if self.start.whole || choices.is_given("model.anchors") {
            return Ok(());
        }
        // The third of five levels is for objects of the median size; detectron2's 32 pixels stand
        // for 128, of images of 800.
        let object = facts.object_share * side;
        let finest = (object / 4.0).log2().round().exp2().clamp(8.0, 64.0);
        let sizes: Vec<[f64; 1]> = (0..5).map(|level| [finest * f64::from(1 << level)]).collect();
        let why =
            format!("half of the objects are smaller than {object:.0} px, in images of {side} px");
        choices.choose("model.anchors.sizes", sizes, why)?;
        choices.follow("model.roi.canonical-size", 7.0 * finest)?;
        Ok(())
    }

    /// How the backbone's batch norms are run: statistics of too few images are worth less than
    /// those of pretraining.
    fn choose_norms(&self, choices: &mut Choices<TrainConfig>, machine: &Machine) -> Result<()> {
        let config = choices.settings()?;
        let part = config.optim.batch_size / (machine.processes * config.optim.accum_steps);
        let shared = config.execution.sync_bn && machine.processes > 1;
        let is_plugin = config.detector.backbone_plugin.is_some();
        let start = &self.start;
        let are_few = part <= Self::LEAST_PART;
        if start.pretrained && !start.whole && !shared && !is_plugin && are_few {
            let part = counted(part, "image");
            let why = format!("statistics of {part} at a time are worse than those of pretraining");
            choices.choose("norm-eval", true, why)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
