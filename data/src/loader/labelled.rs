//! Images with their classes.

use tch::Tensor;

use super::super::dataset::{Dataset, LabelledDataset};
use super::pool::Images;
use super::source::{ImageSet, ImageSource};
use crate::{Result, tensor_of};

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

/// What classification loads.
pub type LabelledSource = ImageSource<LabelledDataset>;

impl ImageSet for LabelledDataset {
    type Batch = LabelledImages;

    const TELLS_MISSING: bool = true;

    fn dataset(&self) -> &Dataset {
        self.images()
    }

    fn batch(images: Images) -> LabelledImages {
        let labels = vec![LabelledImages::MISSING; images.shape()[0]];
        LabelledImages { images, labels }
    }

    fn images(batch: &mut LabelledImages) -> &mut Images {
        &mut batch.images
    }

    fn label(&self, index: usize, batch: &mut LabelledImages, place: usize) {
        batch.labels[place] = self.label(index) as i64;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::{
        Batch, DatasetOptions, EpochSampler, Evaluate, FinetuneTransform, Interpolation, Loader,
        LoaderOptions, Normalize, Policy, RandomErasing, RandomHorizontalFlip, RandomResizedCrop,
        Transform, TrivialAugmentWide,
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
        let options = LoaderOptions { threads, prefetch: 2, max_corrupt: 0.3 };
        Loader::new(Arc::clone(dataset), transform, sampler, options).unwrap()
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
