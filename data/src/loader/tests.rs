//! Order, determinism, corrupt files, bounds and stopping.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use ndarray::Array4;
use tempfile::TempDir;

use super::*;
use crate::rng::Rng;
use crate::{
    Dataset, DatasetOptions, Interpolation, LazyImage, Normalize, PretrainTransform,
    RandomHorizontalFlip, RandomResizedCrop,
};

/// `good` noisy pictures and `bad` files that are none.
fn pictures(good: usize, bad: usize) -> (TempDir, Arc<Dataset>) {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..good {
        let mut rng = Rng::new(number as u64, &[]);
        let picture = image::RgbImage::from_fn(20, 16, |_, _| {
            image::Rgb(std::array::from_fn(|_| rng.below(256) as u8))
        });
        picture.save(folder.path().join(format!("good{number:02}.png"))).unwrap();
    }
    for number in 0..bad {
        std::fs::write(folder.path().join(format!("bad{number:02}.png")), b"no picture").unwrap();
    }
    let dataset = open(folder.path());
    (folder, dataset)
}

fn open(path: &Path) -> Arc<Dataset> {
    let options = DatasetOptions { listings: None, ..Default::default() };
    Arc::new(Dataset::open(path, &options).unwrap())
}

fn augment() -> Arc<dyn Transform> {
    let (scale, ratio) = (RandomResizedCrop::SCALE, RandomResizedCrop::RATIO);
    Arc::new(PretrainTransform {
        crop: RandomResizedCrop::new((8, 12), scale, ratio, Interpolation::Bicubic).unwrap(),
        flip: RandomHorizontalFlip::new(0.5).unwrap(),
        normalize: Normalize::imagenet(),
    })
}

fn loader(dataset: &Arc<Dataset>, batch_size: usize, options: LoaderOptions) -> Loader {
    let sampler = EpochSampler::new(dataset.len(), batch_size, 42).unwrap();
    Loader::new(Arc::clone(dataset), augment(), sampler, options).unwrap()
}

fn options(threads: usize, prefetch: usize, max_corrupt: f64) -> LoaderOptions {
    LoaderOptions { threads, prefetch, max_corrupt }
}

/// Everything but the time waited. The batch's memory goes back to the loader, so what is left in
/// it must not show in a later one.
fn content(batch: Result<Batch>) -> (u64, u64, Array4<f32>, Vec<usize>, Vec<u64>) {
    let Batch { epoch, step, images, indices, positions, .. } = batch.unwrap();
    (epoch, step, Array4::clone(&images), indices, positions)
}

#[test]
fn batches_are_the_same_for_any_threads_and_start() {
    let (_folder, dataset) = pictures(9, 3);
    let run = |threads, prefetch, epochs, start| -> Vec<_> {
        let loader = loader(&dataset, 4, options(threads, prefetch, 0.5));
        loader.batches(epochs, start).map(content).collect()
    };
    let all = run(1, 1, 0..3, 0);
    assert_eq!(all.len(), 9);
    assert_eq!(all[0].2.dim(), (4, 3, 8, 12));
    assert_eq!(all.iter().map(|b| (b.0, b.1)).nth(5), Some((1, 2)));
    assert_eq!(all[4].4, [4, 5, 6, 7]);
    for (threads, prefetch) in [(2, 1), (3, 4), (8, 2)] {
        assert_eq!(run(threads, prefetch, 0..3, 0), all, "{threads} threads, {prefetch} ahead");
    }
    assert_eq!(run(3, 2, 1..3, 2), all[5..]);
    // The end of an epoch is the start of the next.
    assert_eq!(run(3, 2, 1..3, 3), all[6..]);
    assert_eq!(run(2, 2, 2..3, 3), []);
}

#[test]
fn the_first_samples_of_a_batch_are_those_of_the_batch() {
    let (_folder, dataset) = pictures(9, 3);
    let loader = loader(&dataset, 4, options(2, 1, 0.5));
    let whole = content(loader.epoch(1, 2).next().unwrap());
    let few = content(loader.first_of(1, 2, 3));
    assert_eq!((few.0, few.1, few.2.dim()), (1, 2, (3, 3, 8, 12)));
    assert_eq!(few.2, whole.2.slice(ndarray::s![..3, .., .., ..]));
    assert_eq!((&few.3[..], &few.4[..]), (&whole.3[..3], &whole.4[..3]));
    assert_eq!(content(loader.first_of(1, 2, 9)), whole, "it has no more");
}

