//! An image with objects on it: translucent masks, boxes, captions.

use embedded_graphics::geometry::OriginDimensions;
use embedded_graphics::pixelcolor::Rgb888;
use engine::picture::Canvas;
use hotcoco::{COCO, Rle, mask};
use image::RgbImage;

use super::labels::{Labels, Style};
use super::legend::with_legend;
use super::palette::{class_color, instance_color};
use crate::evaluation::{Detection, RleMask, category_ids, category_names};
use crate::structures::rle::{Cutout, cut_out};
use crate::{Error, Result};

/// How much of a mask's colour covers the image.
const TRANSLUCENCY: f64 = 0.45;
/// The same where there are many.
const CROWD_TRANSLUCENCY: f64 = 0.3;
/// An object has a line of one pixel for each so many pixels of its shorter side.
const SIDE_PER_STROKE: f64 = 25.0;
/// From more objects on an image is crowded, however much room there is.
const MANY: usize = 15;
/// So many are no crowd, however small the image is.
const FEW: usize = 3;

/// An object to draw.
#[derive(Debug, Clone)]
pub struct Object {
    /// Gives the colour.
    pub class: usize,
    /// x, y, width, height in pixels.
    pub bbox: [f64; 4],
    /// Of the image's size.
    pub mask: Option<Rle>,
    /// What the class is called.
    pub name: String,
    /// What is said of this object alone, such as its score.
    pub detail: String,
}

impl Object {
    fn caption(&self) -> String {
        format!("{} {}", self.name, self.detail).trim().to_owned()
    }
}

/// Detections from `min_score` on with their scores, such as `93%`; `names` by class.
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
            mask: detection.mask.as_ref().map(RleMask::to_rle),
            name: name.clone(),
            detail: format!("{:.0}%", 100.0 * detection.score),
        })
    };
    drawn.into_iter().map(object).collect()
}

