//! The demo's data set, and batches of it: what they hold and in which order they come.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::LoaderOptions;
use data::rng::Rng;
use detection::data::Share;
use detection::data::{
    CheckOptions, CocoDataset, DetectionLoader, EvalTransform, TrainLoaderOptions, TrainTransform,
    check,
};
use detection::demo::{self, DemoOptions};
use image::RgbImage;
use tempfile::TempDir;

/// Noise, since the demo needs some photographs.
fn photographs(folder: &Path) -> PathBuf {
    let photos = folder.join("photos");
    fs::create_dir_all(&photos).unwrap();
    for number in 0..3u64 {
        let mut rng = Rng::new(number, &[]);
        let (width, height) = if number == 0 { (300, 240) } else { (240, 300) };
        let base: [f64; 3] = std::array::from_fn(|_| rng.between(40.0, 200.0));
        let photo = RgbImage::from_fn(width, height, |_, _| {
            image::Rgb(base.map(|value| (value + rng.between(-20.0, 20.0)) as u8))
        });
        photo.save(photos.join(format!("{number}.png"))).unwrap();
    }
    photos
}

fn demo(train: usize, seed: u64) -> (TempDir, demo::Demo) {
    let folder = tempfile::tempdir().unwrap();
    let options = DemoOptions { train, val: 6, size: 96, seed, ..DemoOptions::default() };
    let made = demo::make(&photographs(folder.path()), &folder.path().join("demo"), &options);
    (folder, made.unwrap())
}

fn open(split: &demo::Split) -> Arc<CocoDataset> {
    Arc::new(CocoDataset::open(&split.annotations, None).unwrap())
}

fn train_options(threads: usize, keep_empty: bool, max_corrupt: f64) -> TrainLoaderOptions {
    let loader = LoaderOptions { threads, prefetch: 2, max_corrupt };
    TrainLoaderOptions { batch_size: 4, share: Share::ALL, seed: 9, keep_empty, loader }
}

fn training(dataset: &Arc<CocoDataset>, options: &TrainLoaderOptions) -> DetectionLoader {
    let transform = TrainTransform::multi_scale(vec![60, 72], 120).unwrap();
    DetectionLoader::training(Arc::clone(dataset), transform, options).unwrap()
}

/// Everything a batch holds, as something to compare.
fn content(loader: &DetectionLoader, epochs: std::ops::Range<u64>, start: u64) -> Vec<String> {
    let batches = loader.batches(epochs, start).map(|batch| {
        let batch = batch.unwrap();
        let samples = batch.images.iter().map(|sample| {
            let bytes: Vec<u8> = Vec::try_from(&sample.image.flatten(0, -1)).unwrap();
            let boxes: Vec<f32> =
                Vec::try_from(&sample.targets.boxes.tensor().flatten(0, -1)).unwrap();
            let sum: u64 = bytes.iter().zip(1..).map(|(&byte, n)| u64::from(byte) * n).sum();
            let (id, masks) = (sample.image_id, &sample.targets.masks);
            format!("{id} {} {:?} {sum} {boxes:?} {masks:?}", sample.position, sample.image.size())
        });
        format!("{} {} {:?}", batch.epoch, batch.step, samples.collect::<Vec<_>>())
    });
    batches.collect()
}

#[test]
fn batches_are_the_same_for_any_threads_and_start() {
    let (_folder, demo) = demo(22, 0);
    let dataset = open(&demo.train);
    let one = training(&dataset, &train_options(1, false, 0.0));
    let all = content(&one, 0..2, 0);
    // Picture 19 has no object.
    assert_eq!((one.image_count(), one.steps(), all.len()), (21, 6, 12));
    let three = training(&dataset, &train_options(3, false, 0.0));
    assert_eq!(content(&three, 0..2, 0), all);
    assert_eq!(content(&three, 0..2, 5), all[5..]);
    assert_eq!(content(&three, 0..2, 7), all[7..]);
    assert_ne!(all[0].replacen('0', "", 1), all[6].replacen('1', "", 1));
}

#[test]
fn samples_hold_what_the_model_takes() {
    let (_folder, demo) = demo(22, 1);
    let dataset = open(&demo.train);
    let loader = training(&dataset, &train_options(2, true, 0.0));
    let (mut seen, mut grouped) = (BTreeSet::new(), 0);
    for batch in loader.batches(0..1, 0) {
        let batch = batch.unwrap();
        let positions: Vec<u64> = batch.images.iter().map(|sample| sample.position).collect();
        assert_eq!(positions, batch.positions);
        for sample in &batch.images {
            let [3, height, width] = sample.image.size()[..] else { panic!("{:?}", sample.image) };
            assert_eq!(sample.image.kind(), tch::Kind::Uint8);
            assert!(height.min(width) == 60 || height.min(width) == 72);
            let record = dataset.record(sample.index);
            assert_eq!(sample.size, (record.height as usize, record.width as usize));
            assert_eq!(
                (sample.image_id, record.width > record.height),
                (record.id, width > height)
            );
            let targets = &sample.targets;
            assert_eq!(targets.boxes.len() as usize, dataset.object_count(sample.index));
            assert_eq!(targets.boxes.tensor().kind(), tch::Kind::Float);
            assert_eq!(targets.classes.kind(), tch::Kind::Int64);
            assert_eq!(targets.masks.len() as i64, targets.boxes.len());
            seen.insert(sample.index);
        }
        let wide = batch.images.iter().filter(|s| s.image.size()[2] > s.image.size()[1]).count();
        grouped += usize::from(wide == 0 || wide == batch.images.len());
    }
    assert_eq!(seen.len(), 22);
    assert!(grouped >= 4, "{grouped} of 6 batches are of one orientation");
}

