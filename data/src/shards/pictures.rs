//! What shards are made of: images in an order, and their classes.

use std::path::Path;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use super::hex;
use super::names::Keys;
use super::record::{Listed, ShardSettings};
use crate::rng::{Rng, purpose};
use crate::{Dataset, DatasetOptions, Error, LabelledDataset, Result};

/// Where the classes of images come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LabelsFrom {
    /// Class folders, or the labels of shards, if all images have one; else there are none
    Auto,
    /// Class folders, or the labels of shards, as for `classify train`; it is an error if there are
    /// none
    Required,
    /// There are none
    None,
}

/// Images of which shards are to be made.
#[derive(Debug)]
pub struct Pictures {
    pub(super) images: Arc<Dataset>,
    pub(super) labels: Option<LabelledDataset>,
}

impl Pictures {
    /// What [`Dataset::open`] or, with labels, [`LabelledDataset::open`] finds at `path`.
    ///
    /// # Errors
    /// Theirs.
    pub fn open(path: &Path, options: &DatasetOptions, labels: LabelsFrom) -> Result<Self> {
        let all = || Dataset::open(path, options).map(Arc::new);
        let (images, labels) = match labels {
            LabelsFrom::None => (all()?, None),
            LabelsFrom::Required => {
                let labelled = LabelledDataset::open(path, options)?;
                (labelled.images().clone(), Some(labelled))
            }
            LabelsFrom::Auto => {
                let images = all()?;
                let labels = match LabelledDataset::open(path, options) {
                    Ok(labelled) if labelled.len() == images.len() => Some(labelled),
                    Err(error @ (Error::Storage(_) | Error::Io { .. })) => return Err(error),
                    // What keeps images from having classes is no error here.
                    _ => None,
                };
                (images, labels)
            }
        };
        Ok(Pictures { images, labels })
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.images.len()
    }

    /// Whether there are none, which is refused.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
    }

    /// Files that were passed over, being no images by their extension.
    pub fn other_files(&self) -> usize {
        self.images.other_files()
    }

    /// The classes' names by number, if images have classes.
    pub fn classes(&self) -> Option<&[String]> {
        self.labels.as_ref().map(LabelledDataset::classes)
    }

    /// What is worth a look in the class folders.
    pub fn notes(&self) -> &[String] {
        self.labels.as_ref().map_or(&[], LabelledDataset::notes)
    }

    /// The order in which they go into shards.
    pub(super) fn order(&self, settings: &ShardSettings) -> Vec<usize> {
        match settings.seed {
            Some(seed) => Rng::new(seed, &[purpose::SHARDS]).permutation(self.len()),
            None => (0..self.len()).collect(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        Keys::of((0..self.len()).map(|index| self.images.name(index)))
    }

    /// What the images are, in short.
    pub(super) fn listed(&self) -> Listed {
        let mut hash = Context::new(&SHA256);
        let mut add = |text: &str| {
            hash.update(&(text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        };
        (0..self.len()).for_each(|index| add(&self.images.name(index)));
        self.classes().into_iter().flatten().for_each(|class| add(class));
        Listed { images: self.len(), sha256: hex(hash.finish().as_ref()) }
    }
}
