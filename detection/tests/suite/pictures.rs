//! Every picture of predictions and evaluations, small and large, with few and
//! many classes. They are left in cargo's temporary folder, to be looked at.

use std::fs;
use std::path::Path;

use data::rng::Rng;
use detection::evaluation::{
    Analysis, Confusion, Detection, ErrorKind, ErrorShare, Kind, PrecisionRecall, RECALLS, RleMask,
};
use detection::picture::{
    Comparison, comparison_sheet, confusion_matrix, draw_predictions, error_bars, png, pr_curves,
    predicted_objects,
};
use detection::structures::Bitmap;
use image::{Rgb, RgbImage};

fn save(name: &str, picture: &RgbImage) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pictures");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), png(picture).unwrap()).unwrap();
}

fn names(count: usize) -> Vec<String> {
    let some = ["person", "bicycle", "traffic light", "dining table", "hair drier", "zebra"];
    let name = |class: usize| match class / some.len() {
        0 => some[class].to_owned(),
        turn => format!("{} {turn}", some[class % some.len()]),
    };
    (0..count).map(name).collect()
}

/// Something with light and dark parts.
fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (u, v) = (f64::from(x) / f64::from(width), f64::from(y) / f64::from(height));
        let wave = 40.0 * (u * 23.0 + v * 9.0).sin() + 30.0 * (v * 31.0 - u * 5.0).cos();
        let light = |base: f64| (base + wave + 70.0 * (1.0 - v)).clamp(0.0, 255.0) as u8;
        Rgb([light(90.0), light(105.0), light(95.0)])
    })
}

/// Objects all over the image, some beyond its edge, some in one place.
fn detections(width: u32, height: u32, classes: usize, count: usize) -> Vec<Detection> {
    let mut rng = Rng::new(3, &[u64::from(width)]);
    let (full_width, full_height) = (f64::from(width), f64::from(height));
    let one = |at: usize| {
        let (w, h) = (full_width * rng.between(0.1, 0.4), full_height * rng.between(0.15, 0.5));
        let x = rng.between(-0.1, 0.85) * full_width;
        let y = if at.is_multiple_of(4) { 0.0 } else { rng.between(-0.05, 0.8) * full_height };
        let inside = |at: usize| {
            let (px, py) = ((at % width as usize) as f64, (at / width as usize) as f64);
            let (u, v) = ((px - x) / w * 2.0 - 1.0, (py - y) / h * 2.0 - 1.0);
            u8::from(u.abs().powi(3) + v.abs().powi(3) < 1.0)
        };
        let pixels = (0..(width * height) as usize).map(inside).collect();
        let mask = Bitmap { height: height as usize, width: width as usize, pixels };
        let (class, score) = (rng.below(classes), rng.between(0.3, 1.0));
        Detection { class, score, bbox: [x, y, w, h], mask: Some(RleMask::encode(&mask).unwrap()) }
    };
    (0..count).map(one).collect()
}

#[test]
fn predictions() {
    for (name, width, height, classes, count) in [
        ("predictions-small.png", 160, 120, 3, 3),
        ("predictions.png", 640, 480, 3, 6),
        ("predictions-80.png", 640, 480, 80, 25),
        ("predictions-large.png", 2400, 1600, 80, 12),
    ] {
        let image = scene(width, height);
        let found = detections(width, height, classes, count);
        let picture = draw_predictions(&image, &found, &names(classes), 0.0).unwrap();
        // Beneath many objects there is a legend.
        assert!(picture.width() == width && picture.height() >= height);
        assert!(count > 3 || picture.height() == height);
        assert_ne!(picture, image);
        // Nothing to draw leaves the image alone.
        assert_eq!(draw_predictions(&image, &found, &names(classes), 2.0).unwrap(), image);
        save(name, &picture);
    }
}

#[test]
fn sheets() {
    let rows = [(640, 480), (90, 120), (1200, 500)].map(|(width, height)| {
        let found = detections(width, height, 3, 5);
        let truth = predicted_objects(&found[..3], &names(3), 0.0).unwrap().into_iter();
        Comparison {
            image: scene(width, height),
            truth: truth
                .map(|mut object| {
                    object.detail.clear();
                    object
                })
                .collect(),
            found: predicted_objects(&found, &names(3), 0.5).unwrap(),
        }
    });
    let sheet = comparison_sheet("epoch 12, scores from 0.5", &rows).unwrap();
    assert_eq!(sheet.width(), 16 + 480 + 8 + 480 + 16);
    save("sheet.png", &sheet);
}

fn curves(classes: usize) -> PrecisionRecall {
    let mut rng = Rng::new(5, &[classes as u64]);
    let curve = |_| {
        let (level, reach) = (rng.between(0.3, 1.0), rng.between(0.2, 1.0));
        let fall = rng.between(0.5, 4.0);
        let mut precision = 1.0f64;
        let value = |at: usize| {
            let recall = at as f64 / (RECALLS - 1) as f64;
            if rng.uniform() < 0.3 {
                precision = precision.min(1.0 - (1.0 - level) * (recall / reach).powf(fall));
            }
            if recall > reach { 0.0 } else { precision.max(0.0) }
        };
        Some((0..RECALLS).map(value).collect())
    };
    PrecisionRecall { iou: 0.5, classes: (0..classes).map(curve).collect() }
}

#[test]
fn precision_recall_curves() {
    for classes in [1, 3, 20, 80] {
        let title = "bbox, precision and recall at IoU .50";
        let picture = pr_curves(title, &curves(classes), &names(classes)).unwrap();
        assert!(picture.width() > 700 && picture.height() >= 520);
        save(&format!("pr-{classes}.png"), &picture);
    }
}

#[test]
fn confusion_matrices() {
    for (classes, most) in [(3, 900), (20, 90), (80, 4000)] {
        let mut rng = Rng::new(6, &[classes as u64]);
        let side = classes + 1;
        let count = |at: usize| match (at / side, at % side) {
            (row, column) if row == classes && column == classes => 0,
            (row, column) if row == column => rng.below(most) as u64 + 20,
            (row, column) if row == classes || column == classes => rng.below(most / 4) as u64,
            _ if rng.uniform() < 0.15 => rng.below(most / 10) as u64,
            _ => 0,
        };
        let counts = (0..side * side).map(count).collect();
        let confusion = Confusion { names: names(classes), counts };
        let picture =
            confusion_matrix("Confusion at IoU .50, scores from 0.3", &confusion).unwrap();
        save(&format!("confusion-{classes}.png"), &picture);
    }
}

#[test]
fn bars_of_errors() {
    let gains = [0.031, 0.064, 0.008, 0.002, 0.042, 0.071, 0.163, 0.112];
    let counts = [120, 310, 44, 18, 1204, 260];
    let errors = ErrorKind::ALL.into_iter().zip(gains).enumerate();
    let errors = errors.map(|(at, (kind, delta_ap))| ErrorShare {
        kind,
        delta_ap,
        count: counts.get(at).copied(),
    });
    let analysis = Analysis {
        kind: Kind::Bbox,
        iou: 0.5,
        ap: 0.587,
        errors: errors.collect(),
        confusion: Confusion { names: Vec::new(), counts: vec![0] },
        min_score: 0.3,
    };
    save("errors.png", &error_bars("Errors on the validation set", &analysis));
}
