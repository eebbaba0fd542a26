//! Results in files, our own and those of other programs.

use super::*;

#[test]
fn files_come_back_as_they_were_written() {
    let truth = two_images();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    // Numbers that a corner cannot give back.
    let bbox = [0.1, 0.2, 0.3, 0.7];
    let detections = vec![found(1, 1.0 / 3.0, bbox), found(0, 0.5, CAT)];
    let images = vec![ImageDetections { image_id: 2, detections }];

    results::write(&path, Kind::Bbox, &images, &truth).unwrap();
    let read = results::read(&path, &truth).unwrap();
    assert_eq!(read.kinds, [Kind::Bbox]);
    let mut boxes = images.clone();
    boxes[0].detections.iter_mut().for_each(|detection| detection.mask = None);
    assert_eq!(read.images, boxes);
    let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(json[0], json!({"image_id": 2, "category_id": 9, "bbox": bbox, "score": 1.0 / 3.0}));

    results::write(&path, Kind::Segm, &images, &truth).unwrap();
    let read = results::read(&path, &truth).unwrap();
    assert_eq!(read.kinds, [Kind::Segm]);
    assert_eq!(read.images[0].detections[1], found(0, 0.5, CAT));
    let json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(json[1]["segmentation"]["size"], json!([100, 100]));
    assert!(json[1]["segmentation"]["counts"].is_string() && json[1].get("bbox").is_none());

    // A failure leaves the file as it was.
    let before = fs::read(&path).unwrap();
    assert!(results::write(&path, Kind::Segm, &boxes, &truth).is_err());
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    assert!(
        results::write(&folder.path().join("no/such.json"), Kind::Bbox, &images, &truth).is_err()
    );
}

/// What is read of `content`, or why it is refused.
fn read_results(truth: &GroundTruth, content: &str) -> Result<results::Results, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    fs::write(&path, content).unwrap();
    results::read(&path, truth).map_err(|error| {
        let message = error.to_string();
        message.strip_prefix(&format!("{}: ", path.display())).expect(&message).to_owned()
    })
}

fn entry() -> Value {
    json!({"image_id": 1, "category_id": 4, "bbox": [0, 0, 1, 1], "score": 0.5})
}

fn entry_with(key: &str, value: Value) -> Value {
    let mut entry = entry();
    entry[key] = value;
    entry
}

#[test]
fn files_that_hold_no_results_are_refused() {
    let truth = two_images();
    let refuse = |content: Value| read_results(&truth, &content.to_string()).unwrap_err();
    let message = read_results(&truth, "[{").unwrap_err();
    assert!(message.starts_with("it is not a list of COCO results: EOF"), "{message}");
    assert!(refuse(json!({})).starts_with("it is not a list of COCO results"));
    assert!(refuse(json!(3)).starts_with("it is not a list of COCO results"));
    let message = refuse(json!([entry(), entry_with("image_id", json!(3))]));
    assert_eq!(message, "entry 1 is of image 3, which the ground truth has not");
    let message = refuse(json!([entry_with("image_id", json!("one"))]));
    assert_eq!(message, "entry 0 is of image \"one\", which the ground truth has not");
    let message = refuse(json!([entry_with("score", json!("high"))]));
    assert_eq!(
        message,
        "none of its 1 entries is usable (entry 0: score is \"high\", but it must be a finite \
         number)"
    );
    let message = refuse(dataset(&[1], &[object(5, 1, 4, CAT)]));
    assert!(message.contains("without scores it is an annotation file"), "{message}");
    assert!(read_results(&truth, "[]").unwrap().images.is_empty());
    assert!(results::read("/no/such.json".as_ref(), &truth).is_err());
}

#[test]
fn entries_that_cannot_be_used_are_left_out_with_a_note() {
    let truth = two_images();
    let rle = |size: [u32; 2], counts: Value| json!({"size": size, "counts": counts});
    // What is changed of the second entry, how many are left, and the note.
    let cases = [
        ("score", json!("NaN"), 1, "score is NaN, but it must be a finite number"),
        ("score", Value::Null, 1, "score is null, but it must be a finite number"),
        ("bbox", json!([0, 0, 1]), 1, "bbox is [0,0,1], but it must be four finite numbers"),
        ("bbox", json!([0, "NaN", 1, 1]), 1, "bbox is [0,NaN,1,1], but"),
        ("bbox", Value::Null, 1, "1 entries have neither a bbox nor a segmentation"),
        ("bbox", json!([]), 1, "1 entries have neither a bbox nor a segmentation"),
        ("image_id", json!(1.5), 1, "image_id is 1.5, but it must be a whole number or a text"),
        ("category_id", json!(5), 1, "entry 1 (category 5)"),
        ("bbox", json!([0, 0, -1e-14, 1]), 2, "entry 1 ([0.0, 0.0, -1e-14, 1.0])"),
        ("segmentation", json!("x"), 2, ""),
        ("segmentation", rle([1, 2], json!([2])), 2, "its mask has 1×2 pixels, its image 100×100"),
        ("segmentation", rle([100, 100], json!([3, 4])), 2, "it has runs of 7 pixels for 100×100"),
        ("segmentation", rle([100, 100], json!("~~~")), 2, "it has runs of 42 pixels"),
        ("segmentation", rle([100, 100], json!([30000])), 2, "exceed its size"),
        ("segmentation", rle([100, 100], json!([9999, 1])), 2, "others have"),
    ];
    for (field, value, left, note) in cases {
        let text = json!([entry(), entry_with(field, value.clone())]).to_string();
        let read = read_results(&truth, &text.replace("\"NaN\"", "NaN")).unwrap();
        let notes = read.notes.join("; ");
        let count: usize = read.images.iter().map(|image| image.detections.len()).sum();
        assert_eq!(count, left, "{field} {value}: {notes}");
        assert!(notes.contains(note) && notes.is_empty() == note.is_empty(), "{notes}");
    }
}

#[test]
fn results_with_their_own_images_are_matched_by_name() {
    let mut truth = dataset(&[1, 2], &[object(1, 1, 4, CAT), object(2, 2, 9, DOG)]);
    for (image, name) in [(0, "a/one.png"), (1, "two.png")] {
        truth["images"][image]["file_name"] = name.into();
    }
    let truth = coco(truth);
    // As `detect predict` numbers them: by the order of the files.
    let file = json!({
        "images": [{"id": 1, "file_name": "two.png"}, {"id": 2, "file_name": "one.png"},
                   {"id": 3, "file_name": "three.png"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": DOG, "score": 0.9},
            {"image_id": 2, "category_id": 2, "bbox": CAT, "score": 0.8},
            {"image_id": 3, "category_id": 2, "bbox": CAT, "score": 0.7},
        ],
    });
    let read = read_results(&truth, &file.to_string()).unwrap();
    assert!(read.notes[0].contains("1 entries are of an image that"), "{:?}", read.notes);
    let images = read.images.into_iter().map(|image| (image.image_id, image.detections));
    let boxes = EvaluatorOptions { kinds: vec![Kind::Bbox], ..EvaluatorOptions::default() };
    let report = evaluate(&truth, boxes, images.collect()).report;
    assert!(is_one(report.bbox.unwrap().figures.ap));
    let mut other = file;
    for image in 0..3 {
        other["images"][image]["file_name"] = format!("{image}.jpg").into();
    }
    let message = read_results(&truth, &other.to_string()).unwrap_err();
    assert!(message.starts_with("it is of other images than the ground truth"), "{message}");
}
