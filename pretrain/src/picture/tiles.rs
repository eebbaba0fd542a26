//! A sheet of tiles, a row an image and a column a stage.

use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Circle, PrimitiveStyle};
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, Canvas, HEADING, INK, WHITE};
use image::imageops::{FilterType, resize};
use image::{Rgb, RgbImage};

/// White around everything, in pixels.
const MARGIN: u32 = 16;
/// White between tiles, in pixels.
const GAP: u32 = 8;
/// Images smaller than this are enlarged by the largest whole factor that stays within it, in
/// pixels, and tiles take that size.
const COMFORTABLE_SIDE: u32 = 224;
/// Diameter of the ring around a marked position, in pixels.
const RING: u32 = 13;

/// From the smallest to the largest value: viridis (matplotlib) at quarters.
const RAMP: [[u8; 3]; 5] =
    [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

/// One picture of a sheet.
#[derive(Debug, Clone)]
pub struct Tile {
    /// Brought to the size of the sheet's tiles, every pixel a rectangle.
    pub picture: RgbImage,
    /// Printed below.
    pub label: String,
    /// A position that a ring is drawn around, (y, x) as shares of height and width.
    pub mark: Option<(f64, f64)>,
}

/// `rows` of tiles below `headings`, one a column, and a caption. Tiles stand for images of `size`
/// (width, height) and have their proportions.
pub fn tile_sheet(
    caption: &str,
    headings: &[String],
    rows: &[Vec<Tile>],
    (width, height): (u32, u32),
) -> RgbImage {
    let factor = (COMFORTABLE_SIDE / width.max(height)).max(1);
    let (width, height) = (width * factor, height * factor);
    let labels = rows.iter().flatten().map(|tile| BODY.width(&tile.label));
    let texts = headings.iter().map(|heading| HEADING.width(heading)).chain(labels);
    let column = texts.fold(width, u32::max);
    let inner = headings.len() as u32 * (column + GAP) - GAP;
    let lines = BODY.wrap(caption, inner);
    let line = BODY.height() + 3;
    let headings_top = MARGIN + lines.len() as u32 * line + GAP;
    let first_row = headings_top + HEADING.height() + GAP / 2;
    let row_height = height + line + GAP;
    let bottom = first_row + rows.len() as u32 * row_height - GAP + MARGIN;
    let mut canvas = Canvas::new(inner + 2 * MARGIN, bottom);
    for (text, top) in lines.iter().zip((MARGIN..).step_by(line as usize)) {
        canvas.text(text, (MARGIN as i32, top as i32), BODY, Alignment::Left, INK);
    }
    let centre = |index: u32| MARGIN + index * (column + GAP) + column / 2;
    for (index, heading) in (0..).zip(headings) {
        let at = (centre(index) as i32, headings_top as i32);
        canvas.text(heading, at, HEADING, Alignment::Center, INK);
    }
    for (tiles, top) in rows.iter().zip((first_row..).step_by(row_height as usize)) {
        for (index, tile) in (0..).zip(tiles) {
            let left = centre(index) - width / 2;
            let enlarged = resize(&tile.picture, width, height, FilterType::Nearest);
            canvas.paste(&enlarged, (left, top), 1);
            let below = (centre(index) as i32, (top + height + 3) as i32);
            canvas.text(&tile.label, below, BODY, Alignment::Center, INK);
            if let Some((y, x)) = tile.mark {
                let [x, y] = [(left, x, width), (top, y, height)]
                    .map(|(from, share, side)| from as i32 + (share * f64::from(side)) as i32);
                ring(&mut canvas, Point::new(x, y));
            }
        }
    }
    canvas.into_image()
}

/// White on dark, so that it is seen on any colour.
fn ring(canvas: &mut Canvas, centre: Point) {
    for (color, stroke) in [(INK, 5), (WHITE, 3)] {
        let circle = Circle::with_center(centre, RING);
        canvas.shape(circle, PrimitiveStyle::with_stroke(color, stroke));
    }
}

/// The colour of `share`, 0 to 1, from dark blue by green to yellow.
pub fn ramp(share: f64) -> Rgb<u8> {
    let place = share.clamp(0.0, 1.0) * (RAMP.len() - 1) as f64;
    let below = (place as usize).min(RAMP.len() - 2);
    let mix = place - below as f64;
    Rgb(std::array::from_fn(|channel| {
        let (low, high) = (RAMP[below][channel], RAMP[below + 1][channel]);
        (f64::from(low) + mix * (f64::from(high) - f64::from(low))).round() as u8
    }))
}

/// Paints the pixels of `picture` whose patch, of `rows × cols`, is not `visible`.
pub fn hide(picture: &mut RgbImage, visible: &[bool], (rows, cols): (u32, u32), paint: Rgb<u8>) {
    let (width, height) = picture.dimensions();
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        if !visible[(y * rows / height * cols + x * cols / width) as usize] {
            *pixel = paint;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);
    const BLUE: Rgb<u8> = Rgb([0, 0, 255]);

    fn tile(picture: RgbImage, mark: Option<(f64, f64)>) -> Tile {
        Tile { picture, label: "label".into(), mark }
    }

    fn count(sheet: &RgbImage, color: Rgb<u8>) -> usize {
        sheet.pixels().filter(|pixel| **pixel == color).count()
    }

    #[test]
    fn tiles_of_any_size_fill_their_cells() {
        let small = RgbImage::from_fn(2, 1, |x, _| if x == 0 { RED } else { BLUE });
        let large = RgbImage::from_pixel(64, 64, RED);
        let rows = [vec![tile(large, None), tile(small, None)]];
        let sheet = tile_sheet("", &["image".into(), "stage 1".into()], &rows, (64, 64));
        // Three times 64 pixels; the second tile is half red, half blue.
        assert_eq!(sheet.width(), 2 * MARGIN + 2 * 192 + GAP);
        assert_eq!(count(&sheet, BLUE), 192 * 96);
        assert_eq!(count(&sheet, RED), 192 * 192 + 192 * 96);
    }

    #[test]
    fn rows_of_tiles_lengthen_the_sheet_and_a_mark_lies_where_it_is_said() {
        let plain = || tile(RgbImage::from_pixel(4, 4, RED), None);
        let marked = tile(RgbImage::from_pixel(4, 4, RED), Some((0.25, 0.75)));
        let headings = ["image".to_owned()];
        let one = tile_sheet("caption", &headings, &[vec![plain()]], (224, 224));
        let two = tile_sheet("caption", &headings, &[vec![plain()], vec![marked]], (224, 224));
        let row = 224 + BODY.height() + 3 + GAP;
        assert_eq!(two.height() - one.height(), row);
        // The first row's top, counted from the bottom.
        let top = one.height() - MARGIN + GAP - row;
        let right_of = |top: u32, x: u32, y: u32| *two.get_pixel(MARGIN + x + RING / 2, top + y);
        assert_eq!(right_of(top, 168, 56), RED, "not in the first row");
        assert_eq!(right_of(top + row, 168, 56), Rgb([255; 3]));
        assert_eq!(right_of(top + row, 56, 168), RED);
    }

    #[test]
    fn the_ramp_runs_from_dark_to_bright() {
        assert_eq!((ramp(0.0).0, ramp(0.5).0, ramp(1.0).0), (RAMP[0], RAMP[2], RAMP[4]));
        assert_eq!((ramp(-3.0).0, ramp(7.0).0), (RAMP[0], RAMP[4]));
        assert_eq!(ramp(0.125).0, [64, 42, 112]);
    }

    #[test]
    fn masked_patches_are_painted() {
        let mut picture = RgbImage::from_pixel(6, 4, RED);
        hide(&mut picture, &[true, false, true, true, true, false], (2, 3), BLUE);
        let painted: Vec<(u32, u32)> = picture
            .enumerate_pixels()
            .filter_map(|(x, y, pixel)| (*pixel == BLUE).then_some((x, y)))
            .collect();
        assert_eq!(painted, [(2, 0), (3, 0), (2, 1), (3, 1), (4, 2), (5, 2), (4, 3), (5, 3)]);
    }
}
