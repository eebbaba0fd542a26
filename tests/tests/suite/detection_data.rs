//! Data sets for detection against pycocotools and Pillow, live, on a demo data set: masks of
//! every kind, their boxes and areas, and what a resize makes of images and masks.

use std::path::Path;

use data::Pixels;
use detection::data::{CocoDataset, EvalTransform};
use detection::demo::{self, DemoOptions};
use detection::structures::InstanceMask;
use serde_json::Value;
use spark_tests::run_python;

const SHORT: usize = 91;
const MAX: usize = 120;

#[test]
fn masks_and_resizes_are_pycocotools_and_pillows() {
    let folder = tempfile::tempdir().unwrap();
    let photographs = run_python("detection_data.py", &[]);
    let options = DemoOptions { train: 16, val: 1, size: 160, ..DemoOptions::default() };
    let photographs = Path::new(photographs.trim());
    let demo = demo::make(photographs, folder.path(), &options).unwrap();
    let reference = tempfile::tempdir().unwrap();
    let (short, max) = (SHORT.to_string(), MAX.to_string());
    let printed = run_python(
        "detection_data.py",
        &[folder.path(), reference.path(), Path::new(&short), Path::new(&max)],
    );
    let reference_images: Value = serde_json::from_str(&printed).unwrap();

    let dataset = CocoDataset::open(&demo.train.annotations, None).unwrap();
    let transform = EvalTransform { short: SHORT, max: MAX };
    let (mut polygons, mut runs) = (0, 0);
    for (index, expected) in reference_images.as_array().unwrap().iter().enumerate() {
        let (image, objects) = (dataset.image(index).unwrap(), dataset.objects(index).unwrap());
        let size = (image.height(), image.width());
        let expected_objects = expected["objects"].as_array().unwrap();
        assert_eq!(objects.len(), expected_objects.len());
        for (place, expected) in expected_objects.iter().enumerate() {
            assert_eq!(expected["class"], objects.classes[place]);
            let mask = objects.masks[place].to_bitmap(size).unwrap();
            assert_eq!(expected["area"], mask.area());
            assert_eq!(expected["stated"].as_f64(), Some(mask.area() as f64));
            let [x1, y1, x2, y2] = mask.bounding_box().unwrap();
            let bounds = expected["box"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap());
            assert_eq!(bounds.collect::<Vec<_>>(), [x1, y1, x2 - x1, y2 - y1]);
        }

        let original = size;
        let (image, objects) = transform.apply_with(image, objects).unwrap();
        let size = (image.height(), image.width());
        assert_eq!(expected["size"], serde_json::json!([size.0, size.1]));
        let read = |name: String| std::fs::read(reference.path().join(name)).unwrap();
        let Pixels::U8(ours) = image.pixels() else { panic!("{image:?}") };
        let theirs = read(format!("{}.rgb", dataset.record(index).id));
        assert_eq!(ours.len(), theirs.len());
        let apart = ours.iter().zip(&theirs).map(|(a, b)| a.abs_diff(*b));
        // Two passes, each rounded to a whole level with kernels in fixed point, and two JPEG
        // decoders: the libraries differ by a level or two here and there.
        let (largest, sum) = apart.fold((0, 0u64), |(largest, sum), levels| {
            (levels.max(largest), sum + u64::from(levels))
        });
        let mean = sum as f64 / ours.len() as f64;
        assert!(largest <= 4 && mean < 0.5, "image {index}: {largest} at most, {mean} on average");

        // An object too small for the new size is dropped; the demo has none.
        assert_eq!(objects.len(), expected_objects.len());
        for (mask, expected) in objects.masks.iter().zip(expected_objects) {
            match (mask, expected["resized"].as_str()) {
                (InstanceMask::Rle(_), Some(name)) => {
                    let bitmap = mask.to_bitmap(size).unwrap();
                    let theirs = read(name.to_owned());
                    let apart = bitmap.pixels.iter().zip(&theirs).enumerate();
                    for (place, _) in apart.filter(|(_, (ours, theirs))| ours != theirs) {
                        let at = (place / size.1, place % size.1);
                        let tie =
                            is_tie(at.0, original.0, size.0) || is_tie(at.1, original.1, size.1);
                        assert!(tie, "mask {name}: pixel {at:?} of {size:?}");
                    }
                    runs += 1;
                }
                (InstanceMask::Polygons(_), None) => polygons += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(polygons > 5 && runs > 5, "{polygons} polygons, {runs} runs");
}

/// Whether a pixel's centre falls between two pixels of the image before, of which Pillow's
/// running sum takes either.
fn is_tie(at: usize, from: usize, to: usize) -> bool {
    ((2 * at + 1) * from).is_multiple_of(2 * to)
}
