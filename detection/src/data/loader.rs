//! Samples in batches, made on threads ahead of the step.

use std::ops::Range;
use std::sync::Arc;

use data::rng::Rng;
use data::{Batches, CorruptFiles, Loader, LoaderOptions, SampleIndex, Source};

use super::coco::CocoDataset;
use super::plan::{GroupedPlan, Share};
use super::sample::{Sample, planes};
use super::transform::{EvalTransform, TrainTransform};
use crate::{Error, Result};

/// How training images are batched.
#[derive(Debug, Clone)]
pub struct TrainLoaderOptions {
    /// Images in a batch, over all processes.
    pub batch_size: usize,
    /// The part of every batch that is read here.
    pub share: Share,
    /// The seed of orders and augmentation.
    pub seed: u64,
    /// Also take the images without an object to train on, which detectron2 leaves out.
    pub keep_empty: bool,
    /// Threads, batches ahead, and the share of files that may be unreadable.
    pub loader: LoaderOptions,
}

/// Batches of [`Sample`]s: `Batch::images` is a `Vec<Sample>`.
///
/// What it yields depends on the data set, the transform, the seed, the epoch and the step alone.
/// In training, a file that is missing or can't be read is replaced by another image of the data
/// set; in evaluation it is left out of its batch. Both note it in
/// [`DetectionLoader::corrupt_files`], and too many are an error.
pub struct DetectionLoader {
    loader: Arc<Loader<CocoSource>>,
}

impl DetectionLoader {
    /// Every epoch in a new order, wide images with wide and tall with tall, augmented.
    ///
    /// # Errors
    /// [`Error::Format`] when no image has an object to train on; [`Error::Engine`] for options
    /// out of range or when more files are missing than may be.
    pub fn training(
        dataset: Arc<CocoDataset>,
        transform: TrainTransform,
        options: &TrainLoaderOptions,
    ) -> Result<Self> {
        let all = 0..dataset.len();
        if all.clone().all(|index| dataset.object_count(index) == 0) {
            let without = dataset.coco().dataset.annotations.len();
            let problem = if dataset.has_masks() && without > 0 && !dataset.coco().has_masks() {
                format!("none of its {without} objects has a mask: --masks false trains on boxes")
            } else if dataset.has_masks() {
                "no image has an object with a box and a mask to train on".to_owned()
            } else {
                "no image has an object with a box to train on".to_owned()
            };
            return Err(Error::format(dataset.annotations(), problem));
        }
        let keep = |&index: &usize| options.keep_empty || dataset.object_count(index) > 0;
        let images: Vec<usize> = all.filter(keep).collect();
        let wide = images.iter().map(|&index| {
            let record = dataset.record(index);
            record.width > record.height
        });
        require_batch(options.batch_size)?;
        if !options.batch_size.is_multiple_of(options.share.size) {
            let rule = format!("it must be a multiple of {}, the processes", options.share.size);
            return Err(Error::invalid("batch size", options.batch_size, rule));
        }
        let wide = wide.collect();
        let plan = GroupedPlan::new(images, wide, options.batch_size, options.seed);
        let (work, share) = (Work::Train(transform, plan), options.share);
        Self::of(CocoSource { dataset, work, share }, &options.loader)
    }

    /// All images of `share` once, in the data set's order, the last batch as small as it comes
    /// out; as many epochs as are asked for are the same.
    ///
    /// # Errors
    /// [`Error::Engine`] for options out of range or when more files are missing than may be.
    pub fn evaluation(
        dataset: Arc<CocoDataset>,
        transform: EvalTransform,
        batch_size: usize,
        options: &LoaderOptions,
        share: Share,
    ) -> Result<Self> {
        require_batch(batch_size)?;
        let work = Work::Evaluate(transform, batch_size);
        Self::of(CocoSource { dataset, work, share }, options)
    }

    fn of(source: CocoSource, options: &LoaderOptions) -> Result<Self> {
        let loader = Loader::of(source, options.clone())?;
        let source = loader.source();
        let missing = source.dataset.missing().iter();
        for &index in missing.filter(|&&index| source.takes(index)) {
            loader.exclude(index, "the file is missing")?;
        }
        Ok(Self { loader: Arc::new(loader) })
    }

    /// The data set that is read.
    pub fn dataset(&self) -> &Arc<CocoDataset> {
        &self.loader.source().dataset
    }

    /// Number of images that an epoch has, without those that fill up the last batch.
    pub fn image_count(&self) -> usize {
        self.loader.source().image_count()
    }

    /// Steps in an epoch.
    pub fn steps(&self) -> u64 {
        self.loader.steps()
    }

