//! Sizes, geometry of image and objects together, randomness, and options.

use data::Pixels;

use super::*;
use crate::structures::{Bitmap, InstanceMask};

/// Black with one white rectangle, (x1, y1, x2, y2), which is the only object: as a bitmap and
/// as a polygon.
fn scene(width: usize, height: usize, [x1, y1, x2, y2]: [usize; 4]) -> (Image, Objects) {
    let mut mask = Bitmap::empty(height, width);
    for y in y1..y2 {
        mask.pixels[y * width + x1..y * width + x2].fill(1);
    }
    let pixels = mask.pixels.iter().flat_map(|&inside| [inside * 255; 3]).collect();
    let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(|side| side as f64);
    let objects = Objects {
        boxes: vec![[x1, y1, x2, y2]; 2],
        classes: vec![4, 2],
        masks: vec![
            InstanceMask::Bitmap(mask),
            InstanceMask::Polygons(vec![vec![x1, y1, x2, y1, x2, y2, x1, y2]]),
        ],
    };
    (Image::new(width, height, 3, Pixels::U8(pixels)).unwrap(), objects)
}

/// The smallest box around the bright pixels.
fn bright(image: &Image) -> Option<[f64; 4]> {
    let Pixels::U8(pixels) = image.pixels() else { unreachable!() };
    let (height, width) = (image.height(), image.width());
    let pixels = pixels.chunks_exact(3).map(|p| u8::from(p[0] > 127)).collect();
    Bitmap { height, width, pixels }.bounding_box()
}

fn assert_near(found: [f64; 4], expected: [f64; 4], tolerance: f64) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= tolerance);
    assert!(near, "{found:?} is not within {tolerance} of {expected:?}");
}

#[test]
fn sizes_are_detectron2s() {
    // detectron2's formula, worked out by hand: int(side · scale + 0.5).
    assert_eq!(shortest_edge((480, 640), 800, 1333), (800, 1067));
    assert_eq!(shortest_edge((427, 640), 800, 1333), (800, 1199));
    assert_eq!(shortest_edge((640, 427), 800, 1333), (1199, 800));
    // The long side's limit: 1333 / (800 · 1000/300) · 800 = 399.9.
    assert_eq!(shortest_edge((300, 1000), 800, 1333), (400, 1333));
    assert_eq!(shortest_edge((500, 500), 512, 1333), (512, 512));
    assert_eq!(shortest_edge((1, 5000), 800, 1333), (1, 1333));
}

#[test]
fn every_step_moves_objects_with_their_pixels() {
    let steps = [
        Augmentation::ResizeShortestEdge { short: vec![60, 90, 155], max: 400 },
        Augmentation::Flip { probability: 1.0 },
        Augmentation::Crop { low: 50, high: 90 },
        Augmentation::ScaleJitter { low: 0.5, high: 2.0, height: 80, width: 70 },
    ];
    let mixed = vec![
        Augmentation::Flip { probability: 0.5 },
        Augmentation::OneOf(vec![vec![steps[0].clone()], vec![steps[2].clone(), steps[0].clone()]]),
    ];
    let lists = steps.into_iter().map(|step| vec![step]).chain([mixed]);
    let mut cut = 0;
    for steps in lists {
        let transform = TrainTransform::new(steps).unwrap();
        for seed in 0..20 {
            let (image, objects) = scene(120, 100, [30, 20, 75, 70]);
            let (image, objects) =
                transform.apply(image, objects, &mut Rng::new(seed, &[])).unwrap();
            let size = (image.height(), image.width());
            let Some(expected) = bright(&image) else {
                assert!(objects.is_empty(), "{transform:?}");
                continue;
            };
            assert_eq!(objects.classes, [4, 2]);
            cut += usize::from(expected[0] == 0.0 || expected[2] == size.1 as f64);
            for (bounds, mask) in objects.boxes.iter().zip(&objects.masks) {
                // A side that falls within a pixel shows in that pixel or not.
                assert_near(*bounds, expected, 1.0);
                let mask = mask.to_bitmap(size).unwrap();
                assert_near(mask.bounding_box().unwrap(), expected, 1.0);
            }
        }
    }
    assert!(cut > 5, "crops that cut the object: {cut}");
}

