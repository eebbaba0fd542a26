//! An image with objects on it: translucent masks, boxes, captions.

use embedded_graphics::geometry::OriginDimensions;
use embedded_graphics::pixelcolor::Rgb888;
use engine::picture::Canvas;
use hotcoco::{COCO, mask};
use image::RgbImage;

use super::labels::{Labels, Style};
use super::palette::class_color;
use crate::evaluation::{Detection, RleMask, category_ids, category_names};
use crate::structures::Bitmap;
use crate::{Error, Result};

/// How much of a mask's colour covers the image.
const TRANSLUCENCY: f64 = 0.45;

/// An object to draw.
#[derive(Debug, Clone)]
pub struct Object {
    /// Gives the colour.
    pub class: usize,
    /// x, y, width, height in pixels.
    pub bbox: [f64; 4],
    /// Of the image's size.
    pub mask: Option<Bitmap>,
    /// Printed beside the box.
    pub caption: String,
}

/// Detections from `min_score` on, captioned `name 93%`; `names` by class.
///
/// # Errors
/// A class without name.
pub fn predicted_objects(
    detections: &[Detection],
    names: &[String],
    min_score: f64,
) -> Result<Vec<Object>> {
    let drawn = detections.iter().filter(|detection| detection.score >= min_score);
    let mut drawn: Vec<&Detection> = drawn.collect();
    drawn.sort_by(|a, b| b.score.total_cmp(&a.score));
    let object = |detection: &Detection| {
        let Some(name) = names.get(detection.class) else {
            let rule = format!("there are {} class names", names.len());
            return Err(Error::invalid("class of a detection", detection.class, rule));
        };
        Ok(Object {
            class: detection.class,
            bbox: detection.bbox,
            mask: detection.mask.as_ref().map(RleMask::decode),
            caption: format!("{name} {:.0}%", 100.0 * detection.score),
        })
    };
    drawn.into_iter().map(object).collect()
}

/// The labelled objects of an image, captioned with their names; none of an
/// image that is not in the data set.
pub fn ground_truth_objects(ground_truth: &COCO, image_id: u64) -> Vec<Object> {
    let (ids, names) = (category_ids(ground_truth), category_names(ground_truth));
    let object = |id: &u64| {
        let annotation = ground_truth.get_ann(*id)?;
        let class = ids.binary_search(&annotation.category_id).ok()?;
        let rle =
            annotation.segmentation.as_ref().and_then(|_| ground_truth.ann_to_rle(annotation));
        let bbox = annotation.bbox.or_else(|| rle.as_ref().map(mask::to_bbox))?;
        let crowd = if annotation.iscrowd { " (crowd)" } else { "" };
        let caption = format!("{}{crowd}", names[class]);
        let mask = rle.map(|rle| RleMask::from_rle(&rle).decode());
        Some(Object { class, bbox, mask, caption })
    };
    ground_truth.get_ann_ids_for_img(image_id).iter().filter_map(object).collect()
}

/// `image` with the detections from `min_score` on; `names` by class.
///
/// # Errors
/// See [`predicted_objects`] and [`draw_objects`].
pub fn draw_predictions(
    image: &RgbImage,
    detections: &[Detection],
    names: &[String],
    min_score: f64,
) -> Result<RgbImage> {
    draw_objects(image, &predicted_objects(detections, names, min_score)?)
}

/// `image` with `objects`, small ones on top of large ones, the first's
/// captions on top of the others'. What lies outside is cut off.
///
/// # Errors
/// A mask of another size than the image's, or a box that is not finite.
pub fn draw_objects(image: &RgbImage, objects: &[Object]) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    for object in objects {
        check(object, (width, height))?;
    }
    let side = width.max(height);
    // 2 pixels at 640, 5 at 2000.
    let stroke = ((f64::from(side) / 400.0).round() as i32).max(1);
    let mut order: Vec<&Object> = objects.iter().collect();
    order.sort_by(|a, b| area(b).total_cmp(&area(a)));

    let mut canvas = Canvas::from(image.clone());
    for object in &order {
        if let Some(mask) = &object.mask {
            draw_mask(&mut canvas, mask, class_color(object.class), stroke);
        }
    }
    for object in &order {
        draw_box(&mut canvas, corners(object), class_color(object.class), stroke);
    }
    let mut labels = Labels::new(Style::for_side(side), (width, height));
    for object in objects {
        labels.place(&object.caption, corners(object), class_color(object.class));
    }
    labels.draw(&mut canvas);
    Ok(canvas.into_image())
}

fn check(object: &Object, (width, height): (u32, u32)) -> Result<()> {
    if object.bbox.iter().any(|value| !value.is_finite()) {
        let value = format!("{:?}", object.bbox);
        return Err(Error::invalid("box to draw", value, "it must be finite"));
    }
    match &object.mask {
        Some(mask) if (mask.width, mask.height) != (width as usize, height as usize) => {
            let value = format!("{}×{}", mask.height, mask.width);
            let rule = format!("the image has {height}×{width}");
            Err(Error::invalid("mask to draw", value, rule))
        }
        _ => Ok(()),
    }
}

fn area(object: &Object) -> f64 {
    object.bbox[2] * object.bbox[3]
}

/// Left, top, right, bottom in whole pixels; what is far outside stays near.
fn corners(object: &Object) -> (i32, i32, i32, i32) {
    let [x, y, width, height] = object.bbox;
    let pixel = |value: f64| value.round() as i32;
    (pixel(x), pixel(y), pixel(x + width), pixel(y + height))
}

