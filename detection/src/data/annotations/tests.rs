//! What exporters and scripts write, and what no program should stumble over.

use proptest::prelude::*;
use serde_json::{Value, json};
use test_support::damaged;

use super::*;

fn small() -> Value {
    json!({
        "info": {"year": 2024, "version": "1.0", "description": "", "date_created": "2024"},
        "licenses": [{"id": 1, "name": "", "url": ""}],
        "images": [
            {"id": 7, "file_name": "a.png", "width": 40, "height": 30, "license": 1},
            {"id": 3, "file_name": "b.png", "width": 30, "height": 40, "date_captured": "2024"},
        ],
        "categories": [{"id": 90, "name": "zebra", "supercategory": ""}, {"id": 4, "name": "ape"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 90, "iscrowd": 0, "area": 100.0,
             "bbox": [5, 5, 10, 10], "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]]},
            {"id": 2, "image_id": 3, "category_id": 4, "iscrowd": 1, "area": 60.0,
             "bbox": [1, 0, 2, 40], "segmentation": {"size": [40, 30], "counts": [40, 80, 1080]}},
        ],
    })
}

fn parse(text: impl Into<Vec<u8>>) -> Result<AnnotationFile> {
    AnnotationFile::parse(Path::new("file.json"), text.into())
}

/// Names of the images, categories and annotations, with what is used of each.
fn summary(file: &AnnotationFile) -> Value {
    let AnnotationFile { truth, .. } = file;
    let annotations = truth.dataset.annotations.iter().map(|one| {
        json!([
            truth.annotation(one.id),
            truth.image_id(one.image_id).to_string(),
            truth.category_id(one.category_id).to_string(),
            one.bbox,
            one.area,
            one.iscrowd,
            one.segmentation,
        ])
    });
    let images = truth.dataset.images.iter();
    json!({
        "images": images.map(|i| json!([i.file_name, i.width, i.height])).collect::<Vec<_>>(),
        "categories": crate::evaluation::category_names(truth),
        "annotations": annotations.collect::<Vec<_>>(),
    })
}

fn codes(file: &AnnotationFile) -> Vec<String> {
    file.notes.clone().finish().into_iter().map(|finding| finding.code).collect()
}

/// Another way to write the same data.
type Change = fn(&mut Value);

#[test]
fn what_is_not_used_may_be_anything() {
    let expected = summary(&parse(small().to_string()).unwrap());
    let changes: [Change; 24] = [
        |v| v["info"]["year"] = json!("2024"),
        |v| v["info"]["year"] = json!(""),
        |v| v["info"]["version"] = json!(3.1),
        |v| v["info"]["contributor"] = Value::Null,
        |v| v["info"] = json!("made by hand"),
        |v| v["info"] = json!([]),
        |v| v["licenses"] = Value::Null,
        |v| v["licenses"] = json!({"id": "MIT"}),
        |v| v["licenses"][0] = json!("MIT"),
        |v| v["licenses"][0]["id"] = json!("one"),
        |v| v["images"][0]["date_captured"] = json!(0),
        |v| v["images"][0]["license"] = json!("MIT"),
        |v| v["images"][0]["coco_url"] = json!({}),
        |v| v["images"][0]["extra"] = json!({"name": "x", "user_tags": []}),
        |v| v["categories"][0]["supercategory"] = json!(0),
        |v| v["categories"][0]["keypoints"] = json!(3),
        |v| v["categories"][0]["skeleton"] = json!("none"),
        |v| v["categories"][0]["color"] = json!([1, 2]),
        |v| v["annotations"][0]["attributes"] = json!({"occluded": false}),
        |v| v["annotations"][0]["keypoints"] = json!("none"),
        |v| v["annotations"][0]["num_keypoints"] = json!(-1),
        |v| v["annotations"][0]["obb"] = json!([1]),
        |v| v["annotations"][0]["score"] = json!("high"),
        |v| v["videos"] = json!([{"id": "x"}]),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut value = small();
        change(&mut value);
        let file = parse(value.to_string()).unwrap();
        assert_eq!((summary(&file), codes(&file)), (expected.clone(), vec![]), "{number}");
    }
    // The order of lists and fields, and of two fields of one name the last.
    let text = small().to_string();
    let twice = text.replacen("{\"area\"", "{\"bbox\":[0,0,1,1],\"area\"", 1);
    let lists = text.replacen('{', "{\"annotations\":[{}],\"images\":[3],", 1);
    for text in [twice, lists, format!("\u{feff}{text}\n")] {
        assert_eq!(summary(&parse(text).unwrap()), expected);
    }
}

#[test]
fn odd_values_are_read_with_a_note() {
    let expected = summary(&parse(small().to_string()).unwrap());
    let changes: [(Change, &[&str]); 18] = [
        (|v| v["images"][0]["width"] = json!(40.0), &[]),
        (|v| v["images"][0]["width"] = json!("40"), &["number_as_text"]),
        (|v| v["images"][0]["id"] = json!(7.0), &[]),
        (|v| v["annotations"][0]["image_id"] = json!(7.0), &[]),
        (|v| v["annotations"][0]["image_id"] = json!("7"), &["id_of_other_type"]),
        (|v| v["annotations"][0]["category_id"] = json!("90"), &["id_of_other_type"]),
        (|v| v["annotations"][0]["bbox"][2] = json!("10"), &["number_as_text"]),
        (|v| v["annotations"][0]["area"] = json!("100"), &["number_as_text"]),
        (|v| v["annotations"][0]["iscrowd"] = json!(false), &[]),
        (|v| v["annotations"][0]["iscrowd"] = json!(0.0), &[]),
        (|v| v["annotations"][0]["iscrowd"] = json!("0"), &[]),
        (|v| v["annotations"][1]["iscrowd"] = json!("true"), &[]),
        (|v| v["annotations"][0]["iscrowd"] = Value::Null, &["null_iscrowd"]),
        (|v| drop(v["annotations"][0].as_object_mut().unwrap().remove("iscrowd")), &[]),
        (|v| v["annotations"][1]["segmentation"]["counts"] = json!([40.0, 80, "1080"]), &[]),
        (|v| v["annotations"][1]["segmentation"]["size"] = json!([40.0, 30.0]), &[]),
        (|v| twice(v, "annotations"), &["repeated_record"]),
        (
            |v| {
                twice(v, "images");
                twice(v, "categories");
            },
            &["repeated_record"],
        ),
    ];
    for (number, (change, notes)) in changes.into_iter().enumerate() {
        let mut value = small();
        change(&mut value);
        let file = parse(value.to_string()).unwrap();
        assert_eq!(summary(&file), expected, "{number}");
        assert_eq!(codes(&file), notes, "{number}");
    }
}

/// Writes the first record of a list again.
fn twice(value: &mut Value, list: &str) {
    let first = value[list][0].clone();
    value[list].as_array_mut().unwrap().push(first);
}

#[test]
fn records_that_cannot_be_used_are_left_out_and_named() {
    // The change, and the note; the other annotation stays.
    let changes: [(Change, &str); 14] = [
        (|a| a["bbox"] = json!([1, "NaN", 3, 4]), "annotation 1 (bbox is [1,NaN,3,4], but it must"),
        (|a| a["bbox"] = json!([1, "-Infinity", 3, 4]), "bbox is [1,-Infinity,3,4], but it must"),
        (|a| a["bbox"] = json!([1, 2, 3]), "annotation 1 (bbox is [1,2,3], but it must be four"),
        (|a| a["bbox"] = json!([1, null, 3, 4]), "annotation 1 (bbox is [1,null,3,4], but"),
        (|a| a["bbox"] = json!("1 2 3 4"), "annotation 1 (bbox is \"1 2 3 4\", but"),
        (|a| a["bbox"] = json!({"x": 1}), "annotation 1 (bbox is {\"x\":1}, but"),
        (|a| a["image_id"] = Value::Null, "annotation 1 (image_id is null, but it must be a whole"),
        (|a| a["image_id"] = json!(7.5), "annotation 1 (image_id is 7.5, but"),
        (|a| a["image_id"] = json!(8), "annotation 1 (image 8)"),
        (|a| a["image_id"] = json!("a.png"), "annotation 1 (image \"a.png\")"),
        (|a| a["category_id"] = json!([90]), "annotation 1 (category_id is [90], but"),
        (|a| a["iscrowd"] = json!(0.5), "annotation 1 (iscrowd is 0.5, but it must be 0 or 1)"),
        (|a| a["iscrowd"] = json!("no"), "annotation 1 (iscrowd is \"no\", but"),
        (|a| *a = json!(null), "place 0 (null, but a record is an object)"),
    ];
    for (change, note) in changes {
        let mut value = small();
        change(&mut value["annotations"][0]);
        let text = value.to_string();
        let text = ["NaN", "-Infinity"]
            .iter()
            .fold(text, |text, token| text.replace(&format!("\"{token}\""), token));
        let file = parse(text).unwrap();
        assert_eq!((file.truth.dataset.annotations.len(), file.annotations), (1, 2), "{note}");
        let findings = file.notes.finish();
        assert!(findings[0].to_string().contains(note), "{} is not {note}", findings[0]);
        assert_eq!(findings.len(), 1);
    }
}

#[test]
fn fields_that_cannot_be_used_are_left_out_and_named() {
    let changes: [(Change, &str); 8] = [
        (|v| v["categories"][0]["name"] = Value::Null, "called after their id: category 90"),
        (|v| v["annotations"][0]["area"] = json!("NaN"), "annotation 1 (area is NaN)"),
        (|v| v["annotations"][0]["area"] = json!([]), "annotation 1 (area is [])"),
        (
            |v| v["annotations"][0]["segmentation"] = json!([1, 2, 3]),
            "segmentation is [1,2,3], but",
        ),
        (
            |v| v["annotations"][0]["segmentation"] = json!([[1, 2, "NaN", 4, 5, 6]]),
            "segmentation is [[1,2,NaN,4,5,6]], but it must be a list of polygons",
        ),
        (|v| v["annotations"][0]["id"] = Value::Null, "place 0 (id is null)"),
        (|v| v["images"][1]["width"] = json!("wide"), "image 3 (width is \"wide\", but"),
        (|v| v["images"][1]["height"] = json!(-4), "image 3 (height is -4, but"),
    ];
    for (change, note) in changes {
        let mut value = small();
        change(&mut value);
        let file = parse(value.to_string().replace("\"NaN\"", "NaN")).unwrap();
        assert_eq!(file.truth.dataset.annotations.len(), 2, "{note}");
        let findings = file.notes.finish();
        assert!(findings[0].to_string().contains(note), "{} is not {note}", findings[0]);
    }
}

/// `small` with other ids.
fn renamed(image: impl Fn(u64) -> Value, category: impl Fn(u64) -> Value) -> Value {
    let mut value = small();
    let mut change = |list: &str, field: &str, to: &dyn Fn(u64) -> Value| {
        for record in value[list].as_array_mut().unwrap() {
            record[field] = to(record[field].as_u64().unwrap());
        }
    };
    change("images", "id", &image);
    change("annotations", "image_id", &image);
    change("categories", "id", &category);
    change("annotations", "category_id", &category);
    value
}

#[test]
fn ids_of_every_type_are_kept() {
    let uuid = |id: u64| json!(format!("5f0c-{id:04x}"));
    let large = |id: u64| json!(format!("##{}##", u128::MAX - u128::from(id)));
    let cases: [(Value, [&str; 2]); 5] = [
        (renamed(uuid, |id| json!(id)), ["\"5f0c-0007\"", "90"]),
        (renamed(|id| json!(-(id as i64)), |id| json!(-(id as i64))), ["-7", "-90"]),
        (renamed(|id| json!(format!("{id}.png")), uuid), ["\"7.png\"", "\"5f0c-005a\""]),
        (renamed(|id| json!(id as f64), |id| json!(id as f64)), ["7", "90"]),
        (renamed(large, |id| json!(id)), ["340282366920938463463374607431768211448", "90"]),
    ];
    for (value, [image, category]) in cases {
        let file = parse(value.to_string().replace("\"##", "").replace("##\"", "")).unwrap();
        let summary = summary(&file);
        assert_eq!(codes(&file), Vec::<String>::new());
        assert_eq!(summary["annotations"][0][1], image);
        assert_eq!(summary["annotations"][0][2], category);
        assert_eq!(
            summary["images"],
            self::summary(&parse(small().to_string()).unwrap())["images"]
        );
    }
    // Ids of annotations that are used for different objects are told apart.
    let mut value = small();
    value["annotations"][1]["id"] = 1.into();
    let file = parse(value.to_string()).unwrap();
    assert_eq!(codes(&file), ["duplicate_annotation_id"]);
    let ids: Vec<u64> = file.truth.dataset.annotations.iter().map(|one| one.id).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(file.truth.annotation(2), "annotation 1");
    assert_eq!(file.truth.get_ann_ids_for_img(3), [2]);
}

/// Values to put anywhere.
fn odd() -> impl Strategy<Value = Value> {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(7.5),
        json!(1e300),
        json!(u64::MAX),
        json!("NaN"),
        json!("7"),
        json!(""),
        json!([]),
        json!([[]]),
        json!({}),
        json!([1, 2, 3, 4]),
        json!({"size": [4294967295u32, 4294967295u32], "counts": [4294967295u32]}),
        json!({"size": [40, 30], "counts": "~~~~~~~~~~~~~~"}),
        json!([[1e300, -1e300, 5, 1e18, -5, 6, 7, 8]]),
    ];
    proptest::sample::select(values.to_vec())
}

