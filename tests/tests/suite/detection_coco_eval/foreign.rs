//! Results and annotations as other programs write them, against pycocotools on the same files.

use std::fs;
use std::path::{Path, PathBuf};

use detection::data::GroundTruth;
use detection::evaluation::{CocoEvaluator, EvaluatorOptions, Kind, results};
use hotcoco::{Rle, mask};
use serde_json::{Value, json};
use spark_tests::coco_cases::{Case, Recipe};
use spark_tests::run_python;

/// The annotation file and the results, both to be changed.
type Change = fn(&mut Value, &mut Vec<Value>);

/// A pair of files, scored here and by pycocotools.
struct Foreign {
    name: &'static str,
    recipe: Recipe,
    change: Change,
    /// What pycocotools gets besides, where it stumbles over what we leave out.
    reference: Change,
    kinds: &'static [Kind],
    max_detections: usize,
    /// Whether anything is to be said about the results.
    noted: bool,
}

const BOXES: &[Kind] = &[Kind::Bbox];
const BOTH: &[Kind] = &[Kind::Bbox, Kind::Segm];

fn case(name: &'static str, kinds: &'static [Kind], change: Change) -> Foreign {
    Foreign {
        name,
        recipe: Recipe::default(),
        change,
        reference: |_, _| (),
        kinds,
        max_detections: 100,
        noted: false,
    }
}

fn cases() -> Vec<Foreign> {
    let noted = |case: Foreign| Foreign { noted: true, ..case };
    let against = |case: Foreign, reference| Foreign { reference, ..case };
    let many = Recipe {
        images: 3,
        objects: 60,
        detections: 12,
        categories: 1,
        size: (140, 140),
        ..Recipe::default()
    };
    let of =
        |case: Foreign, max_detections| Foreign { recipe: many.clone(), max_detections, ..case };
    vec![
        case("boxes and masks in one file", BOTH, |_, _| ()),
        case("polygons", BOTH, |_, found| each(found, polygon)),
        case("run lengths as numbers", BOTH, |_, found| {
            each(found, |one| {
                let counts = one["segmentation"]["counts"].as_str().unwrap();
                let runs = mask::rle_from_string(counts, 140, 200).unwrap().counts;
                let runs: Vec<f64> = runs.into_iter().map(f64::from).collect();
                one["segmentation"]["counts"] = json!(runs);
            })
        }),
        case("empty segmentations", BOXES, |_, found| {
            each(found, |one| one["segmentation"] = json!([]))
        }),
        noted(against(
            // As masks these fit nothing: a pixel in the corner fits nothing either.
            case("some without a mask", BOTH, |_, found| {
                every(found, 3, |one| one["segmentation"] = json!([[]]))
            }),
            |_, found| {
                every(found, 3, |one| {
                    one["segmentation"] = json!({"size": [140, 200], "counts": [28000]})
                })
            },
        )),
        noted(case("masks of another size", BOTH, |_, found| {
            let counts = mask::rle_to_string(&Rle { h: 200, w: 140, counts: vec![0, 28000] });
            every(found, 2, |one| {
                one["segmentation"] = json!({"size": [200, 140], "counts": counts})
            })
        })),
        noted(case("unknown categories", BOTH, |_, found| {
            every(found, 4, |one| one["category_id"] = json!(4711))
        })),
        case("floats for ids", BOTH, |truth, found| {
            each(found, |one| float(one, "image_id"));
            each(list(truth, "images"), |one| float(one, "id"));
            each(list(truth, "annotations"), |one| float(one, "category_id"));
        }),
        case("texts for image ids", BOTH, |truth, found| {
            let text = |one: &mut Value, field: &str| one[field] = json!(one[field].to_string());
            each(found, |one| text(one, "image_id"));
            each(list(truth, "images"), |one| text(one, "id"));
            each(list(truth, "annotations"), |one| text(one, "image_id"));
        }),
        case("negative ids", BOTH, |truth, found| {
            let ids = ["image_id", "category_id"];
            each(found, |one| ids.iter().for_each(|id| negative(one, id)));
            each(list(truth, "annotations"), |one| ids.iter().for_each(|id| negative(one, id)));
            each(list(truth, "images"), |one| negative(one, "id"));
            each(list(truth, "categories"), |one| negative(one, "id"));
        }),
        case("texts for category ids", BOTH, |truth, found| {
            let text =
                |one: &mut Value, field: &str| one[field] = json!(format!("c{}", one[field]));
            each(found, |one| text(one, "category_id"));
            each(list(truth, "categories"), |one| text(one, "id"));
            each(list(truth, "annotations"), |one| text(one, "category_id"));
        }),
        noted(case("negative sides", BOXES, |_, found| {
            each(found, |one| one["segmentation"] = Value::Null);
            found
                .iter_mut()
                .for_each(|one| drop(one.as_object_mut().unwrap().remove("segmentation")));
            every(found, 3, |one| one["bbox"][2] = json!(-1e-14));
            every(found, 4, |one| {
                one["bbox"][2] = json!(-40.0);
                one["bbox"][3] = json!(-50.0);
            });
        })),
        noted(against(
            case("scores that are no numbers", BOTH, |_, found| {
                every(found, 5, |one| one["score"] = json!("NaN"))
            }),
            |_, found| found.retain(|one| one["score"] != "NaN"),
        )),
        case("further fields, whole scores", BOTH, |_, found| {
            for (number, one) in found.iter_mut().enumerate() {
                one["score"] = json!(number % 3);
                one["category_name"] = json!("c");
                one["area"] = json!("wrong");
                one["iscrowd"] = json!(1);
                one["id"] = json!(null);
            }
        }),
        case("masks alone, objects without", BOXES, |truth, found| {
            each(list(truth, "annotations"), |one| one["segmentation"] = json!([]));
            found.iter_mut().for_each(|one| drop(one.as_object_mut().unwrap().remove("bbox")));
        }),
        against(
            case("objects some of which have no mask", &[Kind::Segm], |truth, _| {
                every(list(truth, "annotations"), 4, |one| one["segmentation"] = Value::Null)
            }),
            |truth, _| list(truth, "annotations").retain(|one| !one["segmentation"].is_null()),
        ),
        case("objects of nothing that there is", BOTH, |truth, _| {
            every(list(truth, "annotations"), 4, |one| one["category_id"] = json!(4711));
            every(list(truth, "annotations"), 5, |one| one["image_id"] = json!(4711));
        }),
        of(case("three hundred detections", BOTH, |_, _| ()), 300),
        of(case("fifty detections", BOTH, |_, _| ()), 50),
    ]
}

