//! Data sets from files to batches: what is read, what is refused, and in which order it comes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use detection::data::{
    CheckOptions, CocoDataset, DetectionLoader, EvalTransform, Severity, TrainLoaderOptions,
    TrainTransform, check,
};
use detection::demo::{self, DemoOptions};
use detection::structures::InstanceMask;
use engine::data::LoaderOptions;
use engine::rng::Rng;
use image::RgbImage;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with `annotations` of three images, the first two of which are there.
fn folder(annotations: &Value) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for (name, width, height) in [("a.png", 40, 30), ("b.png", 30, 40)] {
        RgbImage::from_pixel(width, height, image::Rgb([9, 120, 240]))
            .save(folder.path().join(name))
            .unwrap();
    }
    let path = folder.path().join("instances.json");
    fs::write(&path, annotations.to_string()).unwrap();
    (folder, path)
}

/// Two classes with ids out of order and with a gap; polygon, both kinds of run lengths, a crowd.
fn small() -> Value {
    json!({
        "images": [
            { "id": 7, "file_name": "a.png", "width": 40, "height": 30 },
            { "id": 3, "file_name": "b.png", "width": 30, "height": 40 },
        ],
        "categories": [{ "id": 90, "name": "zebra" }, { "id": 4, "name": "ape" }],
        "annotations": [
            { "id": 1, "image_id": 7, "category_id": 90, "iscrowd": 0, "area": 100.0,
              "bbox": [5, 5, 10, 10], "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]] },
            // Column by column: 60 pixels are two columns of 30.
            { "id": 2, "image_id": 7, "category_id": 4, "iscrowd": 0, "area": 60.0,
              "bbox": [1, 0, 2, 30], "segmentation": { "size": [30, 40], "counts": [30, 60, 1110] } },
            { "id": 3, "image_id": 7, "category_id": 4, "iscrowd": 1, "area": 30.0,
              "bbox": [0, 0, 1, 30], "segmentation": { "size": [30, 40], "counts": [0, 30, 1170] } },
        ],
    })
}

/// `small` with one change.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut value = small();
    change(&mut value);
    value
}

fn message(annotations: &Value) -> String {
    let (_folder, path) = folder(annotations);
    CocoDataset::open(&path, None).err().map(|e| e.to_string()).unwrap_or_default()
}

#[test]
fn reads_classes_boxes_and_every_kind_of_mask() {
    let (_folder, path) = folder(&small());
    let dataset = CocoDataset::open(&path, None).unwrap();
    assert_eq!(dataset.names(), ["ape", "zebra"]);
    assert_eq!((dataset.class(90), dataset.class(4), dataset.class(5)), (Some(1), Some(0), None));
    assert_eq!(dataset.warnings(), Vec::<String>::new());
    assert_eq!((dataset.object_count(0), dataset.object_count(1)), (2, 0));

    let objects = dataset.objects(0).unwrap();
    assert_eq!(objects.classes, [1, 0]);
    assert_eq!(objects.boxes, [[5.0, 5.0, 15.0, 15.0], [1.0, 0.0, 3.0, 30.0]]);
    assert!(matches!(&objects.masks[0], InstanceMask::Polygons(polygons) if polygons.len() == 1));
    let InstanceMask::Bitmap(bitmap) = &objects.masks[1] else { panic!("{:?}", objects.masks[1]) };
    assert_eq!(bitmap.bounding_box(), Some([1.0, 0.0, 3.0, 30.0]));
    assert_eq!(bitmap.area(), 60);

    // The same mask as the string that pycocotools.mask.encode makes of it.
    let compressed = changed(|v| v["annotations"][1]["segmentation"]["counts"] = "n0l1fR1".into());
    let (_folder, path) = self::folder(&compressed);
    let other = CocoDataset::open(&path, None).unwrap();
    assert_eq!(other.objects(0).unwrap(), objects);
}