#[test]
fn augmentation_differs_between_samples_and_epochs() {
    let (_folder, dataset) = pictures(1, 0);
    let loader = loader(&dataset, 3, options(2, 2, 0.0));
    let batches: Vec<_> = loader.batches(0..2, 0).map(content).collect();
    assert_eq!(batches[0].3, [0, 0, 0]);
    let sample = |epoch: usize, n| batches[epoch].2.index_axis(ndarray::Axis(0), n).to_owned();
    assert_ne!(sample(0, 0), sample(0, 1));
    assert_ne!(sample(0, 0), sample(1, 0));
}

#[test]
fn ranks_together_see_what_a_single_process_sees() {
    let (_folder, dataset) = pictures(7, 1);
    let single = loader(&dataset, 4, options(2, 2, 0.5)).epoch(1, 0).map(content);
    let of_rank = |rank| {
        let sampler = EpochSampler::distributed(8, 2, 42, rank, 2).unwrap();
        let data = Arc::clone(&dataset);
        Loader::new(data, augment(), sampler, options(2, 2, 0.5)).unwrap().epoch(1, 0).map(content)
    };
    for (whole, (even, odd)) in single.zip(of_rank(0).zip(of_rank(1))) {
        let sample = |batch: &Array4<f32>, n| batch.index_axis(ndarray::Axis(0), n).to_owned();
        let mut positions: Vec<u64> = Vec::new();
        for (_, _, images, indices, of_rank) in [&even, &odd] {
            for (place, position) in of_rank.iter().enumerate() {
                let within = whole.4.iter().position(|other| other == position).unwrap();
                assert_eq!(whole.3[within], indices[place]);
                assert_eq!(sample(&whole.2, within), sample(images, place));
            }
            positions.extend(of_rank);
        }
        positions.sort_unstable();
        assert_eq!(positions, whole.4);
    }
}

#[test]
fn a_rank_without_samples_has_no_batches() {
    let (_folder, dataset) = pictures(2, 0);
    let sampler = EpochSampler::in_order_among(2, 4, 2, 3).unwrap();
    let loader = Loader::new(Arc::clone(&dataset), augment(), sampler, options(2, 2, 0.5)).unwrap();
    assert_eq!(loader.steps(), 0);
    assert_eq!(loader.epoch(0, 0).count(), 0);
    assert_eq!(loader.batches(1..4, 5).count(), 0);
}

#[test]
fn corrupt_files_are_replaced_and_counted_once() {
    let (_folder, dataset) = pictures(6, 2);
    let loader = loader(&dataset, 4, options(3, 2, 0.25));
    for batch in loader.batches(0..5, 0) {
        let batch = batch.unwrap();
        assert!(batch.indices.iter().all(|&index| dataset.name(index).starts_with("good")));
        assert!(batch.images.iter().any(|&value| value != 0.0));
    }
    let report = loader.corrupt_files().report();
    let names: Vec<&str> = report.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["bad00.png", "bad01.png"]);
    assert!(report[0].1.contains("not a JPEG, PNG"), "{report:?}");
}

#[test]
fn too_many_corrupt_files_end_the_run() {
    let (_folder, dataset) = pictures(3, 4);
    let loader = loader(&dataset, 2, options(2, 2, 0.3));
    let mut batches = loader.batches(0..100, 0);
    let message = batches.find_map(Result::err).expect("an error").to_string();
    assert!(
        message.contains("3 of 7 files can't be used, and at most 2 may be skipped"),
        "{message}"
    );
    assert!(message.contains("--max-corrupt") && message.contains("bad0"), "{message}");
    assert!(batches.next().is_none());
}

#[test]
fn a_data_set_of_corrupt_files_ends_with_an_error() {
    for bad in [1, 5] {
        let (_folder, dataset) = pictures(0, bad);
        let loader = loader(&dataset, 4, options(2, 2, 1.0));
        let first = loader.epoch(0, 0).next().expect("an item");
        assert!(first.unwrap_err().to_string().contains("can't be used"));
    }
}

#[test]
fn a_file_that_vanishes_is_corrupt() {
    let (folder, dataset) = pictures(4, 0);
    std::fs::remove_file(folder.path().join("good02.png")).unwrap();
    let loader = loader(&dataset, 4, options(2, 1, 0.25));
    assert!(loader.epoch(0, 0).all(|batch| batch.is_ok()));
    let report = loader.corrupt_files().report();
    assert!(report[0].0 == "good02.png" && report[0].1.contains("No such file"), "{report:?}");
}

