//! Images with their classes.

use std::sync::Arc;

use tch::Tensor;

use super::super::dataset::{Fetch, LabelledDataset};
use super::super::sampler::EpochSampler;
use super::super::transforms::Transform;
use super::pool::Images;
use super::source::{ImageSource, SampleIndex, Source};
use crate::Result;
use crate::rng::Rng;
use crate::tensor_of;

/// The images of a batch and their classes.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledImages {
    /// Normalised images, `[N, C, H, W]`.
    pub images: Images,
    /// The class of each image, or [`LabelledImages::MISSING`].
    pub labels: Vec<i64>,
}

impl LabelledImages {
    /// The label of a place without an image (all zeros there): in evaluation, a file that can't
    /// be used is left out rather than replaced, since another image in its place would count
    /// twice.
    pub const MISSING: i64 = -1;

    /// The images that are there, `[n, C, H, W]`, and their classes; none if all are missing.
    ///
    /// # Errors
    /// Images that make no tensor.
    pub fn present(self) -> Result<Option<(Tensor, Vec<i64>)>> {
        let images = tensor_of(&self.images)?;
        let there: Vec<i64> =
            (0..).zip(&self.labels).filter(|(_, l)| **l != Self::MISSING).map(|(i, _)| i).collect();
        if there.is_empty() {
            return Ok(None);
        }
        if there.len() == self.labels.len() {
            return Ok(Some((images, self.labels)));
        }
        let labels = there.iter().map(|&row| self.labels[row as usize]).collect();
        Ok(Some((images.index_select(0, &Tensor::from_slice(&there)), labels)))
    }
}

/// Images of one size with their classes: what classification loads.
///
/// A file that can't be used is replaced by another with that one's class, unless the sampler
/// is [in order](EpochSampler::in_order): then its place is left
/// [missing](LabelledImages::MISSING).
pub struct LabelledSource {
    dataset: Arc<LabelledDataset>,
    images: ImageSource,
}

impl LabelledSource {
    /// The images of `dataset`, through `transform`, in the order of `sampler`.
    ///
    /// # Errors
    /// Those of [`ImageSource::new`].
    pub fn new(
        dataset: Arc<LabelledDataset>,
        transform: Arc<dyn Transform>,
        sampler: EpochSampler,
    ) -> Result<Self> {
        let images = ImageSource::new(Arc::clone(dataset.images()), transform, sampler)?;
        Ok(LabelledSource { dataset, images })
    }

    /// The data set that is read.
    pub fn dataset(&self) -> &Arc<LabelledDataset> {
        &self.dataset
    }
}

impl Source for LabelledSource {
    type Sample = Vec<f32>;
    type Images = LabelledImages;

    fn image_count(&self) -> usize {
        self.images.image_count()
    }

    fn name(&self, index: usize) -> String {
        self.images.name(index)
    }

    fn seed(&self) -> u64 {
        self.images.seed()
    }

    fn steps(&self) -> u64 {
        self.images.steps()
    }

    fn plan(&self, epoch: u64, step: u64) -> Vec<SampleIndex> {
        self.images.plan(epoch, step)
    }

    fn substitute(&self, rng: &mut Rng) -> Option<usize> {
        if self.images.sampler.is_in_order() { None } else { self.images.substitute(rng) }
    }

    fn make(&self, index: usize, rng: &mut Rng, sample: &mut Vec<f32>) -> Result<()> {
        self.images.make(index, rng, sample)
    }

    fn ahead(&self) -> usize {
        self.images.ahead()
    }

    fn begin(&self, index: usize) -> Option<Fetch> {
        self.images.begin(index)
    }

    fn make_of(
        &self,
        index: usize,
        begun: Fetch,
        rng: &mut Rng,
        sample: &mut Vec<f32>,
    ) -> Result<()> {
        self.images.make_of(index, begun, rng, sample)
    }

    fn trouble(&self) -> Option<String> {
        self.images.trouble()
    }

    fn open(&self, samples: usize) -> LabelledImages {
        let images = self.images.open(samples);
        LabelledImages { images, labels: vec![LabelledImages::MISSING; samples] }
    }