#[test]
fn evaluation_has_every_image_once_in_order() {
    let (_folder, demo) = demo(22, 0);
    let dataset = open(&demo.train);
    let options = LoaderOptions { threads: 2, prefetch: 2, max_corrupt: 0.0 };
    let transform = EvalTransform { short: 48, max: 80 };
    let loader =
        DetectionLoader::evaluation(Arc::clone(&dataset), transform, 4, &options, Share::ALL)
            .unwrap();
    let batches: Vec<_> = loader.batches(0..1, 0).map(Result::unwrap).collect();
    let sizes: Vec<usize> = batches.iter().map(|batch| batch.images.len()).collect();
    assert_eq!(sizes, [4, 4, 4, 4, 4, 2]);
    let order: Vec<usize> = batches.iter().flat_map(|b| &b.images).map(|s| s.index).collect();
    assert_eq!(order, (0..22).collect::<Vec<_>>());
}

#[test]
fn files_that_cannot_be_read_are_replaced_listed_and_limited() {
    let (_folder, demo) = demo(22, 0);
    let path = |number: usize| demo.train.images.join(format!("{number:06}.jpg"));
    fs::remove_file(path(3)).unwrap();
    fs::write(path(8), b"no picture").unwrap();
    // The right format, the wrong size.
    fs::copy(path(0), path(4)).unwrap();
    let dataset = open(&demo.train);
    assert!(dataset.warnings()[0].contains("1 of 22 image files are missing"));
    assert!(dataset.warnings()[0].ends_with("000003.jpg"));

    let loader = training(&dataset, &train_options(2, false, 0.2));
    assert_eq!(loader.corrupt_files().len(), 1);
    let again = training(&dataset, &train_options(1, false, 0.2));
    assert_eq!(content(&loader, 0..2, 0), content(&again, 0..2, 0));
    let report = loader.corrupt_files().report();
    let names: Vec<&str> = report.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["000003.jpg", "000004.jpg", "000008.jpg"]);
    assert!(report[1].1.contains("72×96 pixels, but its record says 96×72"), "{report:?}");

    let options = LoaderOptions { threads: 2, prefetch: 2, max_corrupt: 0.2 };
    let transform = EvalTransform { short: 48, max: 80 };
    let loader =
        DetectionLoader::evaluation(Arc::clone(&dataset), transform, 4, &options, Share::ALL)
            .unwrap();
    let read: Vec<usize> =
        loader.batches(0..1, 0).flat_map(|b| b.unwrap().images).map(|s| s.index).collect();
    assert_eq!(read, (0..22).filter(|i| ![3, 4, 8].contains(i)).collect::<Vec<_>>());

    let options = train_options(1, false, 0.0);
    let refused = DetectionLoader::training(dataset, TrainTransform::detectron2(), &options);
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("000003.jpg: the file is missing"), "{message}");
}

#[test]
fn the_demo_is_deterministic_and_uses_the_whole_format() {
    let (_one, first) = demo(26, 5);
    let (_two, second) = demo(26, 5);
    let (_three, other) = demo(26, 6);
    let read = |path: &Path| fs::read(path).unwrap();
    assert_eq!(read(&first.train.annotations), read(&second.train.annotations));
    assert_ne!(read(&first.train.annotations), read(&other.train.annotations));
    let picture = |demo: &demo::Demo| read(&demo.val.images.join("000002.jpg"));
    assert_eq!(picture(&first), picture(&second));

    let options = CheckOptions { read_images: true, threads: 2 };
    let report = check(&first.train.annotations, None, &options).unwrap();
    assert!(report.is_usable(), "{report}");
    let codes: Vec<&str> = report.findings.iter().map(|f| f.code.as_str()).collect();
    // Few pictures have few objects of a class; nothing else is to be found.
    assert!(codes.iter().all(|&code| code == "low_instance_category"), "{report}");
    assert_eq!((report.images, report.classes.len(), report.empty_images), (26, 4, 1));
    let [polygons, runs, none] = report.masks;
    assert!(polygons > 10 && runs > 10 && none == 0, "{report}");
    assert!(report.crowds >= 2 && report.trainable == polygons + runs, "{report}");
    assert!(fs::read_to_string(&first.train.annotations).unwrap().contains(r#""counts":"#));
}

#[test]
fn the_demo_refuses_what_it_cannot_make() {
    let folder = tempfile::tempdir().unwrap();
    let photos = photographs(folder.path());
    let refused = |options| demo::make(&photos, folder.path(), &options).unwrap_err().to_string();
    let normal = DemoOptions::default();
    assert!(refused(DemoOptions { classes: 7, ..normal.clone() }).contains("classes is 7"));
    assert!(refused(DemoOptions { size: 10, ..normal.clone() }).contains("picture size is 10"));
    assert!(refused(DemoOptions { train: 0, ..normal.clone() }).contains("training pictures is 0"));
    let small = folder.path().join("small");
    fs::create_dir_all(&small).unwrap();
    RgbImage::new(100, 100).save(small.join("tiny.png")).unwrap();
    let message = demo::make(&small, folder.path(), &normal).unwrap_err().to_string();
    assert!(message.contains("214 pixels or more"), "{message}");
}
