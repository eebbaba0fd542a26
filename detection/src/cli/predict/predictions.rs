//! Predictions in COCO's format.

use serde_json::{Value, json};

use crate::data::Id;
use crate::evaluation::Detection;

/// The file in COCO's format, as it grows.
pub struct Predictions {
    /// The file.
    pub json: Value,
    /// Images so far.
    pub images: u64,
    /// Objects so far.
    pub objects: u64,
}

impl Predictions {
    /// A file of no images, with these categories.
    pub fn new(classes: &[(Id, String)]) -> Self {
        let categories: Vec<Value> =
            classes.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        let json = json!({ "images": [], "annotations": [], "categories": categories });
        Self { json, images: 0, objects: 0 }
    }

    /// Adds an image, its width and height, and what was found in it.
    pub fn add(&mut self, name: &str, (width, height): (u32, u32), found: &[Detection]) {
        self.images += 1;
        let image = json!({
            "id": self.images, "file_name": name, "width": width, "height": height,
        });
        push(&mut self.json["images"], image);
        for detection in found {
            self.objects += 1;
            let [_, _, w, h] = detection.bbox;
            let category = self.json["categories"][detection.class]["id"].clone();
            let mut annotation = json!({
                "id": self.objects, "image_id": self.images, "category_id": category,
                "bbox": detection.bbox, "area": w * h, "iscrowd": 0, "score": detection.score,
            });
            if let Some(mask) = &detection.mask {
                annotation["area"] = mask.area().into();
                annotation["segmentation"] = json!(mask.segmentation());
            }
            push(&mut self.json["annotations"], annotation);
        }
    }
}

fn push(list: &mut Value, value: Value) {
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}