/// The labelled objects of an image; none of an image that is not in the data set.
pub fn ground_truth_objects(ground_truth: &COCO, image_id: u64) -> Vec<Object> {
    let (ids, names) = (category_ids(ground_truth), category_names(ground_truth));
    let object = |id: &u64| {
        let annotation = ground_truth.get_ann(*id)?;
        let class = ids.binary_search(&annotation.category_id).ok()?;
        let mask =
            annotation.segmentation.as_ref().and_then(|_| ground_truth.ann_to_rle(annotation));
        let bbox = annotation.bbox.or_else(|| mask.as_ref().map(mask::to_bbox))?;
        let detail = if annotation.iscrowd { "(crowd)" } else { "" }.to_owned();
        Some(Object { class, bbox, mask, name: names[class].clone(), detail })
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

/// `image` with `objects`, small ones on top of large ones. What lies outside is cut off.
///
/// Few objects have their class's colour and a caption. Where there are many, or captions would
/// cover them, each has a colour of its own (a shade of its class's, if there are several), a
/// caption if there is room, and a legend beneath the image counts the classes.
///
/// # Errors
/// A mask of another size than the image's, or a box that is not finite.
pub fn draw_objects(image: &RgbImage, objects: &[Object]) -> Result<RgbImage> {
    draw_objects_as(image, objects, is_crowd(image, objects))
}

/// Whether there are too many objects for a caption each, most are smaller than theirs, or a
/// quarter would be covered by them.
pub(super) fn is_crowd(image: &RgbImage, objects: &[Object]) -> bool {
    let (style, color) = (style(image), class_color(0));
    let is_small = |object: &&Object| {
        let (width, height) = style.size(&object.caption());
        area(object) < f64::from(width) * f64::from(height)
    };
    let small = objects.iter().filter(is_small).count();
    if objects.len() <= FEW {
        return false;
    }
    if objects.len() > MANY || 2 * small > objects.len() {
        return true;
    }
    let mut labels = labels(image, objects);
    let numbered = objects.iter().enumerate();
    let without_room =
        numbered.filter(|(at, object)| !labels.place(*at, &object.caption(), color)).count();
    4 * without_room > objects.len()
}

/// [`draw_objects`], as a crowd or not.
pub(super) fn draw_objects_as(
    image: &RgbImage,
    objects: &[Object],
    crowd: bool,
) -> Result<RgbImage> {
    let (width, height) = image.dimensions();
    for object in objects {
        check(object, (width, height))?;
    }
    let several = objects.iter().any(|object| object.class != objects[0].class);
    let colors: Vec<Rgb888> = objects
        .iter()
        .enumerate()
        .map(|(number, object)| match (crowd, several) {
            (false, _) => class_color(object.class),
            (true, several) => instance_color(several.then_some(object.class), number),
        })
        .collect();
    let mut order: Vec<usize> = (0..objects.len()).collect();
    order.sort_by(|&a, &b| area(&objects[b]).total_cmp(&area(&objects[a])));

    let mut canvas = Canvas::from(image.clone());
    let translucency = if crowd { CROWD_TRANSLUCENCY } else { TRANSLUCENCY };
    for &at in &order {
        if let Some(mask) = &objects[at].mask {
            let stroke = stroke(&objects[at], image);
            draw_mask(&mut canvas, mask, colors[at], stroke, translucency);
        }
    }
    for &at in &order {
        // In a crowd the outlines say it all.
        if !crowd || objects[at].mask.is_none() {
            let stroke = stroke(&objects[at], image);
            draw_box(&mut canvas, corners(&objects[at]), colors[at], stroke);
        }
    }
    let mut labels = labels(image, objects);
    for (at, (object, color)) in objects.iter().zip(&colors).enumerate() {
        let caption = if crowd && !several { object.detail.clone() } else { object.caption() };
        if !caption.is_empty() && !labels.place(at, &caption, *color) && !crowd {
            labels.place_anyway(at, &caption, *color);
        }
    }
    labels.draw(&mut canvas);
    let drawn = canvas.into_image();
    Ok(if crowd { with_legend(&drawn, objects, style(image)) } else { drawn })
}

fn style(image: &RgbImage) -> Style {
    Style::for_side(image.width().max(image.height()))
}

fn labels(image: &RgbImage, objects: &[Object]) -> Labels {
    Labels::new(style(image), image.dimensions(), objects.iter().map(corners))
}

/// The width of an object's lines: 2 pixels in an image of 640, 5 of 2000, less where the object
/// is small.
fn stroke(object: &Object, image: &RgbImage) -> i32 {
    let of_image = f64::from(image.width().max(image.height())) / 400.0;
    let of_object = object.bbox[2].min(object.bbox[3]) / SIDE_PER_STROKE;
    (of_image.min(of_object).round() as i32).max(1)
}

fn check(object: &Object, (width, height): (u32, u32)) -> Result<()> {
    if object.bbox.iter().any(|value| !value.is_finite()) {
        let value = format!("{:?}", object.bbox);
        return Err(Error::invalid("box to draw", value, "it must be finite"));
    }
    match &object.mask {
        Some(mask) if (mask.w, mask.h) != (width, height) => {
            let value = format!("{}×{}", mask.h, mask.w);
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
fn draw_mask(canvas: &mut Canvas, mask: &Rle, color: Rgb888, stroke: i32, translucency: f64) {
    let (width, height) = (mask.w as usize, mask.h as usize);
    let reach = (stroke as usize).div_ceil(2);
    let Cutout { left, top, pixels } = cut_out(mask);
    let inside = |x: usize, y: usize| {
        let at = x.checked_sub(left).zip(y.checked_sub(top));
        at.is_some_and(|(x, y)| {
            x < pixels.width && y < pixels.height && pixels.pixels[y * pixels.width + x] != 0
        })
    };
    for y in top..top + pixels.height {
        for x in (left..left + pixels.width).filter(|x| inside(*x, y)) {
            // The image's border is no edge of the object.
            let edge = (x >= reach && !inside(x - reach, y))
                || (x + reach < width && !inside(x + reach, y))
                || (y >= reach && !inside(x, y - reach))
                || (y + reach < height && !inside(x, y + reach));
            let alpha = if edge { 0.9 } else { translucency };
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
    use crate::structures::Bitmap;

    fn object(class: usize, bbox: [f64; 4], name: &str) -> Object {
        Object { class, bbox, mask: None, name: name.to_owned(), detail: String::new() }
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
        assert_eq!(count, 2 * (30 + 40) - 4);
        assert_eq!(drawn.get_pixel(10, 20).0, color);
        assert_eq!(drawn.get_pixel(39, 59).0, color);
        assert_eq!(drawn.get_pixel(40, 60).0, [200; 3]);
        for bbox in [[-1e9, -50.0, 2e9, 1e4], [200.0, 10.0, 5.0, 5.0], [5.0, 5.0, 0.0, 0.0]] {
            let drawn = draw_objects(&image, &[object(1, bbox, "a")]).unwrap();
            assert_eq!(drawn.width(), 100);
        }
    }

    #[test]
    fn masks_shine_through_and_have_an_edge() {
        let image = RgbImage::from_pixel(20, 20, Rgb([100; 3]));
        let inside =
            |at: usize| u8::from((5..15).contains(&(at % 20)) && (5..15).contains(&(at / 20)));
        let mask = Bitmap { height: 20, width: 20, pixels: (0..400).map(inside).collect() };
        let bbox = [0.0, 0.0, 0.0, 0.0];
        let marked = Object { mask: Some(mask.to_rle().unwrap()), ..object(2, bbox, "") };
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
        let captions: Vec<_> = objects.iter().map(Object::caption).collect();
        assert_eq!(captions, ["cat 93%", "dog 60%"]);
        let message = predicted_objects(&found, &names[..1], 0.5).unwrap_err().to_string();
        assert_eq!(message, "class of a detection is 1, but there are 1 class names");
    }

    /// Objects of 12 pixels side by side, of so many classes in turn.
    fn pattern(count: usize, classes: usize) -> Vec<Object> {
        let place = |at: usize| [(at % 20 * 12) as f64, (at / 20 * 12) as f64, 12.0, 12.0];
        (0..count).map(|at| object(at % classes, place(at), "cell")).collect()
    }

    #[test]
    fn of_a_crowd_each_object_has_its_colour_and_a_legend_says_the_rest() {
        let image = RgbImage::from_pixel(240, 120, Rgb([0; 3]));
        let drawn = draw_objects(&image, &pattern(200, 1)).unwrap();
        assert!(drawn.width() == 240 && drawn.height() > 120);
        // Thin lines, no words: every object's middle is as it was, and neighbours differ.
        for at in 0..200u32 {
            let (x, y) = (at % 20 * 12, at / 20 * 12);
            assert_eq!(drawn.get_pixel(x + 6, y + 6).0, [0; 3], "object {at}");
            assert_ne!(drawn.get_pixel(x, y), drawn.get_pixel((x + 12) % 240, y), "object {at}");
        }
        let few = draw_objects(&image, &[object(0, [60.0, 40.0, 120.0, 70.0], "cell")]).unwrap();
        assert_eq!(few.dimensions(), (240, 120));
    }

    #[test]
    fn misfits_are_refused() {
        let image = RgbImage::new(20, 10);
        let mask = Bitmap { height: 20, width: 10, pixels: vec![0; 200] };
        let mask = Some(mask.to_rle().unwrap());
        let wrong = Object { mask, ..object(0, [0.0; 4], "") };
        let message = draw_objects(&image, &[wrong]).unwrap_err().to_string();
        assert_eq!(message, "mask to draw is 20×10, but the image has 10×20");
        let message = draw_objects(&image, &[object(0, [f64::NAN, 0.0, 1.0, 1.0], "")]);
        assert!(message.unwrap_err().to_string().starts_with("box to draw is [NaN"));
    }
}
