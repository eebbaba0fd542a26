//! Evaluation on cases that can be reckoned by hand, and its errors.

mod files;

use std::fs;

use detection::data::GroundTruth;
use detection::evaluation::{
    AnalysisOptions, CocoEvaluator, Detection, ErrorKind, Evaluation, EvaluatorOptions,
    ImageDetections, Kind, Report, RleMask, analyse, category_ids, category_names, results,
};
use detection::structures::Bitmap;
use hotcoco::COCO;
use serde_json::{Value, json};

const SIDE: usize = 100;

fn mask([x, y, w, h]: [f64; 4]) -> RleMask {
    let inside = |at: usize| {
        let (px, py) = ((at % SIDE) as f64 + 0.5, (at / SIDE) as f64 + 0.5);
        u8::from(px > x && px < x + w && py > y && py < y + h)
    };
    let pixels = (0..SIDE * SIDE).map(inside).collect();
    RleMask::encode(&Bitmap { height: SIDE, width: SIDE, pixels }).unwrap()
}

fn found(class: usize, score: f64, bbox: [f64; 4]) -> Detection {
    Detection { class, score, bbox, mask: Some(mask(bbox)) }
}

fn object(id: u64, image_id: u64, category_id: u64, [x, y, w, h]: [f64; 4]) -> Value {
    json!({
        "id": id, "image_id": image_id, "category_id": category_id, "iscrowd": 0, "area": w * h,
        "bbox": [x, y, w, h], "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
    })
}

fn dataset(images: &[u64], objects: &[Value]) -> Value {
    let image = |id: &u64| json!({"id": id, "file_name": "", "height": SIDE, "width": SIDE});
    json!({
        "images": images.iter().map(image).collect::<Vec<_>>(),
        "annotations": objects,
        "categories": [{"id": 9, "name": "dog"}, {"id": 4, "name": "cat"}],
    })
}

fn coco(dataset: Value) -> GroundTruth {
    COCO::from_dataset(serde_json::from_value(dataset).unwrap()).into()
}

/// A cat at the left of image 1, a dog in the middle of images 1 and 2.
const CAT: [f64; 4] = [0.0, 0.0, 20.0, 20.0];
const DOG: [f64; 4] = [40.0, 40.0, 40.0, 40.0];

fn two_images() -> GroundTruth {
    let objects = [object(1, 1, 4, CAT), object(2, 1, 9, DOG), object(3, 2, 9, DOG)];
    coco(dataset(&[1, 2], &objects))
}

fn evaluate(
    truth: &GroundTruth,
    options: EvaluatorOptions,
    images: Vec<(u64, Vec<Detection>)>,
) -> Evaluation {
    let mut evaluator = CocoEvaluator::new(truth.clone(), options).unwrap();
    for (image, detections) in images {
        evaluator.add(image, detections).unwrap();
    }
    evaluator.finish().unwrap()
}

/// COCO adds the smallest step above 1 to the denominator of each precision.
fn is_one(figure: f64) -> bool {
    (figure - 1.0).abs() < 1e-12
}

#[test]
fn classes_are_numbered_by_category_id() {
    let truth = two_images();
    assert_eq!(category_ids(&truth), [4, 9]);
    assert_eq!(category_names(&truth), ["cat", "dog"]);
}

