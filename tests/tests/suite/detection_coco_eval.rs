//! Our COCO evaluation against pycocotools, live: the same results files give
//! the same figures, the same precision and recall arrays, the same table.

mod foreign;

use std::fs;
use std::path::{Path, PathBuf};

use detection::data::GroundTruth;
use detection::evaluation::{
    CocoEvaluator, Detection, Evaluation, EvaluatorOptions, ImageDetections, Kind, results,
};
use hotcoco::AccumulatedEval;
use serde_json::json;
use spark_tests::coco_cases::{CATEGORIES, Case, Recipe};
use spark_tests::run_python;
use tch::Tensor;

/// The same float64 sums in another order, of at most some hundred terms of at
/// most 1.
const TOLERANCE: f64 = 1e-12;

const KINDS: [Kind; 2] = [Kind::Bbox, Kind::Segm];

fn cases() -> Vec<Case> {
    let usual = Recipe::default();
    let with = |name: &str, seed, change: fn(&mut Recipe)| {
        let mut recipe = usual.clone();
        change(&mut recipe);
        recipe.draw(name, seed)
    };
    let mut cases = vec![
        with("usual", 1, |_| ()),
        with("usual again", 2, |_| ()),
        with("whole pixels", 3, |recipe| recipe.whole = true),
        with("few scores", 4, |recipe| recipe.scores = 4),
        with("one score, whole pixels", 5, |recipe| {
            (recipe.scores, recipe.whole, recipe.detections) = (1, true, 5)
        }),
        with("mostly crowds", 6, |recipe| (recipe.crowds, recipe.detections) = (0.8, 6)),
        with("crowds alone", 7, |recipe| recipe.crowds = 1.1),
        with("one category", 8, |recipe| recipe.categories = 1),
        with("no objects", 9, |recipe| recipe.objects = 0),
        with("no detections", 10, |recipe| (recipe.detections, recipe.strays) = (0, 0)),
        // Of one class more than a hundred in an image, so that the weakest
        // are cut; with few scores the cut goes through ties.
        with("more than a hundred", 11, |recipe| {
            (recipe.images, recipe.objects, recipe.detections) = (3, 60, 12);
            (recipe.categories, recipe.scores, recipe.size) = (1, 20, (140, 140));
        }),
        with("crowded images", 12, |recipe| {
            (recipe.images, recipe.objects, recipe.detections) = (40, 30, 4);
        }),
    ];
    // An empty mask and a box without area can only be wrong.
    let mut degenerate = with("without area", 13, |_| ());
    for image in &mut degenerate.found {
        for detection in image.detections.iter_mut().step_by(3) {
            let [x, y, ..] = detection.bbox;
            detection.bbox = [x, y, 0.0, 0.0];
            let (height, width) = usual.size;
            let pixels = vec![0; height * width];
            let empty = detection::structures::Bitmap { height, width, pixels };
            detection.mask = Some(detection::evaluation::RleMask::encode(&empty).unwrap());
        }
    }
    cases.push(degenerate);
    cases
}

/// Writes gt.json, bbox.json and segm.json.
fn write(case: &Case, folder: &Path) -> GroundTruth {
    fs::create_dir(folder).unwrap();
    let path = folder.join("gt.json");
    fs::write(&path, case.truth.to_string()).unwrap();
    let (truth, findings) = GroundTruth::read(&path).unwrap();
    assert_eq!(findings, []);
    for kind in KINDS {
        let path = folder.join(format!("{}.json", kind.name()));
        results::write(&path, kind, &case.found, &truth).unwrap();
    }
    truth
}

fn evaluate(truth: &GroundTruth, kinds: &[Kind], found: &[ImageDetections]) -> Evaluation {
    let options = EvaluatorOptions { kinds: kinds.into(), ..EvaluatorOptions::default() };
    let mut evaluator = CocoEvaluator::new(truth, options).unwrap();
    for image in found {
        evaluator.add(image.image_id, image.detections.clone()).unwrap();
    }
    evaluator.finish().unwrap()
}

fn reference(folder: &Path, kind: Kind) -> [Vec<f64>; 3] {
    let path = folder.join(format!("{}.safetensors", kind.name()));
    let tensors = Tensor::read_safetensors(path).unwrap();
    ["figures", "precision", "recall"].map(|name| {
        let (_, tensor) = tensors.iter().find(|(key, _)| key == name).expect(name);
        Vec::try_from(tensor.reshape([-1])).unwrap()
    })
}

