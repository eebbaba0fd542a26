//! The preset `auto`: what a run is, by its images, its objects and the machine.
//!
//! On a GPU and from ten thousand images on it is the recipe for COCO, at its length or, for fewer
//! images than COCO has, more epochs of it; else that of the preset `small-data`, with image and
//! anchor sizes that fit the data. A detector that the run starts from stays what it is.

use anyhow::{Context, Result};
use backbone::weights;
use engine::precision::Precision;
use engine::progress::during;
use engine::run_dir::{display_path, resolve_checkpoint};
use engine::settings::{Settings as _, TrainSettings as _};
use engine::training::Preset as _;
use engine::training::auto::{
    Choices, LengthRule, Machine, Measure, checkpoint_epochs, choose_parts, choose_precision, count,
};
use engine::training::trial::StepCost;
use toml::Table;

use super::config::{Preset, Schedule, TrainConfig};
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
/// Images of which a step is tried, and images at a time of which batch norms know enough.
const TRIED: usize = 4;
const LEAST_PART: usize = 2;
/// Images whose objects are looked at.
const SAMPLE: usize = 2000;
/// Sides of images are multiples of it.
const STEP: f64 = 32.0;

/// What is chosen; where all of it is given, the data need not be looked at.
const CHOSEN: [&str; 11] = [
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

/// What the rule goes by besides the machine.
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

/// Chooses the settings of a run that are not given.
///
/// # Errors
/// Data that cannot be read, settings that cannot work: what to give.
pub fn choose(
    choices: &mut Choices<TrainConfig>,
    machine: &Machine,
    measure: &Measure<TrainConfig>,
) -> Result<()> {
    let config = choices.settings()?;
    let has_data = !config.data.as_os_str().is_empty() || config.train_annotations.is_some();
    let is_named = has_data && !config.run.output.as_os_str().is_empty();
    if !is_named || choices.are_given(&CHOSEN) {
        return Ok(());
    }
    config.clone().resolve_detector()?;
    let facts = look(&config)?;
    let start = Start::of(&config)?;
    choose_recipe(choices, &facts, machine, &start)?;
    if config.detector.backbone_plugin.is_some() {
        choices.choose("precision", Precision::Float32, "what plugins compute in")?;
    }
    let of_trial = choices.clone();
    choose_precision(choices, machine, |precision| {
        let mut config = trial(&of_trial, machine, TRIED)?;
        config.execution.precision = precision;
        measure(config.resolve()?)
    })?;
    let cost = measure(trial(choices, machine, TRIED)?.resolve()?)?;
    choose_batch(choices, &facts, machine)?;
    let batch = choices.settings()?.optim.batch_size;
    let of_trial = choices.clone();
    let cost = choose_parts(choices, machine, (batch, LEAST_PART), cost, |part| {
        measure(trial(&of_trial, machine, part)?.resolve()?)
    })?;
    choose_norms(choices, machine, &start)?;
    choose_length(choices, &facts, machine, &cost)
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

/// Reads the annotations and looks at images' and objects' sizes.
fn look(config: &TrainConfig) -> Result<Facts> {
    let [(file, images), _] = config.files()?;
    let masks = config.detector.masks;
    let open = || CocoDataset::open_with(&file, images, masks);
    let dataset = during(true, "reading the annotations", open)?;
    let used: Vec<usize> = (0..dataset.len())
        .filter(|&index| config.keep_empty || dataset.object_count(index) > 0)
        .collect();
    let count = SAMPLE.min(used.len());
    let (mut sides, mut shares) = (Vec::new(), Vec::new());
    for index in (0..count).map(|number| used[number * used.len() / count]) {
        let record = dataset.record(index);
        let side = f64::from(record.width.min(record.height));
        sides.push(side);
        shares.extend(dataset.object_sides(index).map(|object| object / side));
    }
    let nothing = || format!("{} has no objects to train on", file.display());
    Ok(Facts {
        images: used.len(),
        short_side: median(&mut sides).with_context(nothing)?,
        object_share: median(&mut shares).with_context(nothing)?,
    })
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn is_large(facts: &Facts, machine: &Machine) -> bool {
    machine.has_gpu() && facts.images >= MANY
}

/// The recipe, the detector, and the sizes of images and anchors.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_recipe(
    choices: &mut Choices<TrainConfig>,
    facts: &Facts,
    machine: &Machine,
    start: &Start,
) -> Result<()> {
    let large = is_large(facts, machine);
    let mut base = match large {
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
        choose_backbone(choices, machine, start)?;
    }
    choose_sizes(choices, facts, machine, start.whole)?;
    if !start.pretrained {
        choices.choose("layer-decay", 1.0, "nothing is pretrained that should be kept")?;
    }
    Ok(())
}

fn choose_backbone(
    choices: &mut Choices<TrainConfig>,
    machine: &Machine,
    start: &Start,
) -> Result<()> {
    let is_plugin = choices.is_given("backbone-plugin");
    match &start.backbone {
        _ if is_plugin => false,
        Some((model, of)) => choices.choose("backbone", model, format!("that of {of}"))?,
        None if machine.is_small() => choices.choose(
            "backbone",
            "resnet18",
            "a small network, for a processor of few cores",
        )?,
        None => choices.choose("backbone", "resnet50", "the default")?,
    };
    Ok(())
}

/// Sizes of images, by theirs, and of anchors, by the objects'.
fn choose_sizes(
    choices: &mut Choices<TrainConfig>,
    facts: &Facts,
    machine: &Machine,
    whole: bool,
) -> Result<()> {
    let side = match is_large(facts, machine) && facts.short_side >= SMALL_SIDE {
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
    if whole || choices.is_given("model.anchors") {
        return Ok(());
    }
    // The third of five levels is for objects of the median size; detectron2's 32 pixels stand for
    // 128, of images of 800.
    let object = facts.object_share * side;
    let finest = (object / 4.0).log2().round().exp2().clamp(8.0, 64.0);
    let sizes: Vec<[f64; 1]> = (0..5).map(|level| [finest * f64::from(1 << level)]).collect();
    let why =
        format!("half of the objects are smaller than {object:.0} px, in images of {side} px");
    choices.choose("model.anchors.sizes", sizes, why)?;
    choices.follow("model.roi.canonical-size", 7.0 * finest)?;
    Ok(())
}

fn to_step(side: f64) -> f64 {
    (side / STEP).round().max(1.0) * STEP
}

/// Images of a step. The base learning rate stays: it is scaled by the batch.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_batch(
    choices: &mut Choices<TrainConfig>,
    facts: &Facts,
    machine: &Machine,
) -> Result<()> {
    let (usual, why) = match (is_large(facts, machine), machine.is_small()) {
        (true, _) => (16, "as in the recipes for COCO"),
        (_, true) => (4, "few images a step make many steps of a processor's time"),
        _ => (8, "as in small-data"),
    };
    let parts = choices.settings()?.optim.accum_steps * machine.processes;
    let batch = usual.min(facts.images.max(2)).next_multiple_of(parts);
    choices.choose("batch-size", batch, why)?;
    Ok(())
}

/// How the backbone's batch norms are run: statistics of too few images are worth less than those
/// of pretraining.
fn choose_norms(
    choices: &mut Choices<TrainConfig>,
    machine: &Machine,
    start: &Start,
) -> Result<()> {
    let config = choices.settings()?;
    let part = config.optim.batch_size / (machine.processes * config.optim.accum_steps);
    let shared = config.execution.sync_bn && machine.processes > 1;
    let is_plugin = config.detector.backbone_plugin.is_some();
    if start.pretrained && !start.whole && !shared && !is_plugin && part <= LEAST_PART {
        let why = format!("{part} images at a time are too few for statistics of their own");
        choices.choose("norm-eval", true, why)?;
    }
    Ok(())
}

/// How long the run is, and how often it is saved and scored.
///
/// # Errors
/// Those of [`Choices::choose`].
pub fn choose_length(
    choices: &mut Choices<TrainConfig>,
    facts: &Facts,
    machine: &Machine,
    cost: &StepCost,
) -> Result<()> {
    let images = count(facts.images as u64);
    let (epochs, why) = match facts.images {
        0..MANY => (50, format!("as in small-data, for {images} images")),
        MANY..VERY_MANY => (24, format!("twice COCO's schedule, for {images} images")),
        _ => (12, format!("COCO's schedule, for {images} images")),
    };
    let rule = LengthRule {
        epochs,
        why,
        images: facts.images,
        batch: choices.settings()?.optim.batch_size,
        least_steps: LEAST_STEPS,
        most_steps: MOST_STEPS,
    };
    let config = choices.settings()?;
    // A number of steps that is given is the length.
    if config.iterations == 0 {
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

/// Settings to try steps with: `batch` images of this process.
fn trial(choices: &Choices<TrainConfig>, machine: &Machine, batch: usize) -> Result<TrainConfig> {
    let mut config = choices.settings()?;
    let optim = &mut config.optim;
    (optim.batch_size, optim.accum_steps) = (batch, 1);
    (config.schedule, config.execution.threads) = (Schedule::Cosine, machine.cores);
    Ok(config)
}

#[cfg(test)]
mod tests;