#[test]
fn finds_the_images_beside_the_annotations() {
    let (folder, path) = folder(&small());
    let (annotations, train) = (folder.path().join("annotations"), folder.path().join("train"));
    fs::create_dir_all(&annotations).unwrap();
    fs::create_dir_all(&train).unwrap();
    for name in ["a.png", "b.png"] {
        fs::rename(folder.path().join(name), train.join(name)).unwrap();
    }
    let moved = annotations.join("instances_train.json");
    fs::rename(&path, &moved).unwrap();
    assert_eq!(CocoDataset::open(&moved, None).unwrap().folder(), train);
    assert_eq!(CocoDataset::open(&moved, Some(&train)).unwrap().folder(), train);
    let error = CocoDataset::open(&moved, Some(&annotations)).err().unwrap().to_string();
    assert!(error.contains("none of its 2 images is in") && error.contains("a.png"), "{error}");
    let error = CocoDataset::open(&moved, Some(Path::new("/nowhere"))).err().unwrap().to_string();
    assert!(error.contains("image folder is /nowhere"), "{error}");
}

#[test]
fn refuses_files_that_cannot_be_used() {
    let cases: [(Value, &str); 8] = [
        (changed(|v| v["images"] = json!([])), "1 file without a record in `images`"),
        (changed(|v| v["categories"] = json!([])), "1 file without a record in `categories`"),
        (changed(|v| v["images"][1]["id"] = 7.into()), "1 image ids are used twice: image 7"),
        (changed(|v| v["categories"][1]["id"] = 90.into()), "category ids are used twice"),
        (changed(|v| v["images"][0]["width"] = 0.into()), "lack a width or height: image 7"),
        (
            changed(|v| v["annotations"][2]["category_id"] = 5.into()),
            "1 annotations have a category_id that is not in `categories`: annotation 3 (category 5)",
        ),
        (changed(|v| v["images"][0]["id"] = "seven".into()), "not an annotation file in COCO's"),
        (changed(|v| v["images"][0]["file_name"] = "".into()), "lack a file_name"),
    ];
    for (annotations, expected) in cases {
        let message = message(&annotations);
        assert!(message.contains(expected), "{expected:?} is not in {message:?}");
        assert!(message.contains("instances.json"), "{message}");
    }
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    fs::write(&broken, br#"{"images": [{"id": 1,"#).unwrap();
    let error = CocoDataset::open(&broken, None).err().unwrap().to_string();
    assert!(error.contains("broken.json") && error.contains("line 1"), "{error}");
    let error = CocoDataset::open("/nowhere/x.json", None).err().unwrap().to_string();
    assert!(error.contains("/nowhere/x.json"), "{error}");
}

#[test]
fn objects_that_cannot_be_used_are_counted_and_left_out() {
    type Change = (fn(&mut Value), &'static str, usize);
    let cases: [Change; 10] = [
        (|a| a["image_id"] = 99.into(), "unknown_image", 1),
        (|a| a["segmentation"] = json!([[5, 5, 15, 5]]), "broken_mask", 1),
        (|a| a["segmentation"] = json!({ "size": [9, 9], "counts": [0, 81] }), "broken_mask", 1),
        (
            |a| a["segmentation"] = json!({ "size": [30, 40], "counts": [0, 9999] }),
            "broken_mask",
            1,
        ),
        (|a| a["segmentation"] = json!({ "size": [30, 40], "counts": [1200] }), "broken_mask", 1),
        (|a| drop(a.as_object_mut().unwrap().remove("segmentation")), "no_mask", 1),
        (|a| a["bbox"] = json!([5, 5, 0, 10]), "degenerate_box", 1),
        (|a| a["bbox"] = json!([100, 5, 10, 10]), "outside", 1),
        (|a| a["bbox"] = json!([5, 5, 10, 90]), "box_out_of_bounds", 2),
        (|a| drop(a.as_object_mut().unwrap().remove("bbox")), "no_box", 2),
    ];
    for (change, code, left) in cases {
        let (_folder, path) = folder(&changed(|v| change(&mut v["annotations"][0])));
        let dataset = CocoDataset::open(&path, None).unwrap();
        let codes: Vec<&str> = dataset.findings().iter().map(|f| f.code.as_str()).collect();
        assert_eq!(codes, [code]);
        assert_eq!((dataset.findings()[0].count, dataset.object_count(0)), (1, left), "{code}");
        assert!(dataset.warnings()[0].contains("annotation 1"), "{:?}", dataset.warnings());
    }
}

#[test]
fn classes_of_two_files_are_compared() {
    let (_one, path) = folder(&small());
    let dataset = CocoDataset::open(&path, None).unwrap();
    let (_two, path) = folder(&changed(|v| v["categories"][1]["name"] = "bee".into()));
    let other = CocoDataset::open(&path, None).unwrap();
    dataset.require_same_classes(&dataset).unwrap();
    let error = dataset.require_same_classes(&other).unwrap_err().to_string();
    assert!(error.contains("category 4 \"bee\" in place of 4 \"ape\""), "{error}");
}

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
    TrainLoaderOptions { batch_size: 4, seed: 9, keep_empty, loader }
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
    let loader = DetectionLoader::evaluation(Arc::clone(&dataset), transform, 4, &options).unwrap();
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
    let loader = DetectionLoader::evaluation(Arc::clone(&dataset), transform, 4, &options).unwrap();
    let read: Vec<usize> =
        loader.batches(0..1, 0).flat_map(|b| b.unwrap().images).map(|s| s.index).collect();
    assert_eq!(read, (0..22).filter(|i| ![3, 4, 8].contains(i)).collect::<Vec<_>>());

    let options = train_options(1, false, 0.0);
    let refused = DetectionLoader::training(dataset, TrainTransform::detectron2(), &options);
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("000003.jpg: the file is missing"), "{message}");
}

