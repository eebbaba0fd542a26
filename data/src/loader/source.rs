//! What differs between kinds of training data: how a sample is made, and how samples become a
//! batch.

use std::sync::Arc;

use ndarray::Array4;

use super::super::dataset::{Dataset, Fetch};
use super::super::sampler::EpochSampler;
use super::super::transforms::Transform;
use super::pool::{Images, Pool};
use crate::rng::Rng;
use crate::{Error, Result};

/// A sample that an epoch's plan asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleIndex {
    /// Its image's index in the data set.
    pub index: usize,
    /// Its number in the epoch, which its randomness depends on.
    pub position: u64,
}

/// What a [`Loader`](super::Loader) loads.
///
/// The loader adds the threads, the random streams and the replacement of files that can't be
/// used. Everything here is a pure function of its arguments, so that a run can be resumed at any
/// step.
pub trait Source: Send + Sync + 'static {
    /// A sample on the way from its thread to its batch. A thread makes all its samples in one.
    type Sample: Default + Send;
    /// The samples of a batch together.
    type Images: Send;

    /// Number of images in the data set, not 0.
    fn image_count(&self) -> usize;

    /// The name of image `index`, for reports.
    fn name(&self, index: usize) -> String;

    /// The seed of every random stream.
    fn seed(&self) -> u64;

    /// Steps in an epoch; 0 for a process that has no samples of an evaluation.
    fn steps(&self) -> u64;

    /// The samples of the batch at `step` of `epoch`.
    fn plan(&self, epoch: u64, step: u64) -> Vec<SampleIndex>;

    /// The image that takes the place of one that can't be used; none to leave the place empty.
    fn substitute(&self, rng: &mut Rng) -> Option<usize> {
        Some(rng.below(self.image_count()))
    }

    /// Makes `sample`, whatever it held, out of image `index`, with all randomness from `rng`.
    ///
    /// # Errors
    /// Those of an image that can't be used.
    fn make(&self, index: usize, rng: &mut Rng, sample: &mut Self::Sample) -> Result<()>;

    /// How many samples are to be [begun](Source::begin) before they are made, beyond the batches in
    /// work; 0 where that is of no use.
    fn ahead(&self) -> usize {
        0
    }

    /// Begins to fetch what sample of image `index` is made of.
    fn begin(&self, _index: usize) -> Option<Fetch> {
        None
    }

    /// As [`Source::make`], of what was begun for this image.
    ///
    /// # Errors
    /// As [`Source::make`].
    fn make_of(
        &self,
        index: usize,
        _begun: Fetch,
        rng: &mut Rng,
        sample: &mut Self::Sample,
    ) -> Result<()> {
        self.make(index, rng, sample)
    }

    /// What keeps images from coming at the moment, in a sentence, if anything does.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// A batch with room for `samples`.
    fn open(&self, samples: usize) -> Self::Images;

    /// Puts the `place`th sample, made for `slot`, into its batch. They come in any order.
    fn put(
        &self,
        images: &mut Self::Images,
        place: usize,
        slot: SampleIndex,
        sample: &mut Self::Sample,
    );
}

/// Images of one size in one array: what pretraining loads.
pub struct ImageSource {
    pub(super) dataset: Arc<Dataset>,
    transform: Arc<dyn Transform>,
    pub(super) sampler: EpochSampler,
    pool: Arc<Pool>,
}

/// Samples that are fetched ahead from a store: with 100 KB each, what comes in a quarter of a
/// second at 100 MB/s, which is longer than a store takes to answer.
const AHEAD: usize = 256;

impl ImageSource {
    /// The images of `dataset`, through `transform`, in the order of `sampler`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the sampler is for another number of samples or the transform for
    /// other channels.
    pub fn new(
        dataset: Arc<Dataset>,
        transform: Arc<dyn Transform>,
        sampler: EpochSampler,
    ) -> Result<Self> {
        if sampler.len() != dataset.len() {
            let rule = format!("the data set has {}", dataset.len());
            return Err(Error::invalid("number of samples of the sampler", sampler.len(), rule));
        }
        let [channels, ..] = transform.shape();
        if channels != dataset.channels() {
            let rule = format!("the data set is read with {}", dataset.channels());
            let operand = "number of channels of the transform (its mean and std)";
            return Err(Error::invalid(operand, channels, rule));
        }
        Ok(ImageSource { dataset, transform, sampler, pool: Arc::default() })
    }
}

impl Source for ImageSource {
    type Sample = Vec<f32>;
    type Images = Images;

    fn image_count(&self) -> usize {
        self.dataset.len()
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index)
    }

    fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    fn steps(&self) -> u64 {
        self.sampler.steps()
    }

    fn plan(&self, epoch: u64, step: u64) -> Vec<SampleIndex> {
        let indices = self.sampler.batch(epoch, step).into_iter();
        indices
            .zip(self.sampler.positions(step))
            .map(|(index, position)| SampleIndex { index, position })
            .collect()
    }

    fn make(&self, index: usize, rng: &mut Rng, sample: &mut Vec<f32>) -> Result<()> {
        sample.resize(self.transform.shape().iter().product(), 0.0);
        self.transform.apply(&self.dataset.file(index)?, rng, sample)
    }

    fn ahead(&self) -> usize {
        if self.dataset.is_remote() { AHEAD } else { 0 }
    }

    fn begin(&self, index: usize) -> Option<Fetch> {
        self.dataset.begin(index)
    }

    fn make_of(
        &self,
        index: usize,
        begun: Fetch,
        rng: &mut Rng,
        sample: &mut Vec<f32>,
    ) -> Result<()> {
        sample.resize(self.transform.shape().iter().product(), 0.0);
        self.transform.apply(&self.dataset.file_of(index, begun)?, rng, sample)
    }

    fn trouble(&self) -> Option<String> {
        self.dataset.trouble()
    }

    fn open(&self, samples: usize) -> Images {
        let [channels, height, width] = self.transform.shape();
        let shape = [samples, channels, height, width];
        // Evaluation may leave places empty, which have to hold zeros.
        if self.sampler.is_in_order() { Array4::zeros(shape).into() } else { self.pool.take(shape) }
    }

    fn put(&self, images: &mut Images, place: usize, _: SampleIndex, sample: &mut Vec<f32>) {
        let images = images.as_slice_mut().expect("made contiguous");
        images[place * sample.len()..][..sample.len()].copy_from_slice(sample);
    }
}