fn list<'a>(truth: &'a mut Value, name: &str) -> &'a mut Vec<Value> {
    truth[name].as_array_mut().unwrap()
}

fn each(records: &mut [Value], change: impl Fn(&mut Value)) {
    records.iter_mut().for_each(change);
}

fn every(records: &mut [Value], step: usize, change: impl Fn(&mut Value)) {
    records.iter_mut().step_by(step).for_each(change);
}

fn float(record: &mut Value, field: &str) {
    record[field] = json!(record[field].as_f64().unwrap());
}

fn negative(record: &mut Value, field: &str) {
    record[field] = json!(-record[field].as_i64().unwrap());
}

/// The box as a polygon, which most programs write where they have no mask.
fn polygon(entry: &mut Value) {
    let side = |at: usize| entry["bbox"][at].as_f64().unwrap();
    let (x, y, w, h) = (side(0), side(1), side(2), side(3));
    entry["segmentation"] = json!([[x, y, x + w, y, x + w, y + h, x, y + h]]);
}

/// One entry for each detection, with box and mask.
fn entries(case: &Case) -> Vec<Value> {
    let mut categories = spark_tests::coco_cases::CATEGORIES;
    categories.sort_unstable();
    let images = case.found.iter();
    let found = images.flat_map(|image| image.detections.iter().map(|one| (image.image_id, one)));
    found
        .map(|(image_id, one)| {
            json!({
                "image_id": image_id, "category_id": categories[one.class], "bbox": one.bbox,
                "score": one.score, "segmentation": one.mask.as_ref().map(|m| m.segmentation()),
            })
        })
        .collect()
}

/// Writes gt.json, results.json and case.json; NaN as Python writes it.
fn write(folder: &Path, foreign: &Foreign, truth: &Value, found: &[Value]) {
    fs::create_dir_all(folder).unwrap();
    let kinds: Vec<&str> = foreign.kinds.iter().map(|kind| kind.name()).collect();
    let case = json!({"kinds": kinds, "max_detections": foreign.max_detections});
    let found = Value::from(found.to_vec()).to_string().replace("\"NaN\"", "NaN");
    for (name, text) in
        [("gt.json", truth.to_string()), ("results.json", found), ("case.json", case.to_string())]
    {
        fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn files_of_other_programs_score_as_in_pycocotools() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let mut references: Vec<PathBuf> = Vec::new();
    for (number, foreign) in cases.iter().enumerate() {
        let drawn = foreign.recipe.draw(foreign.name, 40 + number as u64);
        let (mut truth, mut found) = (drawn.truth.clone(), entries(&drawn));
        (foreign.change)(&mut truth, &mut found);
        write(&folder.path().join(foreign.name), foreign, &truth, &found);
        (foreign.reference)(&mut truth, &mut found);
        let reference = folder.path().join("reference").join(foreign.name);
        write(&reference, foreign, &truth, &found);
        references.push(reference);
    }
    let arguments: Vec<&Path> = references.iter().map(PathBuf::as_path).collect();
    run_python("coco_foreign_reference.py", &arguments);

    for (foreign, reference) in cases.iter().zip(&references) {
        let own = folder.path().join(foreign.name);
        let (truth, _) = GroundTruth::read(&own.join("gt.json")).unwrap();
        let read = results::read(&own.join("results.json"), &truth).unwrap();
        assert_eq!(!read.notes.is_empty(), foreign.noted, "{}: {:?}", foreign.name, read.notes);
        let (kinds, areas) = read.to_evaluate(&truth);
        let options = EvaluatorOptions {
            kinds,
            areas,
            max_detections: foreign.max_detections,
            ..EvaluatorOptions::default()
        };
        let mut evaluator = CocoEvaluator::new(&truth, options).unwrap();
        for image in read.images {
            evaluator.add(image.image_id, image.detections).unwrap();
        }
        let report = evaluator.finish().unwrap().report;
        assert_eq!(report.segm.is_some(), foreign.kinds.contains(&Kind::Segm), "{}", foreign.name);
        for (kind, section) in report.sections().filter(|(kind, _)| foreign.kinds.contains(kind)) {
            let what = format!("{}, {}", foreign.name, kind.name());
            let expected = super::figures(reference, kind);
            super::assert_equal(&what, &section.figures.to_array(), &expected);
            assert!(expected.iter().any(|figure| *figure > 0.0), "{what}: {expected:?}");
        }
    }
}
