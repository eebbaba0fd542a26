//! Captions of boxes: how large, and where they do not cover each other.

use embedded_graphics::pixelcolor::Rgb888;
use engine::picture::canvas::{BODY, Face, HEADING, SMALL, SMALLER};
use engine::picture::{Canvas, text_color};

/// A rectangle in pixels: left, top, width, height.
type Area = (i32, i32, i32, i32);

/// How many captions below and above each other are tried along an edge.
const STEPS: i32 = 8;

/// Caption sizes that suit an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    face: Face,
    /// Pixels a dot of the font.
    factor: u32,
    /// Room around the text in pixels.
    padding: i32,
}

impl Style {
    /// For an image whose longer side has `side` pixels.
    pub fn for_side(side: u32) -> Self {
        let (face, factor) = match side {
            0..=199 => (SMALLER, 1),
            200..=399 => (SMALL, 1),
            400..=899 => (BODY, 1),
            // From here on text keeps about 1/70 of the side.
            _ => (HEADING, (side / 1000).max(1)),
        };
        Self { face, factor, padding: if side < 400 { 1 } else { 2 * factor as i32 } }
    }

    fn size(self, text: &str) -> (i32, i32) {
        let pixels = |dots: u32| (dots * self.factor) as i32 + 2 * self.padding;
        (pixels(self.face.width(text)), pixels(self.face.height()))
    }
}

/// Captions to be drawn.
#[derive(Debug)]
pub(super) struct Labels {
    style: Style,
    /// (width, height) of the image.
    image: (i32, i32),
    placed: Vec<(Area, String, Rgb888)>,
}

impl Labels {
    /// None yet.
    pub fn new(style: Style, (width, height): (u32, u32)) -> Self {
        Self { style, image: (width as i32, height as i32), placed: Vec::new() }
    }

    /// Finds a place for `text` at the box (left, top, right, bottom): above
    /// it, in its corners, below it, along its edges, wherever no other caption
    /// is; within the image in any case.
    pub fn place(&mut self, text: &str, (left, top, right, bottom): Area, color: Rgb888) {
        let text = self.shorten(text);
        let (width, height) = self.style.size(&text);
        let corners = [
            (left, top - height),
            (left, top),
            (left, bottom),
            (left, bottom - height),
            (right - width, top - height),
            (right - width, top),
            (right - width, bottom - height),
            (right - width, bottom),
        ];
        let edges = (1..STEPS).flat_map(|step| {
            let y = top + step * height;
            [(left, y), (right - width, y), (left, top - (step + 1) * height)]
        });
        let within = |(x, y): (i32, i32)| {
            let x = x.clamp(0, (self.image.0 - width).max(0));
            let y = y.clamp(0, (self.image.1 - height).max(0));
            (x, y, width, height)
        };
        let covered = |area: &Area| -> i64 {
            self.placed.iter().map(|(other, ..)| overlap(*area, *other)).sum()
        };
        let places = corners.into_iter().chain(edges).map(within);
        // The first of equals, so the first that covers nothing.
        if let Some(area) = places.min_by_key(covered) {
            self.placed.push((area, text, color));
        }
    }

    /// Cut off where the image is narrower.
    fn shorten(&self, text: &str) -> String {
        let mut letters: Vec<char> = text.chars().collect();
        while letters.len() > 1 && self.style.size(&String::from_iter(&letters)).0 > self.image.0 {
            letters.pop();
        }
        letters.into_iter().collect()
    }

    /// Draws them, the first on top.
    pub fn draw(&self, canvas: &mut Canvas) {
        for ((x, y, width, height), text, color) in self.placed.iter().rev() {
            canvas.fill((*x, *y), (*width as u32, *height as u32), *color);
            let Style { face, factor, padding } = self.style;
            let corner = (x + padding, y + padding);
            canvas.large_text(text, corner, (face, factor), text_color(*color));
        }
    }
}

/// Pixels that two rectangles share.
fn overlap(a: Area, b: Area) -> i64 {
    let shared = |(a, a_side): (i32, i32), (b, b_side): (i32, i32)| {
        i64::from(((a + a_side).min(b + b_side) - a.max(b)).max(0))
    };
    shared((a.0, a.2), (b.0, b.2)) * shared((a.1, a.3), (b.1, b.3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb888 = Rgb888::new(255, 0, 0);

    fn areas(labels: &Labels) -> Vec<Area> {
        labels.placed.iter().map(|(area, ..)| *area).collect()
    }

    #[test]
    fn captions_stand_above_their_box_or_where_there_is_room() {
        let mut labels = Labels::new(Style::for_side(600), (600, 400));
        let (width, height) = labels.style.size("cat 90%");
        labels.place("cat 90%", (100, 100, 300, 300), RED);
        assert_eq!(areas(&labels)[0], (100, 100 - height, width, height));
        // The same box again: inside.
        labels.place("cat 90%", (100, 100, 300, 300), RED);
        assert_eq!(areas(&labels)[1], (100, 100, width, height));
        // At the image's upper and right edges: pushed inside.
        labels.place("cat 90%", (590, 0, 600, 50), RED);
        let (x, y, ..) = areas(&labels)[2];
        assert_eq!((x, y), (600 - width, 0));
    }

    #[test]
    fn captions_never_leave_the_image() {
        let mut labels = Labels::new(Style::for_side(64), (64, 48));
        for at in -30..90 {
            labels.place("a name that is far too long 99%", (at, at, at + 20, at + 20), RED);
        }
        for (x, y, width, height) in areas(&labels) {
            assert!(x >= 0 && y >= 0 && x + width <= 64 && y + height <= 48);
        }
    }

    #[test]
    fn large_images_get_large_text() {
        let height = |side| Style::for_side(side).size("x").1;
        let heights = [100, 300, 640, 1000, 4000].map(height);
        assert!(heights.is_sorted() && heights[4] > 50, "{heights:?}");
    }
}
