//! A classifier on a data set.

use anyhow::{Context, Result};
use backbone::Mode;
use engine::data::{LabelledSource, Loader};

use crate::classifier::Classifier;
use crate::evaluation::{Evaluator, Report};

/// Scores `classifier`, in evaluation, on every image of `loader`; `done` hears of
/// every batch's number of images.
///
/// # Errors
/// Unreadable images beyond the share allowed, or none that can be read.
pub fn evaluate(
    classifier: &Classifier,
    mode: &Mode,
    loader: &Loader<LabelledSource>,
    mut done: impl FnMut(u64),
) -> Result<Report> {
    let mut evaluator = Evaluator::new(loader.source().dataset().classes().to_vec());
    for batch in loader.epoch(0, 0) {
        let Some((images, labels)) = batch?.images.present()? else { continue };
        let images = images.to_device(classifier.device());
        let logits = tch::no_grad(|| classifier.forward(&images, mode))?;
        let classes: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
        evaluator.add(&logits, &classes);
        done(classes.len() as u64);
    }
    evaluator.finish().context("none of the images can be read")
}
