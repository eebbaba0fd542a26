//! Results that no program should stumble over.

use hotcoco::COCO;
use proptest::prelude::*;
use serde_json::{Value, json};
use test_support::damaged;

use super::read::parse;
use super::*;
use crate::evaluation::{CocoEvaluator, EvaluatorOptions};

fn truth() -> GroundTruth {
    let object = |id: u64, image: u64, category: u64| {
        json!({
            "id": id, "image_id": image, "category_id": category, "bbox": [1, 1, 9, 9],
            "segmentation": [[1, 1, 9, 1, 9, 9]],
        })
    };
    let dataset = json!({
        "images": [{"id": 1, "file_name": "a", "height": 20, "width": 30},
                   {"id": 2, "file_name": "b", "height": 20, "width": 30}],
        "categories": [{"id": 3, "name": "ape"}, {"id": 4, "name": "bee"}],
        "annotations": [object(1, 1, 3), object(2, 2, 4)],
    });
    COCO::from_dataset(serde_json::from_value(dataset).expect("a data set")).into()
}

fn entries() -> Value {
    json!([
        {"image_id": 1, "category_id": 3, "bbox": [1, 1, 8.5, 9], "score": 0.5,
         "segmentation": {"size": [20, 30], "counts": [21, 8, 571]}},
        {"image_id": 2, "category_id": 4, "bbox": [0, 0, 9, 9], "score": 0.25,
         "segmentation": [[0, 0, 9, 0, 9, 9]]},
    ])
}

/// Reads and scores; whatever is read can be scored.
fn score(bytes: Vec<u8>) {
    let truth = truth();
    let Ok(read) = parse(Path::new("results.json"), bytes, &truth) else { return };
    let (kinds, areas) = read.to_evaluate(&truth);
    let options = EvaluatorOptions { kinds, areas, ..EvaluatorOptions::default() };
    let mut evaluator = CocoEvaluator::new(&truth, options).expect("an evaluator");
    for image in read.images {
        evaluator.add(image.image_id, image.detections).expect("detections that can be scored");
    }
    evaluator.finish().expect("figures");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        score(bytes);
    }

    #[test]
    fn a_file_cut_or_overwritten_is_read_or_refused(
        at in 0usize..400, byte in any::<u8>(), cut in any::<bool>(),
    ) {
        score(damaged(&entries(), at, (!cut).then_some(byte)));
    }

    #[test]
    fn a_file_with_odd_values_is_read_or_refused(
        place in 0usize..2,
        field in proptest::sample::select(
            vec!["image_id", "category_id", "bbox", "score", "segmentation"],
        ),
        value in proptest::sample::select(vec![
            json!(null), json!(-1), json!("1"), json!("NaN"), json!(1e300), json!([]), json!([[]]),
            json!({}), json!([-1e300, 1e300, -5, 1e18]), json!([[1e300, -1e300, 5, 1e18, -5, 6]]),
            json!({"size": [20, 30], "counts": [1, 2]}), json!({"size": [20, 30], "counts": "~~~"}),
            json!({"size": [4294967295u32, 4294967295u32], "counts": [4294967295u32]}),
        ]),
    ) {
        let mut entries = entries();
        entries[place][field] = value;
        score(entries.to_string().into_bytes());
    }
}
