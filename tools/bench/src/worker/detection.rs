//! Mask R-CNN under torchvision's settings: training steps, as `detect train` takes them, and
//! images to run-length masks, as `detect predict` does it.

use std::path::Path;

use anyhow::{Context, Result};
use backbone::weights::{self, StateDict};
use backbone::{DropPathDraws, Mode};
use clap::ValueEnum;
use data::rng::Rng;
use data::{Image, Pixels};
use detection::data::EvalTransform;
use detection::detector::Detector;
use detection::evaluation::Detection;
use detection::inference::detect_image;
use detection::modeling::Losses;
use detection::modeling::weights::{ReadOptions, read_detector};
use detection::settings::DetectorSettings;
use detection::structures::{Bitmap, Boxes, InstanceMask, Targets};
use engine::device::use_threads;
use engine::distributed::{Gradients, ProcessGroup};
use engine::optim::{Optimizer as _, ParamGroup, Sgd, SgdConfig};
use engine::precision::Precision;
use tch::{Device, Kind, Tensor};
use toml::toml;

use super::{Common, timed};
use crate::inputs;
use crate::memory::Baseline;
use crate::protocol::{Ready, serve};

/// Classes that torchvision's model is made with, background apart.
const CLASSES: i64 = 90;
/// Scores of an image that are compared: the best.
const SCORES: usize = 20;
/// Of the updates; nothing is compared after them.
const LR: f64 = 1e-4;
/// torchvision's reference's.
const WEIGHT_DECAY: f64 = 1e-4;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// A training step
    Train,
    /// An image to run-length masks
    Infer,
}

/// Which work.
#[derive(Debug, Clone, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    common: Common,
    /// What is done
    #[arg(long, value_enum)]
    mode: Work,
    /// Arithmetic of convolutions and linear layers
    #[arg(long, value_enum, default_value = "float32")]
    precision: Precision,
}

/// Serves rounds until the input ends.
///
/// # Errors
/// The inputs are missing or do not fit the model.
pub fn run(arguments: &Arguments) -> Result<()> {
    use_threads(arguments.common.threads);
    match arguments.mode {
        Work::Train => train(arguments),
        Work::Infer => infer(arguments),
    }
}

fn train(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.common.inputs;
    let memory = Baseline::now()?;
    let batch = Batch::read(folder)?;
    let mode = Mode::train()
        .with_compute(arguments.precision.compute())
        .with_drop_path(DropPathDraws::Off)
        .with_freeze_at(settings().freeze_at);
    // Everything is sampled, so that nothing is left to chance, and few proposals keep it small.
    let all = toml! {
        rpn = { batch-size-per-image = 10_000_000, positive-fraction = 1.0, post-nms-train = 200 }
        roi = { batch-size-per-image = 10_000_000, positive-fraction = 1.0 }
    };
    let checked = detector(folder, DetectorSettings { model: all, ..settings() })?;
    let mut ready = Ready::default();
    for (name, loss) in batch.losses(&checked, &mode)?.iter() {
        ready = ready.with(name, vec![loss.double_value(&[])]);
    }
    drop(checked);

    let detector = detector(folder, settings())?;
    let learned = detector.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad());
    let group = ParamGroup { params: learned.collect(), lr_scale: 1.0, weight_decay_scale: 1.0 };
    let rule = SgdConfig { nesterov: false, clip: None, ..SgdConfig::default() };
    let mut optimizer = Sgd::new(vec![group], rule)?;
    let gradients = Gradients::alone();
    let mut step = || {
        optimizer.zero_grad();
        gradients.begin()?;
        let loss = batch.losses(&detector, &mode)?.total();
        gradients.backward(&loss, true)?;
        optimizer.step(LR, WEIGHT_DECAY);
        loss.double_value(&[]);
        Ok(())
    };
    step()?;
    Baseline::forget_peak();
    serve(ready, || timed(1.0, &memory, &mut step))
}

fn infer(arguments: &Arguments) -> Result<()> {
    let folder = &arguments.common.inputs;
    let memory = Baseline::now()?;
    let detector = detector(folder, settings())?;
    let mode = detector.eval_mode(arguments.precision.compute());
    let path = folder.join("inputs.safetensors");
    let image = image(&inputs::take(&mut weights::read(&path)?.tensors, "image0", &path)?)?;
    Baseline::forget_peak();
    let look = || -> Result<Vec<Detection>> {
        detect_image(&detector.model, &mode, &EvalTransform::coco(), image.clone())
    };
    let scores = look()?.iter().take(SCORES).map(|found| found.score).collect();
    serve(Ready::default().with("scores", scores), || timed(1.0, &memory, || look().map(drop)))
}

/// As torchvision makes it for weights that were pretrained: frozen norms, three stages that learn.
fn settings() -> DetectorSettings {
    DetectorSettings {
        detector: "mask_rcnn_torchvision".into(),
        freeze_at: 2,
        ..DetectorSettings::default()
    }
}

/// The detector of `settings` with the weights in `folder`.
fn detector(folder: &Path, mut settings: DetectorSettings) -> Result<Detector> {
    settings.resolve(Precision::Float32)?;
    let detector = Detector::build(&settings, None, CLASSES, Device::Cpu)?;
    let path = folder.join("weights.safetensors");
    let config = detector.model.config();
    read_detector(path, &detector.store, config, &ReadOptions::default())?;
    Ok(detector)
}

/// Images and what is on them.
struct Batch {
    images: Vec<Tensor>,
    targets: Vec<Targets>,
}

impl Batch {
    fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("inputs.safetensors");
        let mut tensors = weights::read(&path)?.tensors;
        let count = tensors.keys().filter(|name| name.starts_with("image")).count();
        let (mut images, mut targets) = (Vec::new(), Vec::new());
        for index in 0..count {
            images.push(inputs::take(&mut tensors, &format!("image{index}"), &path)?);
            targets.push(objects(&mut tensors, index, &path)?);
        }
        Ok(Self { images, targets })
    }

    fn losses(&self, detector: &Detector, mode: &Mode) -> Result<Losses> {
        let mut rngs: Vec<Rng> = (0..self.images.len() as u64).map(|i| Rng::new(i, &[])).collect();
        let alone = ProcessGroup::alone();
        Ok(detector.model.losses(&self.images, &self.targets, mode, &mut rngs, &alone)?)
    }
}

fn objects(tensors: &mut StateDict, index: usize, path: &Path) -> Result<Targets> {
    let mut take = |name: &str| inputs::take(tensors, &format!("{name}{index}"), path);
    let (boxes, classes, masks) = (take("boxes")?, take("classes")?, take("masks")?);
    let (count, height, width) = masks.size3()?;
    let bitmap = |object| {
        let pixels = Vec::try_from(masks.get(object).reshape([-1]))?;
        let (height, width) = (height as usize, width as usize);
        Ok(InstanceMask::Bitmap(Bitmap { height, width, pixels }))
    };
    let masks = (0..count).map(bitmap).collect::<Result<_>>()?;
    Ok(Targets { boxes: Boxes(boxes), classes, masks })
}

/// Bytes `[3, H, W]` as an image that was decoded.
fn image(tensor: &Tensor) -> Result<Image> {
    let (channels, height, width) = tensor.size3().context("an image must be [3, H, W]")?;
    let pixels = Vec::try_from(tensor.permute([1, 2, 0]).to_kind(Kind::Uint8).reshape([-1]))?;
    Ok(Image::new(width as usize, height as usize, channels as usize, Pixels::U8(pixels))?)
}