#[test]
fn figures_are_those_reckoned_by_hand() {
    // The cat is found; of the dogs the one in image 1, after a dog where
    // nothing is, with an IoU of 30 of 40 columns: .75.
    let truth = two_images();
    let first = vec![
        found(0, 0.9, CAT),
        found(1, 0.8, [0.0, 60.0, 30.0, 30.0]),
        found(1, 0.7, [40.0, 40.0, 30.0, 40.0]),
    ];
    let evaluation = evaluate(&truth, EvaluatorOptions::default(), vec![(1, first)]);
    let report = &evaluation.report;
    assert_eq!(report.images, 2);
    for (kind, section) in report.sections() {
        // Dogs: precision 1/2 up to recall 1/2 (51 of 101 points) at the six
        // IoUs up to .75. Cats: all right.
        let dog = 0.5 * 51.0 / 101.0;
        let figures = section.figures;
        let near = |value: f64, expected: f64| {
            assert!((value - expected).abs() < 1e-12, "{kind:?}: {value}, not {expected}");
        };
        near(figures.ap50, (1.0 + dog) / 2.0);
        near(figures.ap75, (1.0 + dog) / 2.0);
        near(figures.ap, (1.0 + 0.6 * dog) / 2.0);
        near(figures.ap_small, 1.0);
        // What lies where nothing is, is small and does not count among the medium.
        near(figures.ap_medium, 0.6 * 51.0 / 101.0);
        near(figures.ap_large, -1.0);
        // With one detection a class, the dog where nothing is takes the place.
        near(figures.ar1, 0.5);
        near(figures.ar_all, (1.0 + 0.5 * 0.6) / 2.0);
        near(section.classes[0].ap, 1.0);
        near(section.classes[1].ap, 0.6 * dog);
        near(section.classes[1].ap50, dog);
        near(section.classes[1].ar_all, 0.3);
        let curves = evaluation.precision_recall(kind, 0).unwrap();
        near(curves.average_precision(1).unwrap(), dog);
        near(curves.mean().unwrap()[50], 0.75);
        near(curves.mean().unwrap()[51], 0.5);
        let strict = evaluation.precision_recall(kind, 6).unwrap();
        near(strict.average_precision(1).unwrap(), 0.0);
    }
}

#[test]
fn reports_survive_json_and_print() {
    let truth = two_images();
    let perfect = vec![(1, vec![found(0, 0.9, CAT), found(1, 0.8, DOG)])];
    let report = evaluate(&truth, EvaluatorOptions::default(), perfect).report;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["bbox"]["classes"][0]["name"], "cat");
    assert!(is_one(json["segm"]["APs"].as_f64().unwrap()));
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    let scalars = report.scalars();
    assert_eq!(scalars.len(), 24);
    assert!(scalars[3].0 == "bbox/APs" && is_one(scalars[3].1), "{scalars:?}");
    assert_eq!(scalars[23].0, "segm/ARl");
    let text = report.to_string();
    let line = " Average Precision  (AP) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 1.000";
    assert_eq!(text.lines().count(), 26);
    assert!(text.starts_with("bbox\n") && text.contains(line), "{text}");
    let table = report.class_table();
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(
        rows[1],
        ["cat", "100.0", "100.0", "100.0", "100.0", "100.0", "100.0", "100.0", "100.0"]
    );
    assert_eq!(rows[2][..3], ["dog", "50.5", "50.5"]);
}

#[test]
fn only_the_images_asked_for_count() {
    let truth = two_images();
    let options = EvaluatorOptions { images: Some(vec![1]), ..EvaluatorOptions::default() };
    let perfect = vec![found(0, 0.9, CAT), found(1, 0.8, DOG)];
    let report = evaluate(&truth, options.clone(), vec![(1, perfect)]).report;
    assert!(report.images == 1 && is_one(report.bbox.unwrap().figures.ap));
    let mut evaluator = CocoEvaluator::new(truth.clone(), options).unwrap();
    let message = evaluator.add(2, Vec::new()).unwrap_err().to_string();
    assert!(message.contains("image is 2, but it was added before, or is not"), "{message}");
    let options = EvaluatorOptions { images: Some(vec![3]), ..EvaluatorOptions::default() };
    let message = CocoEvaluator::new(truth, options).err().unwrap().to_string();
    assert_eq!(message, "image to evaluate is 3, but the ground truth has no such id");
}

