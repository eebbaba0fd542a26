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

/// A data set of images, and what a batch of them is.
pub trait ImageSet: Send + Sync + 'static {
    /// The images of a batch in one array, with what belongs to each.
    type Batch: Send;
    /// Whether a batch says of which of its places the image is missing.
    const TELLS_MISSING: bool;

    /// The images alone.
    fn dataset(&self) -> &Dataset;

    /// A batch with room for images in this array.
    fn batch(images: Images) -> Self::Batch;

    /// The images of a batch.
    fn images(batch: &mut Self::Batch) -> &mut Images;

    /// Puts what belongs to image `index` at its place in a batch.
    fn label(&self, index: usize, batch: &mut Self::Batch, place: usize);
}

impl ImageSet for Dataset {
    type Batch = Images;

    const TELLS_MISSING: bool = false;

    fn dataset(&self) -> &Dataset {
        self
    }

    fn batch(images: Images) -> Images {
        images
    }

    fn images(batch: &mut Images) -> &mut Images {
        batch
    }

    fn label(&self, _: usize, _: &mut Images, _: usize) {}
}

/// Images of one size in one array: what pretraining loads, and, of a labelled data set with the
/// classes, classification.
///
/// A file that can't be used is replaced by another, unless a batch tells what is missing and the
/// sampler is [in order](EpochSampler::in_order): then its place is left empty.
pub struct ImageSource<D = Dataset> {
    set: Arc<D>,
    transform: Arc<dyn Transform>,
    sampler: EpochSampler,
    pool: Arc<Pool>,
}

/// Samples that are fetched ahead from a store: twice as many as it is asked for at a time, so that
/// it is asked while some wait to be decoded.
const AHEAD: usize = 512;

impl<D: ImageSet> ImageSource<D> {
    /// The images of `set`, through `transform`, in the order of `sampler`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the sampler is for another number of samples or the transform for
    /// other channels.
    pub fn new(set: Arc<D>, transform: Arc<dyn Transform>, sampler: EpochSampler) -> Result<Self> {
        let dataset = set.dataset();
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
        Ok(ImageSource { set, transform, sampler, pool: Arc::default() })
    }

    /// The data set that is read.
    pub fn set(&self) -> &Arc<D> {
        &self.set
    }
}

impl<D: ImageSet> Source for ImageSource<D> {
    type Sample = Vec<f32>;
    type Images = D::Batch;

    fn image_count(&self) -> usize {
        self.set.dataset().len()
    }

    fn name(&self, index: usize) -> String {
        self.set.dataset().name(index)
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

    fn substitute(&self, rng: &mut Rng) -> Option<usize> {
        let stays_empty = D::TELLS_MISSING && self.sampler.is_in_order();
        (!stays_empty).then(|| rng.below(self.image_count()))
    }

    fn make(&self, index: usize, rng: &mut Rng, sample: &mut Vec<f32>) -> Result<()> {
        sample.resize(self.transform.shape().iter().product(), 0.0);
        self.transform.apply(&self.set.dataset().file(index)?, rng, sample)
    }

    fn ahead(&self) -> usize {
        if self.set.dataset().is_remote() { AHEAD } else { 0 }
    }

    fn begin(&self, index: usize) -> Option<Fetch> {
        self.set.dataset().begin(index)
    }

    fn make_of(
        &self,
        index: usize,
        begun: Fetch,
        rng: &mut Rng,
        sample: &mut Vec<f32>,
    ) -> Result<()> {
        sample.resize(self.transform.shape().iter().product(), 0.0);
        self.transform.apply(&self.set.dataset().file_of(index, begun)?, rng, sample)
    }

    fn trouble(&self) -> Option<String> {
        self.set.dataset().trouble()
    }

    fn open(&self, samples: usize) -> D::Batch {
        let [channels, height, width] = self.transform.shape();
        let shape = [samples, channels, height, width];
        // Evaluation may leave places empty, which have to hold zeros.
        D::batch(match self.sampler.is_in_order() {
            true => Array4::zeros(shape).into(),
            false => self.pool.take(shape),
        })
    }

    fn put(&self, batch: &mut D::Batch, place: usize, slot: SampleIndex, sample: &mut Vec<f32>) {
        let images = D::images(batch).as_slice_mut().expect("made contiguous");
        images[place * sample.len()..][..sample.len()].copy_from_slice(sample);
        self.set.label(slot.index, batch, place);
    }
}