/// The twelve figures that a script left in `folder`.
fn figures(folder: &Path, kind: Kind) -> Vec<f64> {
    let path = folder.join(format!("{}.safetensors", kind.name()));
    let tensors = Tensor::read_safetensors(path).unwrap();
    let (_, tensor) = tensors.iter().find(|(key, _)| key == "figures").unwrap();
    Vec::try_from(tensor).unwrap()
}

fn assert_equal(what: &str, ours: &[f64], reference: &[f64]) {
    assert_eq!(ours.len(), reference.len(), "{what}");
    for (at, (ours, reference)) in ours.iter().zip(reference).enumerate() {
        let apart = (ours - reference).abs();
        assert!(
            apart <= TOLERANCE,
            "{what}, value {at}: {ours}, but pycocotools gives {reference}"
        );
    }
}

#[test]
fn figures_arrays_and_table_equal_pycocotools() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    let folders: Vec<PathBuf> = cases.iter().map(|case| folder.path().join(&case.name)).collect();
    let truths: Vec<GroundTruth> =
        cases.iter().zip(&folders).map(|(case, folder)| write(case, folder)).collect();
    run_python("coco_eval_reference.py", &folders.iter().map(PathBuf::as_path).collect::<Vec<_>>());

    let mut counted = 0;
    for ((case, folder), truth) in cases.iter().zip(&folders).zip(&truths) {
        let evaluation = evaluate(truth, &KINDS, &case.found);
        for (kind, section) in evaluation.report.sections() {
            let what = |name| format!("{}, {}, {name}", case.name, kind.name());
            let arrays: &AccumulatedEval = &evaluation.arrays[&kind];
            let [figures, precision, recall] = reference(folder, kind);
            assert_equal(&what("precision"), &arrays.precision, &precision);
            assert_equal(&what("recall"), &arrays.recall, &recall);
            assert_equal(&what("figures"), &section.figures.to_array(), &figures);
            let table = fs::read_to_string(folder.join(format!("{}.txt", kind.name()))).unwrap();
            assert_eq!(section.figures.to_string(), table, "{}", what("table"));
            counted += figures.iter().filter(|figure| **figure > 0.05).count();

            // The file by itself, as `evaluate --results` reads it, gives the
            // same to the last bit.
            let path = folder.join(format!("{}.json", kind.name()));
            let results = results::read(&path, truth).unwrap();
            let again = evaluate(truth, &[kind], &results.images);
            assert_eq!(again.arrays[&kind].precision, arrays.precision, "{}", what("file"));
            assert_eq!(again.arrays[&kind].recall, arrays.recall, "{}", what("file"));
        }
    }
    // Zeros would agree as well: most figures must be something.
    assert!(counted > 200, "only {counted} figures above .05");
}

/// Makes the first object no crowd, and found before all else.
fn find_first_object(case: &mut Case) {
    let object = &mut case.truth["annotations"][0];
    object["iscrowd"] = json!(0);
    let (image_id, category) = (object["image_id"].as_u64(), object["category_id"].as_u64());
    let class = CATEGORIES.iter().filter(|id| Some(**id) < category).count();
    let bbox = serde_json::from_value(object["bbox"].clone()).unwrap();
    let mask = case.found[0].detections[0].mask.clone();
    let detection = Detection { class, score: 2.0, bbox, mask };
    match case.found.iter_mut().find(|image| Some(image.image_id) == image_id) {
        Some(image) => image.detections.push(detection),
        None => case
            .found
            .push(ImageDetections { image_id: image_id.unwrap(), detections: vec![detection] }),
    }
}

/// pycocotools keeps a match as the object's annotation id and takes id 0 for
/// none. We score such an object like any other: a file whose ids begin with 0
/// scores like one whose ids begin with 1.
#[test]
fn an_object_with_annotation_id_0_counts() {
    let mut case = Recipe::default().draw("ids from 1", 20);
    find_first_object(&mut case);
    let mut shifted =
        Case { name: "ids from 0".into(), truth: case.truth.clone(), found: case.found.clone() };
    for annotation in shifted.truth["annotations"].as_array_mut().unwrap() {
        annotation["id"] = json!(annotation["id"].as_u64().unwrap() - 1);
    }
    let folder = tempfile::tempdir().unwrap();
    let [from_1, from_0] = [&case, &shifted].map(|case| {
        let truth = write(case, &folder.path().join(&case.name));
        evaluate(&truth, &KINDS, &case.found)
    });
    assert_eq!(from_0.report, from_1.report);
    let path = folder.path().join(&shifted.name);
    run_python("coco_eval_reference.py", &[&path]);
    let [figures, ..] = reference(&path, Kind::Bbox);
    let ours = from_0.report.bbox.unwrap().figures.to_array();
    assert!(ours[0] > figures[0], "{ours:?} {figures:?}");
}
