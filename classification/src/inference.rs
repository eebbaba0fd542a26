//! A classifier on a data set.

use anyhow::{Context, Result};
use backbone::Mode;
use data::{LabelledSource, Loader};
use engine::distributed::ProcessGroup;

use crate::classifier::Classifier;
use crate::evaluation::{Evaluator, Report};

/// Scores `classifier`, in evaluation, on every image of `loader`, each process of `world` on its
/// own, all together; `done` hears of every batch's number of images.
///
/// # Errors
/// Unreadable images beyond the share allowed, or none that can be read.
pub fn evaluate(
    classifier: &Classifier,
    mode: &Mode,
    loader: &Loader<LabelledSource>,
    world: &ProcessGroup,
    done: impl FnMut(u64),
) -> Result<Report> {
    let own = world.all_ok(own_part(classifier, mode, loader, done))?;
    own.gathered(world)?.finish().context("none of the images can be read")
}

fn own_part(
    classifier: &Classifier,
    mode: &Mode,
    loader: &Loader<LabelledSource>,
    mut done: impl FnMut(u64),
) -> Result<Evaluator> {
    let mut evaluator = Evaluator::new(loader.source().dataset().classes().to_vec());
    let kind = classifier.kind();
    for batch in loader.epoch(0, 0) {
        let Some((images, labels)) = batch?.images.present()? else { continue };
        let images = images.to_device(classifier.device()).to_kind(kind);
        let logits = tch::no_grad(|| classifier.forward(&images, mode))?;
        let classes: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
        evaluator.add(&logits, &classes);
        done(classes.len() as u64);
    }
    Ok(evaluator)
}
