//! A classifier on images and data sets.

use anyhow::{Context, Result};
use backbone::Mode;
use data::{LabelledSource, Loader};
use engine::distributed::ProcessGroup;
use tch::{Device, Kind, Tensor};

use crate::classifier::Classifier;
use crate::evaluation::{Evaluator, Report};

/// What tells images apart.
pub trait Logits {
    /// Classes it tells apart.
    fn num_classes(&self) -> i64;
    /// Element type of its parameters, which its images must have.
    fn kind(&self) -> Kind;
    /// Where it computes, and expects its images.
    fn device(&self) -> Device;

    /// Logits `[N, classes]` of normalised `images` `[N, 3, H, W]`.
    ///
    /// # Errors
    /// Images that it does not take.
    fn logits(&self, images: &Tensor, mode: &Mode) -> backbone::Result<Tensor>;

    /// Probabilities float32 `[N, classes]` of normalised `images` `[N, 3, H, W]`, in evaluation.
    ///
    /// # Errors
    /// Images that it does not take.
    fn probabilities(&self, images: &Tensor, compute: Option<Kind>) -> backbone::Result<Tensor> {
        let mode = Mode::eval().with_compute(compute);
        let logits = tch::no_grad(|| self.logits(&images.to_device(self.device()), &mode))?;
        Ok(logits.softmax(1, Kind::Float).to_device(Device::Cpu))
    }
}

impl Logits for Classifier {
    fn num_classes(&self) -> i64 {
        self.num_classes()
    }

    fn kind(&self) -> Kind {
        self.kind()
    }

    fn device(&self) -> Device {
        self.device()
    }

    fn logits(&self, images: &Tensor, mode: &Mode) -> backbone::Result<Tensor> {
        self.forward(images, mode)
    }
}

/// Scores `classifier`, in evaluation, on every image of `loader`, each process of `world` on its
/// own, all together; `done` hears of every batch's number of images.
///
/// # Errors
/// Unreadable images beyond the share allowed, or none that can be read.
pub fn evaluate(
    classifier: &dyn Logits,
    mode: &Mode,
    loader: &Loader<LabelledSource>,
    world: &ProcessGroup,
    done: impl FnMut(u64),
) -> Result<Report> {
    let own = world.all_ok(own_part(classifier, mode, loader, done))?;
    own.gathered(world)?.finish().context("none of the images can be read")
}

fn own_part(
    classifier: &dyn Logits,
    mode: &Mode,
    loader: &Loader<LabelledSource>,
    mut done: impl FnMut(u64),
) -> Result<Evaluator> {
    let mut evaluator = Evaluator::new(loader.dataset().classes().to_vec());
    let kind = classifier.kind();
    for batch in loader.epoch(0, 0) {
        let Some((images, labels)) = batch?.images.present()? else { continue };
        let images = images.to_device(classifier.device()).to_kind(kind);
        let logits = tch::no_grad(|| classifier.logits(&images, mode))?;
        let classes: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
        evaluator.add(&logits, &classes);
        done(classes.len() as u64);
    }
    Ok(evaluator)
}
