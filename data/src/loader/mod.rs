//! Batches made on threads ahead of the training step.
//!
//! Threads work on single samples, in order, so that the next batch is ready as early as it can
//! be, and at most `prefetch` batches exist besides the one in use.

mod labelled;
mod pipeline;
mod pool;
mod sample;
mod source;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use self::labelled::{LabelledImages, LabelledSource};
use self::pipeline::Pipeline;
pub use self::pool::Images;
use self::sample::SampleMaker;
pub use self::source::{ImageSet, ImageSource, SampleIndex, Source};
use super::corrupt::CorruptFiles;
use super::sampler::EpochSampler;
use super::transforms::Transform;
use crate::cores;
use crate::{Error, Result};

/// How a [`Loader`] works; none of it changes what it yields.
#[derive(Debug, Clone)]
pub struct LoaderOptions {
    /// Threads that decode and augment.
    pub threads: usize,
    /// Batches finished or in work ahead of the one in use.
    pub prefetch: usize,
    /// Share of the data set, 0..=1, that may be corrupt: such files are skipped. At least one
    /// file may be unless this is 0.
    pub max_corrupt: f64,
}

/// Most reading threads that are started unasked.
const MAX_THREADS: usize = 16;

impl Default for LoaderOptions {
    /// A thread a core, at most 16, two batches ahead, 1 % corrupt files.
    fn default() -> Self {
        LoaderOptions::new(0, 0.01)
    }
}

impl LoaderOptions {
    /// So many threads (0: one a core, at most 16), two batches ahead.
    pub fn new(threads: usize, max_corrupt: f64) -> Self {
        let threads = if threads == 0 { cores().min(MAX_THREADS) } else { threads };
        LoaderOptions { threads, prefetch: 2, max_corrupt }
    }

    /// As [`LoaderOptions::new`], but 0 threads are one for each of `cores`, those of a machine
    /// that are this process's.
    pub fn on_cores(threads: usize, max_corrupt: f64, cores: usize) -> Self {
        let share = cores.clamp(1, MAX_THREADS);
        LoaderOptions::new(if threads == 0 { share } else { threads }, max_corrupt)
    }
}

/// One batch.
#[derive(Debug)]
pub struct Batch<I = Images> {
    /// The epoch it belongs to.
    pub epoch: u64,
    /// Its number in the epoch.
    pub step: u64,
    /// What the source made of its samples: normalised images, `[N, C, H, W]`, unless told
    /// otherwise.
    pub images: I,
    /// Data set index of each image, after the replacement of corrupt ones.
    pub indices: Vec<usize>,
    /// Number of each sample in the epoch (over all ranks), which its randomness depends on.
    pub positions: Vec<u64>,
    /// How long the caller was kept waiting for this batch.
    pub waited: Duration,
}

/// Makes batches of what its [`Source`] supplies: a data set's images through a transform, in a
/// sampler's order, unless told otherwise.
///
/// What it yields depends on the source, its seed, the epoch and the step alone. A file that can't
/// be used is replaced by another, drawn by (seed, epoch, position, attempt), and noted in
/// [`Loader::corrupt_files`].
pub struct Loader<S: Source = ImageSource> {
    maker: Arc<SampleMaker<S>>,
    options: LoaderOptions,
}

impl<D: ImageSet> Loader<ImageSource<D>> {
    /// A loader of `dataset`, through `transform`, in the order of `sampler`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the sampler is for another number of samples, the transform for
    /// other channels, `threads` or `prefetch` is 0, or `max_corrupt` is outside 0..=1.
    pub fn new(
        dataset: Arc<D>,
        transform: Arc<dyn Transform>,
        sampler: EpochSampler,
        options: LoaderOptions,
    ) -> Result<Self> {
        Loader::of(ImageSource::new(dataset, transform, sampler)?, options)
    }

    /// The data set that is read.
    pub fn dataset(&self) -> &D {
        self.maker.source.set()
    }
}

