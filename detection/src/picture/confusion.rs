//! The confusion matrix.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use engine::picture::Canvas;
use engine::picture::canvas::{BODY, Face, HEADING, INK, SMALL, TINY};
use image::RgbImage;

use super::palette::{pale, text_color};
use crate::evaluation::Confusion;

/// White around everything, in pixels.
const MARGIN: u32 = 18;
/// Between names and cells, in pixels.
const GAP: u32 = 6;
/// Found as what it is.
const RIGHT: Rgb888 = Rgb888::new(20, 100, 80);
/// Taken for something else, not found, or not there.
const WRONG: Rgb888 = Rgb888::new(190, 60, 30);
const LINE: Rgb888 = Rgb888::new(226, 226, 226);
/// Letters of a name.
const LETTERS: usize = 24;

/// Faces and sizes for a number of classes.
struct Layout {
    names: Face,
    numbers: Face,
    /// (width, height) of a cell.
    cell: (u32, u32),
    /// Width of the widest name.
    indent: u32,
    top: u32,
}

impl Layout {
    fn new(confusion: &Confusion) -> Self {
        let side = confusion.side();
        let (names, numbers, least) = match side {
            0..=12 => (BODY, BODY, (56, 34)),
            13..=32 => (BODY, SMALL, (30, 20)),
            _ => (SMALL, TINY, (14, 14)),
        };
        let largest = confusion.counts.iter().max().map_or(1, |count| count.to_string().len());
        let room = numbers.width(&"0".repeat(largest)) + 4;
        let cell = (room.max(least.0), least.1.max(numbers.height() + 4));
        let labels = (0..side).flat_map(|at| [row_name(confusion, at), column_name(confusion, at)]);
        let indent = labels.map(|name| names.width(&name)).max().unwrap_or(0);
        // Title, a line about the axes, then the columns' names, rising.
        let top = MARGIN + HEADING.height() + 8 + BODY.height() + 12 + indent + GAP;
        Self { names, numbers, cell, indent, top }
    }

    fn corner(&self, row: usize, column: usize) -> (i32, i32) {
        let left = MARGIN + self.indent + GAP;
        let x = left + column as u32 * self.cell.0;
        ((x) as i32, (self.top + row as u32 * self.cell.1) as i32)
    }
}

/// Counts of objects (rows) by what they were found as (columns), each row
/// shaded by its shares; the last column holds objects that were not found,
/// the last row detections where nothing is.
pub fn confusion_matrix(title: &str, confusion: &Confusion) -> RgbImage {
    let (layout, side) = (Layout::new(confusion), confusion.side());
    let (right, bottom) = layout.corner(side, side);
    let axes = "rows: labelled, columns: found, shade: share of the row";
    let width = (right as u32).max(MARGIN + HEADING.width(title)).max(MARGIN + BODY.width(axes));
    let mut canvas = Canvas::new(width + MARGIN, bottom as u32 + MARGIN);
    let margin = MARGIN as i32;
    canvas.text(title, (margin, margin), HEADING, Alignment::Left, INK);
    let second = margin + HEADING.height() as i32 + 8;
    canvas.text(axes, (margin, second), BODY, Alignment::Left, pale(INK, 0.3));
    for at in 0..side {
        let (_, y) = layout.corner(at, 0);
        let inner = (layout.cell.1 as i32 - layout.names.height() as i32) / 2;
        let end = (margin + layout.indent as i32, y + inner);
        canvas.text(&row_name(confusion, at), end, layout.names, Alignment::Right, INK);
        let (x, _) = layout.corner(0, at);
        let inner = (layout.cell.0 as i32 - layout.names.height() as i32) / 2;
        let start = (x + inner, (layout.top - GAP) as i32);
        canvas.rising_text(&column_name(confusion, at), start, layout.names, INK);
    }
    for row in 0..side {
        let total: u64 = (0..side).map(|column| confusion.count(row, column)).sum();
        for column in 0..side {
            draw_cell(&mut canvas, &layout, confusion, (row, column), total);
        }
    }
    canvas.into_image()
}

fn draw_cell(
    canvas: &mut Canvas,
    layout: &Layout,
    confusion: &Confusion,
    (row, column): (usize, usize),
    total: u64,
) {
    let (x, y) = layout.corner(row, column);
    let (width, height) = layout.cell;
    canvas.fill((x, y), (width, height), LINE);
    let count = confusion.count(row, column);
    let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
    let color = if row == column { RIGHT } else { WRONG };
    // Square root: a few per cent are to be seen, too.
    let shade = pale(color, 1.0 - share.sqrt());
    // Nothing found where nothing is cannot be counted.
    let empty = row == column && row + 1 == confusion.side();
    let shade = if empty { LINE } else { shade };
    canvas.fill((x, y), (width - 1, height - 1), shade);
    if count > 0 {
        let middle = x + width as i32 / 2;
        let top = y + (height as i32 - layout.numbers.height() as i32) / 2;
        let ink = text_color(shade);
        canvas.text(&count.to_string(), (middle, top), layout.numbers, Alignment::Center, ink);
    }
}

fn row_name(confusion: &Confusion, at: usize) -> String {
    confusion.names.get(at).map_or("(nothing there)".to_owned(), |name| shorten(name))
}

fn column_name(confusion: &Confusion, at: usize) -> String {
    confusion.names.get(at).map_or("(not found)".to_owned(), |name| shorten(name))
}

fn shorten(name: &str) -> String {
    if name.chars().count() <= LETTERS {
        return name.to_owned();
    }
    name.chars().take(LETTERS - 2).chain("..".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confusion(classes: usize, count: impl Fn(usize, usize) -> u64) -> Confusion {
        let side = classes + 1;
        let counts = (0..side * side).map(|at| count(at / side, at % side)).collect();
        let names = (0..classes).map(|class| format!("class {class}")).collect();
        Confusion { names, counts }
    }

    #[test]
    fn cells_are_shaded_by_share_and_hold_their_count() {
        let matrix = confusion(2, |row, column| u64::from((row, column) == (0, 0)) * 7);
        let image = confusion_matrix("t", &matrix);
        let layout = Layout::new(&matrix);
        let at = |row, column| {
            let (x, y) = layout.corner(row, column);
            image.get_pixel(x as u32, y as u32).0
        };
        assert_eq!(at(0, 0), [20, 100, 80]);
        assert_eq!((at(0, 1), at(2, 2)), ([255; 3], [226; 3]));
        let (x, y) = layout.corner(0, 0);
        let cell = (x..x + 55).flat_map(|x| (y..y + 33).map(move |y| (x as u32, y as u32)));
        let white = cell.filter(|(x, y)| image.get_pixel(*x, *y).0 == [255; 3]).count();
        assert!((8..40).contains(&white), "a 7 of {white} pixels");
    }

    #[test]
    fn every_number_fits_its_cell() {
        for classes in [1, 3, 20, 80, 365] {
            let matrix = confusion(classes, |row, column| (row * column) as u64 * 97);
            let layout = Layout::new(&matrix);
            let widest = matrix.counts.iter().map(|count| layout.numbers.width(&count.to_string()));
            assert!(widest.max().unwrap() < layout.cell.0);
            assert!(
                layout.numbers.height() < layout.cell.1 && layout.names.height() <= layout.cell.1
            );
        }
    }
}
