//! A matrix of counts, shaded row by row: what is taken for what.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use image::RgbImage;

use super::canvas::{BODY, Face, HEADING, INK, SMALL, TINY, shorten};
use super::{Canvas, Result, pale, text_color};

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
/// Of more rows or columns, neither names nor numbers are drawn.
const LEGIBLE: usize = 400;
/// Side of such a picture in pixels, where its cells are more than one wide.
const OVERVIEW: usize = 2000;

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct CountMatrix<'a> {
    /// Above it.
    pub title: &'a str,
    /// What rows, columns and shades are.
    pub axes: &'a str,
    /// The rows' names.
    pub rows: &'a [String],
    /// The columns' names.
    pub columns: &'a [String],
    /// Row by row.
    pub counts: &'a [u64],
    /// A cell (row, column) that cannot be counted.
    pub impossible: Option<(usize, usize)>,
}

/// Faces and sizes for a number of classes.
struct Layout {
    /// None: neither names nor numbers.
    faces: Option<(Face, Face)>,
    /// (width, height) of a cell.
    cell: (u32, u32),
    /// Width of the widest name.
    indent: u32,
    top: u32,
}

impl Layout {
    fn new(matrix: &CountMatrix) -> Self {
        let side = matrix.rows.len().max(matrix.columns.len());
        let head = MARGIN + HEADING.height() + 8 + BODY.height() + 12;
        let (names, numbers, least) = match side {
            0..=12 => (BODY, BODY, (56, 34)),
            13..=32 => (BODY, SMALL, (30, 20)),
            33..=LEGIBLE => (SMALL, TINY, (14, 14)),
            _ => {
                let cell = (OVERVIEW / side).max(1) as u32;
                return Self { faces: None, cell: (cell, cell), indent: 0, top: head };
            }
        };
        let largest = matrix.counts.iter().max().map_or(1, |count| count.to_string().len());
        let room = numbers.width(&"0".repeat(largest)) + 4;
        let cell = (room.max(least.0), least.1.max(numbers.height() + 4));
        let labels = matrix.rows.iter().chain(matrix.columns);
        let indent = labels.map(|name| names.width(&shorten(name, LETTERS))).max().unwrap_or(0);
        // Title, a line about the axes, then the columns' names, rising.
        Self { faces: Some((names, numbers)), cell, indent, top: head + indent + GAP }
    }

    fn corner(&self, row: usize, column: usize) -> (i32, i32) {
        let left = MARGIN + self.indent + GAP;
        let x = left + column as u32 * self.cell.0;
        (x as i32, (self.top + row as u32 * self.cell.1) as i32)
    }
}

