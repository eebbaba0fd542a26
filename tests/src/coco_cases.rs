//! Random COCO data sets with detections, as hard as evaluators find them.

use data::rng::Rng;
use detection::evaluation::{Detection, ImageDetections, RleMask};
use detection::structures::Bitmap;
use serde_json::{Value, json};

/// Category ids in a file's order: not sorted, not contiguous. The last has no
/// object.
pub const CATEGORIES: [u64; 5] = [7, 3, 90, 12, 1];
/// Their classes: ranks among the ids.
const CLASSES: [usize; 5] = [2, 1, 4, 3, 0];

/// A ground truth and what a detector found.
#[derive(Debug)]
pub struct Case {
    /// A folder's name.
    pub name: String,
    /// The annotation file.
    pub truth: Value,
    /// Of some images; the others hold no detections.
    pub found: Vec<ImageDetections>,
}

/// How a random case is made.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Images.
    pub images: usize,
    /// (height, width) of each.
    pub size: (usize, usize),
    /// Most objects an image.
    pub objects: usize,
    /// Share of crowds among them.
    pub crowds: f64,
    /// Most detections an object; further ones lie anywhere.
    pub detections: usize,
    /// Most detections of nothing, an image.
    pub strays: usize,
    /// How many different scores there are; few make ties.
    pub scores: usize,
    /// Whether boxes lie on whole pixels, so that IoUs and areas hit their
    /// thresholds exactly.
    pub whole: bool,
    /// How many of the categories occur.
    pub categories: usize,
}

impl Default for Recipe {
    fn default() -> Self {
        Recipe {
            images: 12,
            size: (140, 200),
            objects: 7,
            crowds: 0.15,
            detections: 3,
            strays: 4,
            scores: 1000,
            whole: false,
            categories: 4,
        }
    }
}

type Area = [f64; 4];

