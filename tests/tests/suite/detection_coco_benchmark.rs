//! How long evaluation takes, beside pycocotools: a set the shape of COCO's
//! val2017 (5,000 images of 640×480, 36,000 objects with polygons, 80 classes)
//! with 36 detections an image, from the results file to the figures.

use std::fs;
use std::path::Path;
use std::time::Instant;

use detection::data::GroundTruth;
use detection::evaluation::{CocoEvaluator, EvaluatorOptions, Kind, Section, results};
use spark_tests::coco_set::{self, DETECTIONS, IMAGES, OBJECTS};
use spark_tests::run_python;
use tch::Tensor;

/// Figures, and the seconds from the results file to them.
fn evaluate(truth: &GroundTruth, folder: &Path, kind: Kind) -> (Section, f64) {
    let start = Instant::now();
    let path = folder.join(format!("{}.json", kind.name()));
    let results = results::read(&path, truth).unwrap();
    let options = EvaluatorOptions { kinds: vec![kind], ..EvaluatorOptions::default() };
    let mut evaluator = CocoEvaluator::new(truth, options).unwrap();
    for image in results.images {
        evaluator.add(image.image_id, image.detections).unwrap();
    }
    let report = evaluator.finish().unwrap().report;
    let seconds = start.elapsed().as_secs_f64();
    let section = report.sections().next().expect("one kind").1.clone();
    (section, seconds)
}

#[test]
#[ignore = "takes minutes, pycocotools' own; cargo test -p spark-tests --test suite detection_coco_benchmark -- --ignored --nocapture"]
fn evaluation_takes_a_tenth_of_the_time_of_pycocotools() {
    let folder = tempfile::tempdir().unwrap();
    coco_set::write(folder.path()).unwrap();
    let (truth, _) = GroundTruth::read(&folder.path().join("gt.json")).unwrap();
    // The slower of two runs, one on either side of pycocotools'.
    let kinds = [Kind::Bbox, Kind::Segm];
    let before = kinds.map(|kind| evaluate(&truth, folder.path(), kind));
    run_python("coco_eval_reference.py", &[folder.path()]);
    let after = kinds.map(|kind| evaluate(&truth, folder.path(), kind).1);

    println!("{IMAGES} images, {OBJECTS} objects, {DETECTIONS} detections an image");
    for ((kind, (section, before)), after) in kinds.into_iter().zip(before).zip(after) {
        let path = folder.path().join(kind.name());
        let seconds = fs::read_to_string(path.with_extension("seconds")).unwrap();
        let (ours, theirs) = (before.max(after), seconds.parse::<f64>().unwrap());
        let ratio = ours / theirs;
        println!("{}: {ours:.2} s, pycocotools {theirs:.2} s: {ratio:.3} of it", kind.name());
        let tensors = Tensor::read_safetensors(path.with_extension("safetensors")).unwrap();
        let (_, figures) = tensors.iter().find(|(name, _)| name == "figures").unwrap();
        let figures = Vec::<f64>::try_from(figures).unwrap();
        for (ours, theirs) in section.figures.to_array().into_iter().zip(figures) {
            // Sums of 10⁶ numbers up to 1 in another order.
            assert!((ours - theirs).abs() < 1e-12, "{ours} {theirs}");
        }
        println!("{}", section.figures);
        assert!(ratio <= 0.1, "{} takes {ratio:.3} of pycocotools' time", kind.name());
    }
}
