//! The annotation file of the demo.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::scene::Visible;
use super::shapes::Shape;
use crate::structures::InstanceMask;
use crate::{Error, Result};

/// Records in COCO's format.
pub(super) struct Annotations {
    images: Vec<Value>,
    annotations: Vec<Value>,
    categories: Vec<Value>,
}

impl Annotations {
    pub(super) fn new(classes: &[Shape]) -> Self {
        let category = |shape: &Shape| json!({ "id": shape.id(), "name": shape.name(), "supercategory": "shape" });
        Self {
            images: Vec::new(),
            annotations: Vec::new(),
            categories: classes.iter().map(category).collect(),
        }
    }

    /// Adds a picture of `(height, width)` and what can be seen in it.
    pub(super) fn add(
        &mut self,
        file: &str,
        (height, width): (usize, usize),
        objects: &[Visible],
    ) -> Result<()> {
        let image = self.images.len() + 1;
        self.images
            .push(json!({ "id": image, "file_name": file, "height": height, "width": width }));
        for object in objects {
            let id = self.annotations.len() + 1;
            let (segmentation, area, bounds) = describe(object, id, (height, width))?;
            self.annotations.push(json!({
                "id": id,
                "image_id": image,
                "category_id": object.shape.id(),
                "iscrowd": u8::from(object.crowd),
                "segmentation": segmentation,
                "area": area,
                "bbox": bounds,
            }));
        }
        Ok(())
    }

    /// Writes the file and says how many objects and crowds it has.
    pub(super) fn write(&self, path: &Path) -> Result<usize> {
        let file = json!({
            "info": { "description": "shapes on photographs" },
            "images": self.images,
            "annotations": self.annotations,
            "categories": self.categories,
        });
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(path, file.to_string()));
        written.map_err(|e| data::Error::io(path, e))?;
        Ok(self.annotations.len())
    }
}

/// Segmentation, area and box: a polygon where one is the whole truth, else run lengths, of an
/// object in either of their spellings and of a crowd as numbers, as COCO has them.
fn describe(object: &Visible, id: usize, size: (usize, usize)) -> Result<(Value, f64, [f64; 4])> {
    if let Some(outline) = &object.outline {
        let corners = outline.outer.iter();
        let polygon: Vec<f64> =
            corners.flat_map(|&(x, y)| [hundredths(x), hundredths(y)]).collect();
        let mask = InstanceMask::Polygons(vec![polygon.clone()]);
        let [x1, y1, x2, y2] = mask.bounding_box().unwrap_or_default();
        let bounds = [x1, y1, hundredths(x2 - x1), hundredths(y2 - y1)];
        let area = mask.to_bitmap(size)?.area() as f64;
        return Ok((json!([polygon]), area, bounds));
    }
    let rle = object.mask.to_rle()?;
    let bounds = hotcoco::mask::to_bbox(&rle);
    let area = hotcoco::mask::area(&rle) as f64;
    let counts = if object.crowd || id.is_multiple_of(2) {
        json!(rle.counts)
    } else {
        Value::String(hotcoco::mask::rle_to_string(&rle))
    };
    if area == 0.0 {
        return Err(Error::invalid("visible pixels of an object", 0, "some are left to be seen"));
    }
    Ok((json!({ "size": [size.0, size.1], "counts": counts }), area, bounds))
}

/// COCO gives coordinates in hundredths of a pixel.
fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