/// Counts, takes its time, and panics if told to.
struct Slow {
    made: AtomicUsize,
    pause: Duration,
    panics: bool,
}

impl Slow {
    fn new(pause: Duration, panics: bool) -> Arc<Self> {
        Arc::new(Slow { made: AtomicUsize::new(0), pause, panics })
    }
}

impl Transform for Slow {
    fn shape(&self) -> [usize; 3] {
        [3, 1, 1]
    }

    fn apply(&self, _: &dyn LazyImage, _: &mut Rng, _: &mut [f32]) -> Result<()> {
        assert!(!self.panics, "a decoder's bug");
        self.made.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(self.pause);
        Ok(())
    }
}

fn slow_loader(dataset: &Arc<Dataset>, transform: &Arc<Slow>, prefetch: usize) -> Loader {
    let sampler = EpochSampler::new(dataset.len(), 4, 0).unwrap();
    let transform: Arc<dyn Transform> = Arc::clone(transform) as _;
    Loader::new(Arc::clone(dataset), transform, sampler, options(3, prefetch, 1.0)).unwrap()
}

#[test]
fn no_more_is_made_ahead_than_asked_for() {
    let (_folder, dataset) = pictures(4, 0);
    let transform = Slow::new(Duration::ZERO, false);
    let loader = slow_loader(&dataset, &transform, 3);
    let mut batches = loader.batches(0..1000, 0);
    for taken in 0..3 {
        let settled = (taken + 3) * 4;
        let started = Instant::now();
        while transform.made.load(Ordering::SeqCst) < settled {
            assert!(started.elapsed() < Duration::from_secs(30), "the workers stopped short");
            std::thread::yield_now();
        }
        // Ample time for a worker that doesn't know the bound.
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(transform.made.load(Ordering::SeqCst), settled);
        batches.next().unwrap().unwrap();
    }
}

#[test]
fn dropping_the_iterator_stops_its_threads() {
    let (_folder, dataset) = pictures(4, 0);
    let transform = Slow::new(Duration::from_millis(20), false);
    let loader = slow_loader(&dataset, &transform, 1000);
    let mut batches = loader.batches(0..u64::MAX, 0);
    let first = batches.next().unwrap().unwrap();
    assert!(first.waited >= Duration::from_millis(20), "{:?}", first.waited);
    drop(batches);
    // Joined: each thread held a handle on what samples are made from.
    assert_eq!(Arc::strong_count(&loader.maker), 1);
    let made = transform.made.load(Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(transform.made.load(Ordering::SeqCst), made);
}

#[test]
fn a_panicking_decoder_is_a_corrupt_file() {
    let (_folder, dataset) = pictures(3, 0);
    let transform = Slow::new(Duration::ZERO, true);
    let loader = slow_loader(&dataset, &transform, 2);
    let message = loader.epoch(0, 0).next().unwrap().unwrap_err().to_string();
    assert!(message.contains("reading it panicked: a decoder's bug"), "{message}");
}

#[test]
fn refuses_parts_that_do_not_fit() {
    let (_folder, dataset) = pictures(3, 0);
    let build = |len, channels: usize, options| {
        let sampler = EpochSampler::new(len, 4, 0).unwrap();
        let transform = PretrainTransform {
            crop: RandomResizedCrop::new((8, 8), (0.5, 1.0), (1.0, 1.0), Interpolation::Bilinear)
                .unwrap(),
            flip: RandomHorizontalFlip::new(0.5).unwrap(),
            normalize: Normalize::new(vec![0.5; channels], vec![0.2; channels]).unwrap(),
        };
        let built = Loader::new(Arc::clone(&dataset), Arc::new(transform), sampler, options);
        built.err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(build(3, 3, options(1, 1, 0.0)), "");
    assert!(build(5, 3, options(1, 1, 0.0)).contains("sampler is 5, but the data set has 3"));
    assert!(build(3, 4, options(1, 1, 0.0)).contains("mean and std) is 4"));
    assert!(build(3, 3, options(0, 1, 0.0)).contains("loader threads is 0"));
    assert!(build(3, 3, options(1, 0, 0.0)).contains("prefetched batches is 0"));
    assert!(build(3, 3, options(1, 1, 1.1)).contains("max-corrupt is 1.1"));
    assert!(build(3, 3, options(1, 1, f64::NAN)).contains("max-corrupt is NaN"));
}