impl Recipe {
    /// The case that `seed` draws.
    pub fn draw(&self, name: &str, seed: u64) -> Case {
        let mut rng = Rng::new(seed, &[1]);
        let (height, width) = self.size;
        let (mut images, mut annotations, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..self.images {
            // Ids neither contiguous nor in order.
            let image_id = ((index * 7) % self.images * 10 + 5) as u64;
            let file_name = format!("{image_id}.jpg");
            images.push(json!({
                "id": image_id, "file_name": file_name, "height": height, "width": width
            }));
            let mut detections = Vec::new();
            for _ in 0..rng.below(self.objects + 1) {
                let category = rng.below(self.categories);
                let area = self.area(&mut rng);
                let crowd = rng.uniform() < self.crowds;
                let id = annotations.len() as u64 + 1;
                let base = json!({
                    "id": id, "image_id": image_id, "category_id": CATEGORIES[category],
                    "bbox": area, "iscrowd": u8::from(crowd),
                });
                annotations.push(self.with_mask(base, area, crowd, &mut rng));
                for _ in 0..rng.below(self.detections + 1) {
                    let wrong = rng.uniform() < 0.15;
                    let category = if wrong { rng.below(5) } else { category };
                    let near = self.near(area, &mut rng);
                    detections.push(self.detection(category, near, &mut rng));
                    // The same again: only the first can be right.
                    if rng.uniform() < 0.1 {
                        detections.extend(detections.last().cloned());
                    }
                }
            }
            for _ in 0..rng.below(self.strays + 1) {
                let (category, area) = (rng.below(5), self.area(&mut rng));
                detections.push(self.detection(category, area, &mut rng));
            }
            rng.shuffle(&mut detections);
            if !detections.is_empty() {
                found.push(ImageDetections { image_id, detections });
            }
        }
        let categories: Vec<Value> =
            CATEGORIES.iter().map(|id| json!({"id": id, "name": format!("thing {id}")})).collect();
        let truth = json!({
            "images": images, "annotations": annotations, "categories": categories
        });
        Case { name: name.to_owned(), truth, found }
    }

    /// A box within the image: small, medium or large, or at the very limits.
    fn area(&self, rng: &mut Rng) -> Area {
        let (height, width) = (self.size.0 as f64, self.size.1 as f64);
        let (w, h) = match rng.below(6) {
            0 => (32.0, 32.0),
            1 => (96.0, 96.0),
            2 => (rng.between(2.0, 30.0), rng.between(2.0, 30.0)),
            3 => (rng.between(33.0, 90.0), rng.between(33.0, 90.0)),
            4 => (64.0, 16.0),
            _ => (rng.between(97.0, width - 1.0), rng.between(97.0, height - 1.0)),
        };
        let corner = (rng.between(0.0, width - w), rng.between(0.0, height - h));
        self.round([corner.0, corner.1, w, h])
    }

    fn round(&self, area: Area) -> Area {
        if self.whole { area.map(f64::round) } else { area }
    }

    /// A box that overlaps `area` more or less, at times exactly by half.
    fn near(&self, [x, y, w, h]: Area, rng: &mut Rng) -> Area {
        match rng.below(4) {
            0 => [x, y, w, h],
            1 => [x, y, w, h / 2.0],
            _ => {
                let mut shift = |side: f64| rng.between(-0.2, 0.2) * side;
                let (dx, dy, dw, dh) = (shift(w), shift(h), shift(w), shift(h));
                self.round([(x + dx).max(0.0), (y + dy).max(0.0), w + dw, h + dh])
            }
        }
    }

    fn detection(&self, category: usize, bbox: Area, rng: &mut Rng) -> Detection {
        let score = (rng.below(self.scores) + 1) as f64 / self.scores as f64;
        let (class, round) = (CLASSES[category], rng.uniform() < 0.5);
        let mask = RleMask::encode(&filled(self.size, bbox, round)).expect("a mask");
        Detection { class, score, bbox, mask: Some(mask) }
    }

    /// The annotation with its mask: crowds as runs, others as polygons, the
    /// area that of the mask or exactly that of the box.
    fn with_mask(&self, mut base: Value, [x, y, w, h]: Area, crowd: bool, rng: &mut Rng) -> Value {
        let exact = rng.uniform() < 0.5;
        base["area"] = if exact { json!(w * h) } else { json!((w * h * 0.75).round()) };
        base["segmentation"] = if crowd {
            let bitmap = filled(self.size, [x, y, w, h], false);
            json!({"size": [self.size.0, self.size.1], "counts": runs(&bitmap)})
        } else if rng.uniform() < 0.5 {
            json!([[x, y, x + w, y, x + w, y + h, x, y + h]])
        } else {
            let (cx, cy) = (x + w / 2.0, y + h / 2.0);
            json!([[x, cy, cx, y, x + w, cy], [x, cy, cx, y + h, x + w, cy]])
        };
        base
    }
}

/// A rectangle or the ellipse in it.
fn filled((height, width): (usize, usize), [x, y, w, h]: Area, round: bool) -> Bitmap {
    let inside = |at: usize| {
        let (px, py) = ((at % width) as f64 + 0.5, (at / width) as f64 + 0.5);
        let (u, v) = ((px - x) / w * 2.0 - 1.0, (py - y) / h * 2.0 - 1.0);
        u8::from(if round { u * u + v * v < 1.0 } else { u.abs() < 1.0 && v.abs() < 1.0 })
    };
    Bitmap { height, width, pixels: (0..height * width).map(inside).collect() }
}

/// Run lengths down the columns, outside first.
fn runs(bitmap: &Bitmap) -> Vec<usize> {
    let (height, width) = (bitmap.height, bitmap.width);
    let columns = (0..height * width).map(|at| bitmap.pixels[at % height * width + at / height]);
    let (mut runs, mut last) = (vec![0], 0);
    for pixel in columns {
        if pixel != last {
            runs.push(0);
            last = pixel;
        }
        *runs.last_mut().expect("one run") += 1;
    }
    runs
}