impl<S: Source> Loader<S> {
    /// A loader of what `source` supplies.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `threads` or `prefetch` is 0, or `max_corrupt` is outside 0..=1.
    pub fn of(source: S, options: LoaderOptions) -> Result<Self> {
        for (name, value) in
            [("loader threads", options.threads), ("prefetched batches", options.prefetch)]
        {
            if value == 0 {
                return Err(Error::invalid(name, value, "at least 1 is needed"));
            }
        }
        if !(0.0..=1.0).contains(&options.max_corrupt) {
            let rule = "it is a fraction of the data set, 0 to 1";
            return Err(Error::invalid("max-corrupt", options.max_corrupt, rule));
        }
        let corrupt = CorruptFiles::new(source.image_count(), options.max_corrupt);
        let maker = Arc::new(SampleMaker { source, corrupt });
        Ok(Loader { maker, options })
    }

    /// What is loaded.
    pub fn source(&self) -> &S {
        &self.maker.source
    }

    /// Notes, before any is read, that image `index` can't be used.
    ///
    /// # Errors
    /// [`Error::Data`] when that makes too many.
    pub fn exclude(&self, index: usize, reason: &str) -> Result<()> {
        self.maker.corrupt.add(index, self.maker.source.name(index), reason.to_owned())
    }

    /// Steps in an epoch.
    pub fn steps(&self) -> u64 {
        self.maker.source.steps()
    }

    /// Files skipped so far, by all iterators of this loader.
    pub fn corrupt_files(&self) -> &CorruptFiles {
        &self.maker.corrupt
    }

    /// At most the first `count` samples of a batch, made on this thread.
    ///
    /// # Errors
    /// As the batches' own.
    pub fn first_of(&self, epoch: u64, step: u64, count: usize) -> Result<Batch<S::Images>> {
        let source = &self.maker.source;
        let slots: Vec<SampleIndex> = source.plan(epoch, step).into_iter().take(count).collect();
        let mut images = source.open(slots.len());
        let (mut sample, mut indices) = (S::Sample::default(), Vec::new());
        for (place, slot) in slots.iter().enumerate() {
            if let Some(index) = self.maker.make(*slot, epoch, None, &mut sample)? {
                indices.push(index);
                source.put(&mut images, place, SampleIndex { index, ..*slot }, &mut sample);
            }
        }
        let positions = slots.iter().map(|slot| slot.position).collect();
        Ok(Batch { epoch, step, images, indices, positions, waited: Duration::ZERO })
    }

    /// The batches of one epoch from `start_step` on.
    pub fn epoch(&self, epoch: u64, start_step: u64) -> Batches<S> {
        self.batches(epoch..epoch + 1, start_step)
    }

    /// The batches of several epochs on end, from `start_step` of the first on. The threads go on
    /// into the next epoch while the last steps of one are taken, so small data sets don't stall.
    pub fn batches(&self, epochs: Range<u64>, start_step: u64) -> Batches<S> {
        Batches { pipeline: Pipeline::start(&self.maker, &self.options, epochs, start_step) }
    }
}

/// Batches in order. After an error there are no more. Dropping it stops the threads; each
/// finishes the image it is at.
pub struct Batches<S: Source = ImageSource> {
    pipeline: Pipeline<S>,
}

impl<S: Source> Batches<S> {
    /// Waits until the next batch is there, or the end or an error, but no longer than `patience`.
    /// Whether that is so: then [`Batches::next`](Iterator::next) returns at once.
    pub fn is_ready_within(&mut self, patience: Duration) -> bool {
        self.pipeline.is_ready_within(patience)
    }

    /// What the next batch waits for: the image that is missing, or what goes wrong in the store it
    /// lies in.
    pub fn waits_for(&self) -> Option<String> {
        self.pipeline.waits_for()
    }
}

impl<S: Source> Iterator for Batches<S> {
    type Item = Result<Batch<S::Images>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.pipeline.next_batch()
    }
}

#[cfg(test)]
mod tests;