    /// Files skipped so far, by all iterators of this loader, missing ones included.
    pub fn corrupt_files(&self) -> &CorruptFiles {
        self.loader.corrupt_files()
    }

    /// What the training loop takes its batches from.
    pub fn loader(&self) -> &Arc<Loader<CocoSource>> {
        &self.loader
    }

    /// The batches of several epochs on end, from `start_step` of the first on. Each says how
    /// long it was waited for.
    pub fn batches(&self, epochs: Range<u64>, start_step: u64) -> Batches<CocoSource> {
        self.loader.batches(epochs, start_step)
    }
}

fn require_batch(size: usize) -> Result<()> {
    if size == 0 {
        return Err(Error::invalid("batch size", size, "at least 1 is needed"));
    }
    Ok(())
}

/// What a [`DetectionLoader`]'s threads work on.
pub struct CocoSource {
    dataset: Arc<CocoDataset>,
    work: Work,
    share: Share,
}

enum Work {
    Train(TrainTransform, GroupedPlan),
    Evaluate(EvalTransform, usize),
}

impl CocoSource {
    /// Whether an epoch has image `index`. The lists are in the data set's order.
    fn takes(&self, index: usize) -> bool {
        match &self.work {
            Work::Train(_, plan) => plan.images().binary_search(&index).is_ok(),
            Work::Evaluate(..) => true,
        }
    }

    /// Images that evaluation reads here.
    fn evaluated(&self) -> usize {
        self.share.of(0..self.dataset.len()).count()
    }

    fn sample(&self, index: usize, rng: &mut Rng) -> Result<Sample> {
        let image = self.dataset.image(index)?;
        let size = (image.height(), image.width());
        let objects = self.dataset.objects(index)?;
        let (image, objects) = match &self.work {
            Work::Train(transform, _) => transform.apply(image, objects, rng)?,
            Work::Evaluate(transform, _) => transform.apply_with(image, objects)?,
        };
        Ok(Sample {
            image: planes(&image)?,
            targets: objects.into_targets(),
            image_id: self.dataset.record(index).id,
            size,
            index,
            position: 0,
        })
    }
}

impl Source for CocoSource {
    type Sample = Option<Sample>;
    type Images = Vec<Sample>;

    fn image_count(&self) -> usize {
        match &self.work {
            Work::Train(_, plan) => plan.images().len(),
            Work::Evaluate(..) => self.dataset.len(),
        }
    }

    fn name(&self, index: usize) -> String {
        self.dataset.name(index).to_owned()
    }

    fn seed(&self) -> u64 {
        match &self.work {
            Work::Train(_, plan) => plan.seed(),
            Work::Evaluate(..) => 0,
        }
    }

    fn steps(&self) -> u64 {
        match &self.work {
            Work::Train(_, plan) => plan.steps(),
            Work::Evaluate(_, batch) => self.evaluated().div_ceil(*batch) as u64,
        }
    }

    fn plan(&self, epoch: u64, step: u64) -> Vec<SampleIndex> {
        match &self.work {
            Work::Train(_, plan) => {
                let (first, indices) = (plan.first_position(step), plan.batch(epoch, step));
                let places = self.share.of(0..indices.len());
                let slot =
                    |place| SampleIndex { index: indices[place], position: first + place as u64 };
                places.map(slot).collect()
            }
            Work::Evaluate(_, batch) => {
                let own = self.share.of(0..self.dataset.len()).skip(step as usize * batch);
                own.take(*batch)
                    .map(|index| SampleIndex { index, position: index as u64 })
                    .collect()
            }
        }
    }

    fn substitute(&self, rng: &mut Rng) -> Option<usize> {
        match &self.work {
            Work::Train(_, plan) => Some(plan.images()[rng.below(plan.images().len())]),
            Work::Evaluate(..) => None,
        }
    }

    fn make(&self, index: usize, rng: &mut Rng, sample: &mut Option<Sample>) -> data::Result<()> {
        let made = self.sample(index, rng).map_err(|error| match error {
            Error::Input(error) => error,
            other => data::Error::image(self.dataset.path(index), other.to_string()),
        })?;
        *sample = Some(made);
        Ok(())
    }

    fn open(&self, samples: usize) -> Vec<Sample> {
        Vec::with_capacity(samples)
    }

    fn put(
        &self,
        images: &mut Vec<Sample>,
        _: usize,
        slot: SampleIndex,
        sample: &mut Option<Sample>,
    ) {
        if let Some(mut sample) = sample.take() {
            sample.position = slot.position;
            let place = images.partition_point(|other| other.position < slot.position);
            images.insert(place, sample);
        }
    }
}
