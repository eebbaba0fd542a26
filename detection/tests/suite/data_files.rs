//! Annotation files: what is read, what is refused, and what a report says of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::LoaderOptions;
use detection::data::Share;
use detection::data::{
    CheckOptions, CocoDataset, DetectionLoader, Id, Severity, TrainLoaderOptions, TrainTransform,
    check,
};
use detection::structures::InstanceMask;
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
    let classes = [90u64, 4, 5].map(|id| dataset.class(id));
    assert_eq!(classes, [Some(1), Some(0), None]);
    assert_eq!(dataset.warnings(), Vec::<String>::new());
    assert_eq!((dataset.object_count(0), dataset.object_count(1)), (2, 0));

    let objects = dataset.objects(0).unwrap();
    assert_eq!(objects.classes, [1, 0]);
    assert_eq!(objects.boxes, [[5.0, 5.0, 15.0, 15.0], [1.0, 0.0, 3.0, 30.0]]);
    assert!(matches!(&objects.masks[0], InstanceMask::Polygons(polygons) if polygons.len() == 1));
    assert!(matches!(&objects.masks[1], InstanceMask::Rle(_)), "{:?}", objects.masks[1]);
    assert_eq!(objects.masks[1].bounding_box(), Some([1.0, 0.0, 3.0, 30.0]));
    assert_eq!(objects.masks[1].to_bitmap((30, 40)).unwrap().area(), 60);

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
    let without = |field: &'static str| {
        changed(move |v| {
            for image in v["images"].as_array_mut().unwrap() {
                image[field] = Value::Null;
            }
        })
    };
    let cases: [(Value, &str); 16] = [
        (changed(|v| v["images"] = json!([])), "1 file without a record in `images`"),
        (changed(|v| v["categories"] = json!([])), "1 file without a record in `categories`"),
        (changed(|v| v["images"][1]["id"] = 7.into()), "1 image ids are used twice: image 7"),
        (changed(|v| v["categories"][1]["id"] = 90.into()), "category ids are used twice"),
        (without("width"), "2 images lack a width or height and are left out: image 7, image 3"),
        (without("file_name"), "lack a file_name"),
        (
            changed(|v| v["annotations"][2]["category_id"] = 5.into()),
            "1 annotations have a category_id that is not in `categories`: annotation 3 (category 5)",
        ),
        (changed(|v| v["images"] = json!({"7": {}})), "expected a list of images"),
        (json!([{"image_id": 1, "score": 1}]), "`detect evaluate --results`"),
        (json!([{"image_id": 1, "bbox": []}]), "a list of annotations alone"),
        (json!([1, 2]), "it is a list of 2"),
        (json!({"a.jpg123": {"filename": "a.jpg", "regions": []}}), "labels of VIA"),
        (json!({"version": "5", "shapes": [], "imagePath": "a.jpg"}), "LabelMe"),
        (json!({"nc": 2, "names": ["a", "b"]}), "YOLO"),
        (json!({"pictures": [], "boxes": []}), "it has boxes, pictures"),
        (json!("text"), "not an annotation file in COCO's format"),
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
        // The evaluator tells of masks that are not there.
        let scored = dataset.scoring_warnings();
        assert_eq!(scored.len(), usize::from(code != "no_mask"), "{scored:?}");
        assert!(!scored.iter().any(|note| note.contains("train")), "{scored:?}");
        assert!(!scored.iter().any(|note| note.contains("boxes") && note.contains("cut")));
    }
}

#[test]
fn classes_of_two_files_are_matched_by_name() {
    let (_one, path) = folder(&small());
    let dataset = CocoDataset::open(&path, None).unwrap();
    let compare = |change: fn(&mut Value)| {
        let (_two, path) = folder(&changed(|v| {
            v["annotations"] = json!([]);
            change(v);
        }));
        let other = CocoDataset::open(&path, None).unwrap();
        dataset.require_same_classes(&other).map_err(|error| error.to_string())
    };
    assert_eq!(compare(|_| ()).unwrap(), [0, 1]);
    assert_eq!(compare(|v| v["categories"][1]["id"] = 11.into()).unwrap(), [0, 1]);
    // Zebra, 90, comes first if the ape is 91.
    assert_eq!(compare(|v| v["categories"][1]["id"] = 91.into()).unwrap(), [1, 0]);
    assert_eq!(compare(|v| v["categories"][1]["id"] = "ape".into()).unwrap(), [1, 0]);
    let error = compare(|v| v["categories"][1]["name"] = "bee".into()).unwrap_err();
    assert!(error.ends_with("it lacks \"ape\"; it has \"bee\" besides"), "{error}");
    let error = compare(|v| v["categories"][1]["name"] = "zebra".into()).unwrap_err();
    assert!(error.ends_with("it lacks \"ape\""), "{error}");
    let error = compare(|v| v["categories"].as_array_mut().unwrap().truncate(1)).unwrap_err();
    assert!(error.ends_with("it lacks \"ape\""), "{error}");
}