/// Puts `odd` in place of the `at`th value of `value`, counted from outside in.
fn replace(value: &mut Value, at: &mut usize, odd: &Value) {
    if *at == 0 {
        *value = odd.clone();
    }
    *at = at.wrapping_sub(1);
    match value {
        Value::Array(parts) => parts.iter_mut().for_each(|part| replace(part, at, odd)),
        Value::Object(parts) => parts.values_mut().for_each(|part| replace(part, at, odd)),
        _ => (),
    }
}

/// All that is done with a file that was read.
fn use_up(file: AnnotationFile) {
    let mut file = file;
    crate::data::findings::leave_out_images(&mut file);
    let AnnotationFile { truth, notes, .. } = file;
    for masks in [true, false] {
        crate::data::findings::inspect(&truth, masks, notes.clone());
    }
    for annotation in &truth.dataset.annotations {
        assert!(truth.get_img(annotation.image_id).is_some());
        assert!(truth.get_cat(annotation.category_id).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse(bytes).ok().into_iter().for_each(use_up);
    }

    #[test]
    fn a_file_cut_or_overwritten_is_read_or_refused(
        at in 0usize..1100, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let bytes = damaged(&small(), at, (!cut).then_some(byte));
        parse(bytes).ok().into_iter().for_each(use_up);
    }

    #[test]
    fn a_file_with_odd_values_is_read_or_refused(
        changes in proptest::collection::vec((0usize..90, odd()), 1..4),
    ) {
        let mut value = small();
        for (mut at, odd) in changes {
            replace(&mut value, &mut at, &odd);
        }
        parse(value.to_string()).ok().into_iter().for_each(use_up);
    }

    /// The quick way of reading a record and the one field by field are the same.
    #[test]
    fn fields_further_and_twice_change_nothing(
        field in "[a-z_]{1,9}", odd in odd(), crowd in 0u8..2, area in 0.0f64..1e6,
    ) {
        let record = json!({
            "id": 3, "image_id": 7, "category_id": 4, "bbox": [1, 2.5, 3, 4], "area": area,
            "iscrowd": crowd, "segmentation": [[1, 2, 3, 4, 5, 6.5], []],
        });
        prop_assume!(record.get(&field).is_none());
        let mut value = small();
        value["annotations"] = json!([record]);
        let plain = parse(value.to_string()).unwrap();
        value["annotations"][0][&field] = odd;
        // Two fields of one name: only field by field is the last taken.
        let text = value.to_string().replacen("{\"area\"", "{\"bbox\":0,\"area\"", 1);
        let other = parse(text).unwrap();
        prop_assert_eq!(summary(&plain), summary(&other));
        prop_assert_eq!(codes(&plain), codes(&other));
    }
}
