//! A data set and detections the shape of COCO's val2017, to time evaluations on.

use std::f64::consts::TAU;
use std::path::Path;
use std::{fs, io};

use data::rng::Rng;
use hotcoco::mask;
use serde_json::{Value, json};

/// Images, of 640×480.
pub const IMAGES: u64 = 5000;
/// Objects with polygons, over all images.
pub const OBJECTS: usize = 36_000;
/// Detections of an image.
pub const DETECTIONS: usize = 36;
const CLASSES: usize = 80;
const SIZE: (u32, u32) = (480, 640);

/// A star of `corners` corners around a centre: the outline of a thing.
#[derive(Clone)]
struct Outline {
    centre: (f64, f64),
    radii: Vec<f64>,
}

impl Outline {
    fn draw(rng: &mut Rng) -> Self {
        // As many small as large ones, 8 to 200 pixels across.
        let size = 4.0 * 25f64.powf(rng.uniform());
        let centre = (rng.between(0.0, 640.0), rng.between(0.0, 480.0));
        let corners = 12 + rng.below(28);
        let radii = (0..corners).map(|_| size * rng.between(0.7, 1.0)).collect();
        Self { centre, radii }
    }

    /// Elsewhere by a few per cent, of another size by a few more.
    fn near(&self, rng: &mut Rng) -> Self {
        let (scale, size) = (rng.between(0.85, 1.15), self.radii[0]);
        let mut shift = || rng.between(-0.15, 0.15) * size;
        let centre = (self.centre.0 + shift(), self.centre.1 + shift());
        Self { centre, radii: self.radii.iter().map(|radius| radius * scale).collect() }
    }

    fn polygon(&self) -> Vec<f64> {
        let step = TAU / self.radii.len() as f64;
        let corner = |(at, radius): (usize, &f64)| {
            let (sin, cos) = (step * at as f64).sin_cos();
            let x = (self.centre.0 + radius * cos).clamp(0.0, 640.0);
            let y = (self.centre.1 + radius * sin).clamp(0.0, 480.0);
            // COCO's files have two digits.
            [(x * 100.0).round() / 100.0, (y * 100.0).round() / 100.0]
        };
        self.radii.iter().enumerate().flat_map(corner).collect()
    }
}

fn bounds(polygon: &[f64]) -> [f64; 4] {
    let range = |start: usize| {
        let values = polygon.iter().skip(start).step_by(2);
        values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)))
    };
    let ((left, right), (top, bottom)) = (range(0), range(1));
    [left, top, right - left, bottom - top]
}

/// Writes gt.json, bbox.json and segm.json into `folder`.
///
/// # Errors
/// They cannot be written.
pub fn write(folder: &Path) -> io::Result<()> {
    let mut rng = Rng::new(1, &[]);
    let mut annotations = Vec::new();
    let mut objects: Vec<Vec<(usize, Outline)>> = vec![Vec::new(); IMAGES as usize];
    for id in 1..=OBJECTS {
        let image = rng.below(IMAGES as usize);
        let (class, outline) = (rng.below(CLASSES), Outline::draw(&mut rng));
        let polygon = outline.polygon();
        let rle = mask::fr_poly(&polygon, SIZE.0, SIZE.1).unwrap();
        annotations.push(json!({
            "id": id, "image_id": image + 1, "category_id": class + 1, "bbox": bounds(&polygon),
            "area": mask::area(&rle), "iscrowd": 0, "segmentation": [polygon],
        }));
        objects[image].push((class, outline));
    }
    let images: Vec<Value> = (1..=IMAGES)
        .map(|id| json!({"id": id, "file_name": "", "height": SIZE.0, "width": SIZE.1}))
        .collect();
    let categories: Vec<Value> =
        (1..=CLASSES).map(|id| json!({"id": id, "name": format!("class {id}")})).collect();
    let truth = json!({"images": images, "annotations": annotations, "categories": categories});
    fs::write(folder.join("gt.json"), truth.to_string())?;

    let (mut boxes, mut masks) = (Vec::new(), Vec::new());
    for (image, objects) in objects.iter().enumerate() {
        for at in 0..DETECTIONS {
            // Each object two or three times, the rest anywhere.
            let (class, outline, best) = match objects.get(at % (2 * objects.len().max(6))) {
                Some((class, outline)) => (*class, outline.near(&mut rng), 1.0),
                None => (rng.below(CLASSES), Outline::draw(&mut rng), 0.6),
            };
            let class = if rng.uniform() < 0.1 { rng.below(CLASSES) } else { class };
            let (polygon, score) = (outline.polygon(), rng.between(0.05, best));
            let rle = mask::fr_poly(&polygon, SIZE.0, SIZE.1).unwrap();
            let entry = json!({"image_id": image + 1, "category_id": class + 1, "score": score});
            let (mut a_box, mut a_mask) = (entry.clone(), entry);
            a_box["bbox"] = json!(bounds(&polygon));
            a_mask["segmentation"] =
                json!({"size": [SIZE.0, SIZE.1], "counts": mask::rle_to_string(&rle)});
            boxes.push(a_box);
            masks.push(a_mask);
        }
    }
    fs::write(folder.join("bbox.json"), Value::from(boxes).to_string())?;
    fs::write(folder.join("segm.json"), Value::from(masks).to_string())
}