#[test]
fn many_images_in_any_order_are_kept_in_order() {
    // More than two batches of images.
    let ids: Vec<u64> = (1..=300).collect();
    let objects: Vec<Value> = ids.iter().map(|id| object(*id, *id, 4, CAT)).collect();
    let truth = coco(dataset(&ids, &objects));
    let options = EvaluatorOptions { keep_detections: true, ..EvaluatorOptions::default() };
    let images: Vec<_> =
        ids.iter().rev().step_by(2).map(|id| (*id, vec![found(0, 0.5, CAT)])).collect();
    let evaluation = evaluate(&truth, options, images);
    let figures = evaluation.report.segm.unwrap().figures;
    assert_eq!((evaluation.report.images, figures.ar_all), (300, 0.5));
    let kept = evaluation.detections.unwrap();
    assert_eq!(kept.len(), 150);
    assert!(kept.is_sorted_by_key(|image| image.image_id));
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let truth = two_images();
    let mut evaluator = CocoEvaluator::new(truth, EvaluatorOptions::default()).unwrap();
    let mut refuse = |image: u64, detection: Detection| {
        evaluator.add(image, vec![detection]).unwrap_err().to_string()
    };
    let good = found(0, 0.5, CAT);
    assert_eq!(refuse(7, good.clone()), "image is 7, but the ground truth has no such id");
    let message = refuse(1, Detection { class: 2, ..good.clone() });
    assert_eq!(
        message,
        "class of a detection in image 1 is 2, but the data set has 2 classes, the first with \
         number 0"
    );
    let message = refuse(1, Detection { score: f64::NAN, ..good.clone() });
    assert!(message.contains("score of a detection in image 1 is NaN"), "{message}");
    for bbox in [[0.0, f64::NAN, 1.0, 1.0], [0.0, f64::INFINITY, 1.0, 1.0]] {
        let message = refuse(1, Detection { bbox, ..good.clone() });
        assert!(message.starts_with("box of a detection in image 1 is ["), "{message}");
    }
    let message = refuse(1, Detection { mask: None, ..good.clone() });
    assert!(message.contains("mask of a detection in image 1 is missing"), "{message}");
    let other = Bitmap { height: 2, width: 3, pixels: vec![1; 6] };
    let mask = Some(RleMask::encode(&other).unwrap());
    let message = refuse(1, Detection { mask, ..good.clone() });
    assert!(message.ends_with("is 2×3, but the image has 100×100"), "{message}");
    // None of these has used up the image.
    evaluator.add(1, vec![good.clone()]).unwrap();
    assert!(evaluator.add(1, vec![good]).unwrap_err().to_string().contains("added before"));
}

#[test]
fn ground_truth_that_cannot_be_scored_is_refused() {
    let refuse = |dataset: Value| {
        let evaluator = CocoEvaluator::new(coco(dataset), EvaluatorOptions::default());
        evaluator.err().unwrap().to_string()
    };
    let mut boxes = dataset(&[1], &[object(5, 1, 4, CAT)]);
    boxes["annotations"][0]["segmentation"] = Value::Null;
    let masks = EvaluatorOptions { kinds: vec![Kind::Segm], ..EvaluatorOptions::default() };
    let message = CocoEvaluator::new(coco(boxes), masks).err().unwrap().to_string();
    assert!(message.contains("number of objects with a mask is 0"), "{message}");
    let few = EvaluatorOptions { max_detections: 10, ..EvaluatorOptions::default() };
    let message = CocoEvaluator::new(two_images(), few).err().unwrap().to_string();
    assert!(message.starts_with("max-detections is 10, but"), "{message}");

    let mut unsized_image = dataset(&[1], &[]);
    unsized_image["images"][0]["height"] = json!(0);
    let message = refuse(unsized_image);
    assert!(message.contains("size of image 1 is 0×100"), "{message}");
    let mut nameless = dataset(&[1], &[]);
    nameless["categories"] = json!([]);
    assert!(refuse(nameless).contains("number of categories in the ground truth is 0"));
}

