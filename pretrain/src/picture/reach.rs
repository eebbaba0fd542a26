//! The figure of what becomes of a mask pattern, layer by layer.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::Rectangle;
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, Canvas, HEADING, INK, WHITE};
use image::RgbImage;

use crate::sparsity::{MaskLeakage, PositionMap};

/// A position that depends on visible pixels.
const ACTIVE: Rgb888 = Rgb888::new(31, 100, 170);
/// A position that does not.
const EMPTY: Rgb888 = Rgb888::new(226, 226, 226);

/// White around everything, in pixels.
const MARGIN: u32 = 16;
/// White between tiles, in pixels.
const GAP: u32 = 10;
/// Smaller maps are enlarged by the largest whole factor that stays within
/// this side, in pixels.
const TILE_SIDE: u32 = 128;

/// Two rows of maps for each of `sections`: the positions that depend on
/// visible pixels under dense convolution and under sparse execution, with
/// their shares.
pub fn reach_figure(title: &str, sections: &[MaskLeakage]) -> RgbImage {
    let layouts: Vec<Section> = sections.iter().map(Section::new).collect();
    let widest = layouts.iter().map(Section::width).fold(HEADING.width(title), u32::max);
    let title_height = HEADING.height() + GAP;
    let height = layouts.iter().map(|section| section.height()).sum::<u32>() + title_height;
    let mut canvas = Canvas::new(widest + 2 * MARGIN, height + 2 * MARGIN);
    canvas.text(title, (MARGIN as i32, MARGIN as i32), HEADING, Alignment::Left, INK);
    let mut top = MARGIN + title_height;
    for section in &layouts {
        section.draw(&mut canvas, top);
        top += section.height();
    }
    canvas.into_image()
}

/// One network's two rows.
struct Section<'a> {
    reach: &'a MaskLeakage,
    tile: (u32, u32),
    column: u32,
}

impl<'a> Section<'a> {
    fn new(reach: &'a MaskLeakage) -> Self {
        // The input is as fine as the finest map and needs no size of its own.
        let finest = reach.layers.iter().map(|layer| layer.dense.size()).max_by_key(|size| size.0);
        let (height, width) = finest.unwrap_or((1, 1));
        let factor = (TILE_SIDE / height.max(width)).max(1);
        let tile = (width * factor, height * factor);
        let names = reach.layers.iter().map(|layer| BODY.width(&layer.name));
        let column = names.fold(tile.0.max(BODY.width("100.0 %")), u32::max);
        Self { reach, tile, column }
    }

    fn labels_width() -> u32 {
        BODY.width("sparse") + GAP
    }

    fn width(&self) -> u32 {
        let columns = self.reach.layers.len() as u32;
        let tiles = Self::labels_width() + columns * (self.column + GAP);
        tiles.max(BODY.width(&self.reach.title))
    }

    /// A tile and the share below it.
    fn row_height(&self) -> u32 {
        self.tile.1 + BODY.height() + GAP
    }

    fn height(&self) -> u32 {
        2 * (BODY.height() + GAP) + 2 * self.row_height() + GAP
    }

    fn draw(&self, canvas: &mut Canvas, top: u32) {
        let line = BODY.height() + GAP;
        canvas.text(&self.reach.title, (MARGIN as i32, top as i32), BODY, Alignment::Left, INK);
        let first_row = top + 2 * line;
        let rows = [("dense", first_row), ("sparse", first_row + self.row_height())];
        for (label, top) in rows {
            let middle = top + (self.tile.1 - BODY.height().min(self.tile.1)) / 2;
            canvas.text(label, (MARGIN as i32, middle as i32), BODY, Alignment::Left, INK);
        }
        for (index, layer) in (0u32..).zip(&self.reach.layers) {
            let left = MARGIN + Self::labels_width() + index * (self.column + GAP);
            let centre = left + self.column / 2;
            let heading = (centre as i32, (top + line) as i32);
            canvas.text(&layer.name, heading, BODY, Alignment::Center, INK);
            for (map, (_, top)) in [&layer.dense, &layer.sparse].into_iter().zip(rows) {
                self.draw_tile(canvas, map, (centre - self.tile.0 / 2, top));
                let share = format!("{:.1} %", 100.0 * map.share());
                let below = (centre as i32, (top + self.tile.1 + 3) as i32);
                canvas.text(&share, below, BODY, Alignment::Center, INK);
            }
        }
    }

    /// The map, with white lines between patches.
    fn draw_tile(&self, canvas: &mut Canvas, map: &PositionMap, (left, top): (u32, u32)) {
        let (width, height) = self.tile;
        let (rows, cols) = map.size();
        let color = |x: u32, y: u32| {
            if map.is_active(y * rows / height, x * cols / width) { ACTIVE } else { EMPTY }
        };
        let corner = Point::new(left as i32, top as i32);
        let area = Rectangle::new(corner, Size::new(width, height));
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let Ok(()) = canvas.fill_contiguous(&area, pixels.map(|(x, y)| color(x, y)));
        let (patch_rows, patch_cols) = self.reach.patches;
        for row in 1..patch_rows {
            let y = top + row * height / patch_rows;
            canvas.fill((left as i32, y as i32), (width, 1), WHITE);
        }
        for col in 1..patch_cols {
            let x = left + col * width / patch_cols;
            canvas.fill((x as i32, top as i32), (1, height), WHITE);
        }
    }
}

#[cfg(test)]
mod tests {
    use backbone::PatchMask;
    use tch::Device;

    use super::*;
    use crate::sparsity::of_convolutions;

    /// One of 2×3 patches visible, 16 positions each: maps of 32×48 positions
    /// in tiles of twice that.
    fn section(layers: usize) -> MaskLeakage {
        let mask = PatchMask::from_visible(1, (2, 3), &[4], Device::Cpu).unwrap();
        of_convolutions(layers, (16, 16), &mask).unwrap()
    }

    fn count(image: &RgbImage, color: Rgb888) -> usize {
        let color = [color.r(), color.g(), color.b()];
        image.pixels().filter(|pixel| pixel.0 == color).count()
    }

    #[test]
    fn tiles_show_the_maps_in_proportion() {
        let image = reach_figure("Title", &[section(1)]);
        // Four tiles of 96×64 pixels, less the white lines between patches.
        assert_eq!(count(&image, ACTIVE) + count(&image, EMPTY), 4 * (96 * 64 - 2 * 64 - 94));
        // Three tiles show one patch of 32×32 pixels, the first row and column
        // of which are line. In the dense one it has grown by a position (two
        // pixels) on three sides, the fourth being the image's edge; lines
        // take a row of 34 pixels and two columns of 34.
        let patch = 31 * 31;
        let grown = 36 * 34 - 36 - 2 * 34 + 2;
        assert_eq!(count(&image, ACTIVE), 3 * patch + grown);
    }

    #[test]
    fn more_layers_widen_and_more_networks_lengthen_the_figure() {
        let one = reach_figure("Title", &[section(3)]);
        let wide = reach_figure("Title", &[section(6)]);
        let long = reach_figure("Title", &[section(3), section(3)]);
        assert_eq!((wide.height(), long.width()), (one.height(), one.width()));
        // A column is a tile and the gap beside it.
        assert_eq!(wide.width() - one.width(), 3 * (96 + GAP));
        assert!(long.height() > one.height() + 2 * 64);
    }

    #[test]
    fn a_long_title_is_not_cut_off() {
        let title = "A title much longer than all of the tiles of this small figure taken together";
        let image = reach_figure(title, &[section(1)]);
        assert_eq!(image.width(), HEADING.width(title) + 2 * MARGIN);
    }
}