#[test]
fn a_data_set_without_objects_cannot_be_trained_on() {
    let (_folder, path) = folder(&changed(|v| v["annotations"] = json!([])));
    let dataset = Arc::new(CocoDataset::open(&path, None).unwrap());
    let loader = LoaderOptions { threads: 1, prefetch: 1, max_corrupt: 0.0 };
    let options =
        TrainLoaderOptions { batch_size: 4, share: Share::ALL, seed: 9, keep_empty: true, loader };
    let refused = DetectionLoader::training(dataset, TrainTransform::detectron2(), &options);
    assert!(refused.err().unwrap().to_string().contains("no image has an object"));
}

#[test]
fn boxes_alone_do_for_a_detector_of_boxes() {
    let missing = |object: &mut Value| drop(object.as_object_mut().unwrap().remove("segmentation"));
    let cases: [fn(&mut Value); 4] = [
        missing,
        |object| object["segmentation"] = Value::Null,
        |object| object["segmentation"] = json!([]),
        |object| object["segmentation"] = json!([[]]),
    ];
    for change in cases {
        let (_folder, path) = folder(&changed(|v| {
            v["annotations"].as_array_mut().unwrap().iter_mut().for_each(change);
        }));
        let dataset = CocoDataset::open_with(&path, None, false).unwrap();
        assert_eq!(dataset.warnings(), Vec::<String>::new());
        let objects = dataset.objects(0).unwrap();
        assert_eq!(objects.boxes, [[5.0, 5.0, 15.0, 15.0], [1.0, 0.0, 3.0, 30.0]]);
        // What a crop leaves of them are the boxes cut, as detectron2 has it without masks.
        let mut cropped = objects.clone();
        cropped.crop(data::CropBox { left: 2, top: 7, height: 20, width: 20 });
        assert_eq!(cropped.boxes, [[3.0, 0.0, 13.0, 8.0], [0.0, 0.0, 1.0, 20.0]]);

        let dataset = Arc::new(CocoDataset::open(&path, None).unwrap());
        assert_eq!(dataset.findings()[0].code, "no_mask");
        let loader = LoaderOptions { threads: 1, prefetch: 1, max_corrupt: 0.0 };
        let options = TrainLoaderOptions {
            batch_size: 1,
            share: Share::ALL,
            seed: 9,
            keep_empty: false,
            loader,
        };
        let refused = DetectionLoader::training(dataset, TrainTransform::detectron2(), &options);
        let message = refused.err().unwrap().to_string();
        assert!(message.contains("none of its 3 objects has a mask: --masks false"), "{message}");
    }
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
    assert_eq!((report.images, report.objects, report.crowds, report.trainable), (3, 4, 1, 1));
    assert_eq!((report.empty_images, report.missing_files), (2, 1));
    assert_eq!((report.small, report.medium, report.large), (1, 0, 0));
    assert_eq!(report.aspect_ratios, [1, 0, 0, 0, 0, 0]);
    assert_eq!(report.masks, [0, 1, 0]);
    let ape = &report.classes[0];
    assert_eq!(
        (ape.name.as_str(), ape.id.clone(), ape.objects, ape.crowds),
        ("ape", Id::from(4u64), 1, 1)
    );
    let found = |code: &str| {
        let finding = report.findings.iter().find(|finding| finding.code == code);
        finding.unwrap_or_else(|| panic!("{code} is not in {:?}", report.findings)).clone()
    };
    assert_eq!(found("unknown_category").severity, Severity::Error);
    assert_eq!(found("missing_file").examples, ["gone.png"]);
    assert_eq!(found("repeated_record").examples, ["annotation 3"]);
    assert!(found("unreadable_file").examples[0].contains("its record says 31×40"));
    let text = report.to_string();
    assert!(text.contains("error: 1 annotations have a category_id"), "{text}");
    assert!(text.contains("zebra") && text.contains("3 images"), "{text}");
    let value: Value = serde_json::to_value(&report).unwrap();
    assert_eq!(value["classes"][1]["name"], "zebra");
}