    fn put(
        &self,
        batch: &mut LabelledImages,
        place: usize,
        slot: SampleIndex,
        sample: &mut Vec<f32>,
    ) {
        self.images.put(&mut batch.images, place, slot, sample);
        batch.labels[place] = self.dataset.label(slot.index) as i64;
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::{
        Batch, DatasetOptions, Evaluate, FinetuneTransform, Interpolation, Loader, LoaderOptions,
        Normalize, Policy, RandomErasing, RandomHorizontalFlip, RandomResizedCrop,
        TrivialAugmentWide,
    };

    /// Four images of each of three classes, every one filled with 20 · its class + 60, and
    /// `bad` files of the first class that are none.
    fn pictures(bad: usize) -> (TempDir, Arc<LabelledDataset>) {
        let root = tempfile::tempdir().unwrap();
        for (class, name) in ["ant", "bee", "cow"].iter().enumerate() {
            let folder = root.path().join(name).join("nested");
            std::fs::create_dir_all(&folder).unwrap();
            for number in 0..4 {
                let value = 20 * class as u8 + 60;
                let picture = image::RgbImage::from_pixel(20, 16, image::Rgb([value; 3]));
                picture.save(folder.join(format!("{number}.png"))).unwrap();
            }
        }
        for number in 0..bad {
            std::fs::write(root.path().join(format!("ant/{number}.png")), b"none").unwrap();
        }
        let options = DatasetOptions { listings: None, ..Default::default() };
        let dataset = LabelledDataset::open(root.path(), &options).unwrap();
        (root, Arc::new(dataset))
    }

    fn plain() -> Normalize {
        Normalize::new(vec![0.0; 3], vec![1.0; 3]).unwrap()
    }

    fn evaluate() -> Arc<dyn Transform> {
        Arc::new(Evaluate::squashed((8, 8), Interpolation::Bicubic, plain()).unwrap())
    }

    fn fine_tune() -> Arc<dyn Transform> {
        let (scale, ratio) = (RandomResizedCrop::IMAGENET_SCALE, RandomResizedCrop::RATIO);
        let crop = RandomResizedCrop::new((8, 8), scale, ratio, Interpolation::Bicubic).unwrap();
        let flip = RandomHorizontalFlip::new(0.5).unwrap();
        let policy = Policy::TrivialAugmentWide(TrivialAugmentWide::default());
        let erasing = Some(RandomErasing::new(0.25).unwrap());
        Arc::new(FinetuneTransform::new(crop, flip, policy, plain(), erasing).unwrap())
    }

    fn loader(
        dataset: &Arc<LabelledDataset>,
        transform: Arc<dyn Transform>,
        sampler: EpochSampler,
        threads: usize,
    ) -> Loader<LabelledSource> {
        let source = LabelledSource::new(Arc::clone(dataset), transform, sampler).unwrap();
        Loader::of(source, LoaderOptions { threads, prefetch: 2, max_corrupt: 0.3 }).unwrap()
    }

    /// The class that the image at `place` shows.
    fn shown(batch: &LabelledImages, place: usize) -> i64 {
        ((batch.images[[place, 0, 4, 4]] * 255.0 - 60.0) / 20.0).round() as i64
    }

    #[test]
    fn labels_are_those_of_the_images_shown_even_of_substitutes() {
        let (_root, dataset) = pictures(3);
        let sampler = EpochSampler::new(dataset.len(), 4, 1).unwrap();
        let loader = loader(&dataset, evaluate(), sampler, 3);
        for batch in loader.batches(0..4, 0) {
            let Batch { images: batch, indices, .. } = batch.unwrap();
            for (place, index) in indices.into_iter().enumerate() {
                assert_eq!(batch.labels[place], shown(&batch, place));
                assert_eq!(batch.labels[place], dataset.label(index) as i64);
            }
        }
        assert_eq!(loader.corrupt_files().len(), 3);
    }

    #[test]
    fn evaluation_shows_every_image_once_and_leaves_broken_ones_out() {
        let (_root, dataset) = pictures(2);
        let sampler = EpochSampler::in_order(dataset.len(), 4).unwrap();
        let loader = loader(&dataset, evaluate(), sampler, 2);
        let batches: Vec<_> = loader.epoch(0, 0).map(Result::unwrap).collect();
        let sizes: Vec<usize> = batches.iter().map(|b| b.images.labels.len()).collect();
        assert_eq!(sizes, [4, 4, 4, 2]);
        let labels: Vec<i64> = batches.iter().flat_map(|b| b.images.labels.clone()).collect();
        // By path: the broken "ant/0.png" and "ant/1.png" stand before "ant/nested".
        assert_eq!(labels, [-1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
        let indices: Vec<usize> = batches.into_iter().flat_map(|b| b.indices).collect();
        assert_eq!(indices, (2..14).collect::<Vec<_>>());
    }

    #[test]
    fn batches_are_the_same_for_any_threads_and_start() {
        let (_root, dataset) = pictures(2);
        let run = |threads, start| -> Vec<(LabelledImages, Vec<usize>)> {
            let sampler = EpochSampler::new(dataset.len(), 4, 5).unwrap().with_repeats(3).unwrap();
            let loader = loader(&dataset, fine_tune(), sampler, threads);
            let batches = loader.batches(1..3, start);
            batches.map(|batch| batch.map(|b| (b.images, b.indices)).unwrap()).collect()
        };
        let all = run(1, 0);
        assert_eq!(all.len(), 8);
        assert_eq!(run(4, 0), all);
        assert_eq!(run(2, 3), all[3..]);
        // Repeats of one image are augmented differently.
        let first = &all[0];
        assert_eq!(first.1[0], first.1[1]);
        let image = |n| first.0.images.index_axis(ndarray::Axis(0), n);
        assert_ne!(image(0), image(1));
    }
}