#[test]
fn a_data_set_without_objects_cannot_be_trained_on() {
    let (_folder, path) = folder(&changed(|v| v["annotations"] = json!([])));
    let dataset = Arc::new(CocoDataset::open(&path, None).unwrap());
    let options = train_options(1, true, 0.0);
    let refused = DetectionLoader::training(dataset, TrainTransform::detectron2(), &options);
    assert!(refused.err().unwrap().to_string().contains("no image has an object"));
}

#[test]
fn a_report_counts_and_finds() {
    let (_folder, path) = folder(&changed(|v| {
        v["images"][1]["width"] = 31.into();
        let crowd = v["annotations"][2].clone();
        v["annotations"].as_array_mut().unwrap().push(crowd);
        v["images"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "id": 11, "file_name": "gone.png", "width": 20, "height": 20 }));
        v["annotations"][0]["category_id"] = 5.into();
    }));
    let report = check(&path, None, &CheckOptions { read_images: true, threads: 2 }).unwrap();
    assert!(!report.is_usable());
    assert_eq!((report.images, report.objects, report.crowds, report.trainable), (3, 4, 2, 1));
    assert_eq!((report.empty_images, report.missing_files), (2, 1));
    assert_eq!((report.small, report.medium, report.large), (2, 0, 0));
    assert_eq!(report.aspect_ratios, [1, 0, 0, 1, 0, 0]);
    assert_eq!(report.masks, [1, 1, 0]);
    let ape = &report.classes[0];
    assert_eq!((ape.name.as_str(), ape.id, ape.objects, ape.crowds), ("ape", 4, 1, 2));
    let found = |code: &str| {
        let finding = report.findings.iter().find(|finding| finding.code == code);
        finding.unwrap_or_else(|| panic!("{code} is not in {:?}", report.findings)).clone()
    };
    assert_eq!(found("unknown_category").severity, Severity::Error);
    assert_eq!(found("missing_file").examples, ["gone.png"]);
    assert_eq!(found("duplicate_annotation_id").examples, ["annotation 3"]);
    assert!(found("unreadable_file").examples[0].contains("its record says 31×40"));
    let text = report.to_string();
    assert!(text.contains("error: 1 annotations have a category_id"), "{text}");
    assert!(text.contains("zebra") && text.contains("3 images"), "{text}");
    let value: Value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["classes"][1]["name"], "zebra");
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
    assert_eq!((report.images, report.classes.len(), report.empty_images), (26, 6, 1));
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