#[test]
fn objects_without_a_mask_are_left_out_of_mask_ap_alone() {
    // The dog of image 2 has none: of boxes half the dogs are found, of masks all.
    let objects = [object(1, 1, 4, CAT), object(2, 1, 9, DOG), object(3, 2, 9, DOG)];
    let mut some = dataset(&[1, 2], &objects);
    some["annotations"][2]["segmentation"] = Value::Null;
    let truth = coco(some.clone());
    let evaluator = CocoEvaluator::new(&truth, EvaluatorOptions::default()).unwrap();
    let note = "left out of mask AP, without a mask: 1 object, annotation 3";
    assert_eq!(evaluator.notes(), [note]);
    let found = vec![(1, vec![found(0, 0.9, CAT), found(1, 0.8, DOG)])];
    let report = evaluate(&truth, EvaluatorOptions::default(), found.clone()).report;
    let recalls = report.sections().map(|(_, section)| section.figures.ar_all);
    assert_eq!(recalls.collect::<Vec<_>>(), [0.75, 1.0]);

    // Without any mask there are no figures of masks.
    for object in some["annotations"].as_array_mut().unwrap() {
        object["segmentation"] = Value::Null;
    }
    let truth = coco(some);
    let evaluator = CocoEvaluator::new(&truth, EvaluatorOptions::default()).unwrap();
    assert_eq!(evaluator.notes(), ["none of the 3 objects has a mask: boxes alone are scored"]);
    let report = evaluate(&truth, EvaluatorOptions::default(), found).report;
    assert!(report.bbox.is_some() && report.segm.is_none());
    assert!(!report.to_string().contains("segm"), "{report}");
}

#[test]
fn figures_are_called_after_the_detections_that_count() {
    let truth = two_images();
    let options = EvaluatorOptions { max_detections: 300, ..EvaluatorOptions::default() };
    let report = evaluate(&truth, options, vec![(1, vec![found(0, 0.9, CAT)])]).report;
    let json = serde_json::to_value(&report).unwrap();
    assert!(json["bbox"]["AR300"].is_number() && json["bbox"]["AR100"].is_null(), "{json}");
    assert!(json["bbox"]["classes"][0]["AR300"].is_number(), "{json}");
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    assert_eq!(report.to_string().matches("maxDets=300 ]").count(), 20);
    assert!(report.class_table().contains("bbox AR300"), "{}", report.class_table());
}

#[test]
fn errors_are_told_apart() {
    let cats: Vec<[f64; 4]> = (0..5).map(|at| [20.0 * f64::from(at), 0.0, 10.0, 10.0]).collect();
    let objects: Vec<Value> = (1..).zip(&cats).map(|(id, bbox)| object(id, 1, 4, *bbox)).collect();
    let truth = coco(dataset(&[1], &objects));
    let detections = vec![
        found(0, 0.9, cats[0]),
        // The first again; the second by 4 of 16 columns; the third as a dog;
        // the fourth as a dog by 4 of 16; something where nothing is.
        found(0, 0.8, cats[0]),
        found(0, 0.7, [26.0, 0.0, 10.0, 10.0]),
        found(1, 0.6, cats[2]),
        found(1, 0.5, [66.0, 0.0, 10.0, 10.0]),
        found(0, 0.4, [0.0, 80.0, 10.0, 10.0]),
        // Too weak for the matrix.
        found(1, 0.1, cats[0]),
    ];
    let images = [ImageDetections { image_id: 1, detections }];
    for kind in [Kind::Bbox, Kind::Segm] {
        let analysis = analyse(truth.clone(), &images, kind, &AnalysisOptions::default()).unwrap();
        let count = |kind| analysis.errors.iter().find(|error| error.kind == kind).unwrap().count;
        assert_eq!(count(ErrorKind::Duplicate), Some(1), "{kind:?}");
        assert_eq!(count(ErrorKind::Location), Some(1), "{kind:?}");
        // With the weak one.
        assert_eq!(count(ErrorKind::Class), Some(2), "{kind:?}");
        assert_eq!(count(ErrorKind::Both), Some(1), "{kind:?}");
        assert_eq!(count(ErrorKind::Background), Some(1), "{kind:?}");
        // The third could be had by its class, the second by its place.
        assert_eq!(count(ErrorKind::Missed), Some(2), "{kind:?}");
        assert_eq!(count(ErrorKind::FalsePositive), None);
        // One of five found, first of all: precision 1 up to recall .2.
        assert!((analysis.ap - 21.0 / 101.0).abs() < 1e-12, "{}", analysis.ap);

        let confusion = &analysis.confusion;
        assert_eq!(confusion.names, ["cat", "dog"]);
        assert_eq!(confusion.counts, [1, 1, 3, 0, 0, 0, 3, 1, 0], "{kind:?}");
        let table = analysis.to_string();
        assert!(table.starts_with(&format!("{} AP50 20.8; ", kind.name())), "{table}");
        assert_eq!(table.lines().count(), 10);
    }
}