impl CountMatrix<'_> {
    /// The picture. Of many classes cells are a few pixels wide, and neither
    /// names nor numbers are drawn.
    ///
    /// # Errors
    /// Another number of counts than of cells.
    pub fn draw(&self) -> Result<RgbImage> {
        let cells = self.rows.len() * self.columns.len();
        if self.counts.len() != cells || cells == 0 {
            let rule = format!("there are {cells} cells");
            return Err(
                backbone::Error::invalid("number of counts", self.counts.len(), rule).into()
            );
        }
        let layout = Layout::new(self);
        let (right, bottom) = layout.corner(self.rows.len(), self.columns.len());
        let words = HEADING.width(self.title).max(BODY.width(self.axes));
        let width = (right as u32).max(MARGIN + words);
        let mut canvas = Canvas::new(width + MARGIN, bottom as u32 + MARGIN);
        let margin = MARGIN as i32;
        canvas.text(self.title, (margin, margin), HEADING, Alignment::Left, INK);
        let second = margin + HEADING.height() as i32 + 8;
        canvas.text(self.axes, (margin, second), BODY, Alignment::Left, pale(INK, 0.3));
        self.draw_names(&mut canvas, &layout);
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                self.draw_cell(&mut canvas, &layout, (row, column));
            }
        }
        Ok(canvas.into_image())
    }

    fn draw_names(&self, canvas: &mut Canvas, layout: &Layout) {
        let Some((face, _)) = layout.faces else { return };
        for (at, name) in self.rows.iter().enumerate() {
            let (_, y) = layout.corner(at, 0);
            let inner = (layout.cell.1 as i32 - face.height() as i32) / 2;
            let end = ((MARGIN + layout.indent) as i32, y + inner);
            canvas.text(&shorten(name, LETTERS), end, face, Alignment::Right, INK);
        }
        for (at, name) in self.columns.iter().enumerate() {
            let (x, _) = layout.corner(0, at);
            let inner = (layout.cell.0 as i32 - face.height() as i32) / 2;
            let start = (x + inner, (layout.top - GAP) as i32);
            canvas.rising_text(&shorten(name, LETTERS), start, face, INK);
        }
    }

    fn draw_cell(&self, canvas: &mut Canvas, layout: &Layout, (row, column): (usize, usize)) {
        let counts = &self.counts[row * self.columns.len()..][..self.columns.len()];
        let (total, count) = (counts.iter().sum::<u64>(), counts[column]);
        let share = if total == 0 { 0.0 } else { count as f64 / total as f64 };
        let color = if row == column { RIGHT } else { WRONG };
        // Square root: a few per cent are to be seen, too.
        let shade = pale(color, 1.0 - share.sqrt());
        let shade = if self.impossible == Some((row, column)) { LINE } else { shade };
        let ((x, y), (width, height)) = (layout.corner(row, column), layout.cell);
        let Some((_, face)) = layout.faces else {
            return canvas.fill((x, y), (width, height), shade);
        };
        canvas.fill((x, y), (width, height), LINE);
        canvas.fill((x, y), (width - 1, height - 1), shade);
        if count > 0 {
            let middle = x + width as i32 / 2;
            let top = y + (height as i32 - face.height() as i32) / 2;
            let ink = text_color(shade);
            canvas.text(&count.to_string(), (middle, top), face, Alignment::Center, ink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    fn matrix<'a>(names: &'a [String], counts: &'a [u64]) -> CountMatrix<'a> {
        let impossible = Some((names.len() - 1, names.len() - 1));
        CountMatrix { title: "t", axes: "a", rows: names, columns: names, counts, impossible }
    }

    #[test]
    fn cells_are_shaded_by_share_and_hold_their_count() {
        let (names, counts) = (names(3), [7, 0, 0, 0, 0, 0, 0, 0, 0]);
        let matrix = matrix(&names, &counts);
        let (image, layout) = (matrix.draw().unwrap(), Layout::new(&matrix));
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
            let names = names(classes + 1);
            let cells = (0..names.len()).flat_map(|row| (0..names.len()).map(move |c| (row, c)));
            let counts: Vec<u64> = cells.map(|(row, column)| (row * column) as u64 * 97).collect();
            let layout = Layout::new(&matrix(&names, &counts));
            let (face, numbers) = layout.faces.unwrap();
            let widest = counts.iter().map(|count| numbers.width(&count.to_string())).max();
            assert!(widest.unwrap() < layout.cell.0);
            assert!(numbers.height() < layout.cell.1 && face.height() <= layout.cell.1);
        }
    }

    #[test]
    fn a_thousand_classes_are_an_overview() {
        let names = names(1000);
        let mut counts = vec![0; 1_000_000];
        counts[1] = 3;
        let image = matrix(&names, &counts).draw().unwrap();
        assert!(image.width() < 2100 && image.height() < 2150, "{:?}", image.dimensions());
        let reddish = image.pixels().filter(|pixel| pixel.0 == [190, 60, 30]).count();
        assert_eq!(reddish, 4, "a cell of 2 × 2 pixels");
    }

    #[test]
    fn counts_of_another_number_are_refused() {
        assert!(matrix(&names(2), &[1, 2, 3]).draw().is_err());
    }
}