/// The mask's inside translucent, its edge in full colour.
fn draw_mask(canvas: &mut Canvas, mask: &Bitmap, color: Rgb888, stroke: i32) {
    let reach = (stroke as usize).div_ceil(2);
    let inside = |x: usize, y: usize| mask.pixels[y * mask.width + x] != 0;
    for (y, row) in mask.pixels.chunks_exact(mask.width.max(1)).enumerate() {
        for x in (0..mask.width).filter(|x| row[*x] != 0) {
            // The image's border is no edge of the object.
            let edge = (x >= reach && !inside(x - reach, y))
                || (x + reach < mask.width && !inside(x + reach, y))
                || (y >= reach && !inside(x, y - reach))
                || (y + reach < mask.height && !inside(x, y + reach));
            let alpha = if edge { 0.9 } else { TRANSLUCENCY };
            canvas.blend((x as i32, y as i32), color, alpha);
        }
    }
}

/// Four bars just inside the box, cut off at the image.
fn draw_box(
    canvas: &mut Canvas,
    (left, top, right, bottom): (i32, i32, i32, i32),
    color: Rgb888,
    stroke: i32,
) {
    let (across, down) = (canvas.size().width as i32, canvas.size().height as i32);
    let (left, right) = (left.clamp(0, across), right.clamp(0, across));
    let (top, bottom) = (top.clamp(0, down), bottom.clamp(0, down));
    let (width, height) = (right - left, bottom - top);
    if width <= 0 || height <= 0 {
        return;
    }
    let (across, down) = (stroke.min(width), stroke.min(height));
    for (corner, size) in [
        ((left, top), (width, down)),
        ((left, bottom - down), (width, down)),
        ((left, top), (across, height)),
        ((right - across, top), (across, height)),
    ] {
        canvas.fill(corner, (size.0 as u32, size.1 as u32), color);
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn object(class: usize, bbox: [f64; 4], caption: &str) -> Object {
        Object { class, bbox, mask: None, caption: caption.to_owned() }
    }

    fn rgb(color: Rgb888) -> [u8; 3] {
        use embedded_graphics::pixelcolor::RgbColor;
        [color.r(), color.g(), color.b()]
    }

    #[test]
    fn boxes_run_along_their_inner_edge_and_are_cut_off() {
        let image = RgbImage::from_pixel(100, 80, Rgb([200; 3]));
        let drawn = draw_objects(&image, &[object(0, [10.0, 20.0, 30.0, 40.0], "")]).unwrap();
        let color = rgb(class_color(0));
        let count = drawn.pixels().filter(|pixel| pixel.0 == color).count();
        // Captions without text are a strip of 2×10 pixels above.
        assert_eq!(count, 2 * (30 + 40) - 4 + 2 * 10);
        assert_eq!(drawn.get_pixel(10, 20).0, color);
        assert_eq!(drawn.get_pixel(39, 59).0, color);
        assert_eq!(drawn.get_pixel(40, 60).0, [200; 3]);
        for bbox in [[-1e9, -50.0, 2e9, 1e4], [200.0, 10.0, 5.0, 5.0], [5.0, 5.0, 0.0, 0.0]] {
            assert_eq!(
                draw_objects(&image, &[object(1, bbox, "a")]).unwrap().dimensions(),
                (100, 80)
            );
        }
    }

    #[test]
    fn masks_shine_through_and_have_an_edge() {
        let image = RgbImage::from_pixel(20, 20, Rgb([100; 3]));
        let inside =
            |at: usize| u8::from((5..15).contains(&(at % 20)) && (5..15).contains(&(at / 20)));
        let mask = Bitmap { height: 20, width: 20, pixels: (0..400).map(inside).collect() };
        let bbox = [0.0, 0.0, 0.0, 0.0];
        let marked = Object { mask: Some(mask), ..object(2, bbox, "") };
        let drawn = draw_objects(&image, &[marked]).unwrap();
        let mixed = |alpha: f64| {
            rgb(class_color(2))
                .map(|new| (100.0 * (1.0 - alpha) + f64::from(new) * alpha).round() as u8)
        };
        assert_eq!(drawn.get_pixel(10, 10).0, mixed(0.45));
        assert_eq!(drawn.get_pixel(5, 12).0, mixed(0.9));
        assert_eq!(drawn.get_pixel(4, 12).0, [100; 3]);
    }

    #[test]
    fn only_good_detections_are_drawn_best_first() {
        let detection = |class, score| Detection { class, score, bbox: [0.0; 4], mask: None };
        let found = [detection(0, 0.2), detection(1, 0.6), detection(0, 0.934)];
        let names = ["cat".to_owned(), "dog".to_owned()];
        let objects = predicted_objects(&found, &names, 0.5).unwrap();
        let captions: Vec<_> = objects.iter().map(|object| object.caption.as_str()).collect();
        assert_eq!(captions, ["cat 93%", "dog 60%"]);
        let message = predicted_objects(&found, &names[..1], 0.5).unwrap_err().to_string();
        assert_eq!(message, "class of a detection is 1, but there are 1 class names");
    }

    #[test]
    fn misfits_are_refused() {
        let image = RgbImage::new(20, 10);
        let mask = Bitmap { height: 20, width: 10, pixels: vec![0; 200] };
        let wrong = Object { mask: Some(mask), ..object(0, [0.0; 4], "") };
        let message = draw_objects(&image, &[wrong]).unwrap_err().to_string();
        assert_eq!(message, "mask to draw is 20×10, but the image has 10×20");
        let message = draw_objects(&image, &[object(0, [f64::NAN, 0.0, 1.0, 1.0], "")]);
        assert!(message.unwrap_err().to_string().starts_with("box to draw is [NaN"));
    }
}