#[test]
fn objects_outside_a_crop_are_dropped() {
    let transform = TrainTransform::new(vec![Augmentation::Crop { low: 20, high: 20 }]).unwrap();
    let dropped = (0..50).filter(|&seed| {
        let (image, objects) = scene(200, 200, [0, 0, 10, 10]);
        let (image, objects) = transform.apply(image, objects, &mut Rng::new(seed, &[])).unwrap();
        assert_eq!((image.width(), image.height()), (20, 20));
        assert_eq!(objects.is_empty(), bright(&image).is_none());
        objects.is_empty()
    });
    // A crop meets the corner one time in 330.
    assert!(dropped.count() > 45);
}

#[test]
fn boxes_end_at_the_image_and_empty_ones_go() {
    let (image, mut objects) = scene(40, 30, [5, 5, 20, 20]);
    objects.boxes = vec![[-4.0, 5.0, 60.0, 20.0], [45.0, 5.0, 60.0, 20.0]];
    let transform = TrainTransform::new(vec![]).unwrap();
    let (_, objects) = transform.apply(image, objects, &mut Rng::new(0, &[])).unwrap();
    assert_eq!(objects.boxes, [[0.0, 5.0, 40.0, 20.0]]);
    assert_eq!(objects.classes, [4]);
}

#[test]
fn draws_every_size_and_depends_on_the_stream_alone() {
    let transform = TrainTransform::multi_scale(vec![40, 50, 60], 500).unwrap();
    let apply = |seed| {
        let (image, objects) = scene(120, 100, [30, 20, 75, 70]);
        transform.apply(image, objects, &mut Rng::new(seed, &[])).unwrap()
    };
    let sizes: std::collections::BTreeSet<usize> = (0..40).map(|s| apply(s).0.height()).collect();
    assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [40, 50, 60]);
    assert_eq!(apply(3), apply(3));
    assert!((0..10).any(|seed| apply(seed).1 != apply(seed + 10).1));
}

#[test]
fn evaluation_scales_and_nothing_else() {
    let (image, objects) = scene(120, 100, [30, 20, 75, 70]);
    let transform = EvalTransform { short: 50, max: 70 };
    let (image, objects) = transform.apply_with(image, objects).unwrap();
    assert_eq!((image.height(), image.width()), (50, 60));
    assert_eq!(objects.boxes[0], [15.0, 10.0, 37.5, 35.0]);
}

#[test]
fn settings_are_read_and_checked() {
    let transform = TrainTransform::mmdet();
    let text = serde_json::to_string(&transform).unwrap();
    assert_eq!(serde_json::from_str::<TrainTransform>(&text).unwrap(), transform);
    let refused =
        |text: &str| serde_json::from_str::<TrainTransform>(text).unwrap_err().to_string();
    assert!(refused(r#"[{"flip": {"probability": 1.5}}]"#).contains("flip probability is 1.5"));
    let message = refused(r#"[{"resize_shortest_edge": {"short": [], "max": 9}}]"#);
    assert!(message.contains("short sides is []"), "{message}");
    let message = refused(r#"[{"one_of": [[{"crop": {"low": 9, "high": 3}}]]}]"#);
    assert!(message.contains("(9, 3)"), "{message}");
    assert!(refused(r#"[{"rotate": {}}]"#).contains("rotate"));
    assert!(EvalTransform { short: 0, max: 9 }.apply(scene(4, 4, [0, 0, 1, 1]).0).is_err());
}

/// Of many random draws none is smaller than what is said beforehand, and one is as small.
#[test]
fn the_smallest_size_is_known_beforehand() {
    let resize = |short: Vec<usize>, max| Augmentation::ResizeShortestEdge { short, max };
    let jitter = Augmentation::ScaleJitter { low: 0.1, high: 2.0, height: 64, width: 48 };
    let crop = Augmentation::Crop { low: 20, high: 60 };
    let choice = Augmentation::OneOf(vec![vec![resize(vec![40], 90)], vec![crop.clone()]]);
    for steps in [vec![resize(vec![32, 64], 100)], vec![jitter], vec![crop], vec![choice]] {
        let transform = TrainTransform::new(steps).unwrap();
        let size = transform.smallest((60, 80));
        let longest = |draw: u64| {
            let (image, objects) = scene(80, 60, [1, 1, 70, 50]);
            let (image, _) = transform.apply(image, objects, &mut Rng::new(0, &[draw])).unwrap();
            image.height().max(image.width())
        };
        let smallest = (0..400).map(longest).min().unwrap();
        let expected = size.0.max(size.1);
        assert!(
            (expected..=expected + 3).contains(&smallest),
            "{transform:?}: {size:?} {smallest}"
        );
    }
}
