//! Labelled objects and predictions side by side, image by image.

use embedded_graphics::text::Alignment;
use engine::picture::Canvas;
use engine::picture::canvas::{BODY, HEADING, INK};
use hotcoco::Rle;
use image::RgbImage;
use image::imageops::{FilterType, resize};

use super::objects::{Object, draw_objects_as, is_crowd};
use crate::structures::rle::resize_nearest;
use crate::{Error, Result};

/// White around everything, in pixels.
const MARGIN: u32 = 16;
/// White between images, in pixels.
const GAP: u32 = 8;
/// The longer side of an image on the sheet; larger ones are shrunk to it,
/// smaller ones enlarged by a whole factor.
const SIDE: u32 = 480;

const COLUMNS: [&str; 2] = ["labelled", "predicted"];

/// One row of a sheet.
#[derive(Debug)]
pub struct Comparison {
    /// The image itself.
    pub image: RgbImage,
    /// What is labelled in it.
    pub truth: Vec<Object>,
    /// What was found.
    pub found: Vec<Object>,
}

/// A sheet with one row an image, captioned `caption`.
///
/// # Errors
/// No rows, an image without pixels, and those of
/// [`draw_objects`](super::draw_objects).
pub fn comparison_sheet(caption: &str, rows: &[Comparison]) -> Result<RgbImage> {
    if rows.is_empty() {
        return Err(Error::invalid("number of images", 0, "a sheet needs at least one"));
    }
    let rows: Vec<[RgbImage; 2]> = rows.iter().map(draw).collect::<Result<_>>()?;
    let headings = COLUMNS.map(|heading| HEADING.width(heading));
    let widths = rows.iter().map(|[image, _]| image.width()).chain(headings);
    let column = widths.max().unwrap_or(0);
    let width = 2 * MARGIN + 2 * column + GAP;
    let lines = BODY.wrap(caption, width - 2 * MARGIN);
    let line = BODY.height() + 3;
    let headings_top = MARGIN + lines.len() as u32 * line + if lines.is_empty() { 0 } else { GAP };
    let top = headings_top + HEADING.height() + GAP / 2;
    // Their legends may differ.
    let height_of = |[a, b]: &[RgbImage; 2]| a.height().max(b.height());
    let height = rows.iter().map(|pair| height_of(pair) + GAP).sum::<u32>() - GAP;

    let mut canvas = Canvas::new(width, top + height + MARGIN);
    for (text, y) in lines.iter().zip((MARGIN..).step_by(line as usize)) {
        canvas.text(text, (MARGIN as i32, y as i32), BODY, Alignment::Left, INK);
    }
    let lefts = [MARGIN, MARGIN + column + GAP];
    for (heading, left) in COLUMNS.into_iter().zip(lefts) {
        let centre = ((left + column / 2) as i32, headings_top as i32);
        canvas.text(heading, centre, HEADING, Alignment::Center, INK);
    }
    let mut y = top;
    for pair in &rows {
        for (image, left) in pair.iter().zip(lefts) {
            canvas.paste(image, (left + (column - image.width()) / 2, y), 1);
        }
        y += height_of(pair) + GAP;
    }
    Ok(canvas.into_image())
}

/// Both pictures of a row. Objects are drawn on the resized image, so that
/// lines and captions keep their size.
fn draw(row: &Comparison) -> Result<[RgbImage; 2]> {
    let (width, height) = row.image.dimensions();
    if width == 0 || height == 0 {
        let value = format!("{height}×{width}");
        return Err(Error::invalid("image", value, "a sheet needs at least one pixel"));
    }
    let longer = width.max(height);
    let scale = match SIDE / longer {
        0 => f64::from(SIDE) / f64::from(longer),
        factor => f64::from(factor),
    };
    let side = |pixels: u32| ((f64::from(pixels) * scale).round() as u32).max(1);
    let size = (side(width), side(height));
    let filter = if scale < 1.0 { FilterType::Triangle } else { FilterType::Nearest };
    let image = resize(&row.image, size.0, size.1, filter);
    let pair = [&row.truth, &row.found].map(|objects| -> Vec<Object> {
        objects.iter().map(|object| scaled(object, scale, size)).collect()
    });
    // Both look alike, to be compared.
    let crowd = pair.iter().any(|objects| is_crowd(&image, objects));
    let [truth, found] = pair.map(|objects| draw_objects_as(&image, &objects, crowd));
    Ok([truth?, found?])
}

fn scaled(object: &Object, scale: f64, (width, height): (u32, u32)) -> Object {
    let resize = |mask: &Rle| resize_nearest(mask, height as usize, width as usize);
    Object {
        bbox: object.bbox.map(|value| value * scale),
        mask: object.mask.as_ref().map(resize),
        ..object.clone()
    }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    #[test]
    fn rows_show_the_image_twice_at_a_comfortable_size() {
        let row = |width, height| Comparison {
            image: RgbImage::from_pixel(width, height, Rgb([10, 20, 30])),
            truth: Vec::new(),
            found: Vec::new(),
        };
        let sheet = comparison_sheet("", &[row(960, 240), row(100, 120)]).unwrap();
        assert_eq!(sheet.width(), 2 * MARGIN + 2 * 480 + GAP);
        let pixels = sheet.pixels().filter(|pixel| pixel.0 == [10, 20, 30]).count();
        assert_eq!(pixels, 2 * (480 * 120 + 400 * 480));
        let captioned = comparison_sheet("epoch 3", &[row(960, 240)]).unwrap();
        assert_eq!(captioned.width(), sheet.width());
        assert!(comparison_sheet("", &[]).is_err());
    }

    #[test]
    fn both_columns_carry_their_objects() {
        let object = |class| Object {
            class,
            bbox: [5.0, 5.0, 20.0, 20.0],
            mask: None,
            name: "one".into(),
            detail: String::new(),
        };
        let row = Comparison {
            image: RgbImage::from_pixel(40, 40, Rgb([200; 3])),
            truth: vec![object(0)],
            found: vec![object(1)],
        };
        let sheet = comparison_sheet("caption", &[row]).unwrap();
        let middle = sheet.width() / 2;
        for (class, columns) in [(0, 0..middle), (1, middle..sheet.width())] {
            use embedded_graphics::pixelcolor::RgbColor;
            let color = super::super::class_color(class);
            let color = [color.r(), color.g(), color.b()];
            let found = sheet.enumerate_pixels().filter(|(.., pixel)| pixel.0 == color);
            let mut left: Vec<u32> = found.map(|(x, ..)| x).collect();
            assert!(left.len() > 500, "class {class}");
            left.retain(|x| !columns.contains(x));
            assert!(left.is_empty(), "class {class}");
        }
    }
}
