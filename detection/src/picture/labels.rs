//! Captions of boxes: how large, and where there is room for them.

use embedded_graphics::pixelcolor::Rgb888;
use engine::picture::canvas::{BODY, Face, HEADING, SMALL, SMALLER};
use engine::picture::{Canvas, text_color};

/// A rectangle in pixels: left, top, width, height.
type Area = (i32, i32, i32, i32);

/// How many captions below and above each other are tried along an edge.
const STEPS: i32 = 8;
/// Share of an object's box that captions may cover, its own and others'.
const COVERED: f64 = 0.2;

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

    /// Width and height of a caption in pixels.
    pub fn size(self, text: &str) -> (i32, i32) {
        let pixels = |dots: u32| (dots * self.factor) as i32 + 2 * self.padding;
        (pixels(self.face.width(text)), pixels(self.face.height()))
    }

    /// Writes a caption whose upper left corner is at (x, y).
    pub fn write(self, canvas: &mut Canvas, text: &str, (x, y): (i32, i32), color: Rgb888) {
        let corner = (x + self.padding, y + self.padding);
        canvas.large_text(text, corner, (self.face, self.factor), color);
    }
}

/// Captions to be drawn.
#[derive(Debug)]
pub(super) struct Labels {
    style: Style,
    /// (width, height) of the image.
    image: (i32, i32),
    /// What is in the image of every object's box, and how many pixels of it may still be
    /// covered.
    objects: Vec<(Area, i64)>,
    placed: Vec<(Area, String, Rgb888)>,
}

impl Labels {
    /// None yet, beside boxes (left, top, right, bottom).
    pub fn new(
        style: Style,
        (width, height): (u32, u32),
        boxes: impl IntoIterator<Item = (i32, i32, i32, i32)>,
    ) -> Self {
        let image = (width as i32, height as i32);
        let object = |(left, top, right, bottom): (i32, i32, i32, i32)| {
            let (left, right) = (left.clamp(0, image.0), right.clamp(0, image.0));
            let (top, bottom) = (top.clamp(0, image.1), bottom.clamp(0, image.1));
            let area = (left, top, right - left, bottom - top);
            let pixels = i64::from(right - left) * i64::from(bottom - top);
            (area, (pixels as f64 * COVERED) as i64)
        };
        let objects = boxes.into_iter().map(object).collect();
        Self { style, image, objects, placed: Vec::new() }
    }

    /// Puts `text` where there is room at the box of object number `at`: above it, in its
    /// corners, below it, along its edges; where no other caption is, and neither this object nor
    /// another is covered by more than a small part. If there is none, it returns false.
    pub fn place(&mut self, at: usize, text: &str, color: Rgb888) -> bool {
        let (width, height) = self.style.size(text);
        if width > self.image.0 || height > self.image.1 {
            return false;
        }
        let free = self.places(at, text).into_iter().find(|area| {
            self.placed.iter().all(|(other, ..)| overlap(*area, *other) == 0)
                && self.objects.iter().all(|(object, left)| overlap(*area, *object) <= *left)
        });
        if let Some(area) = free {
            self.put(area, text, color);
        }
        free.is_some()
    }

    /// Puts `text`, shortened if the image is narrower, where it covers the least of the others.
    pub fn place_anyway(&mut self, at: usize, text: &str, color: Rgb888) {
        let mut letters: Vec<char> = text.chars().collect();
        while letters.len() > 1 && self.style.size(&String::from_iter(&letters)).0 > self.image.0 {
            letters.pop();
        }
        let text = String::from_iter(letters);
        let covered = |area: &Area| -> i64 {
            self.placed.iter().map(|(other, ..)| overlap(*area, *other)).sum()
        };
        if let Some(area) = self.places(at, &text).into_iter().min_by_key(covered) {
            self.put(area, &text, color);
        }
    }

    fn put(&mut self, area: Area, text: &str, color: Rgb888) {
        for (object, left) in &mut self.objects {
            *left -= overlap(area, *object);
        }
        self.placed.push((area, text.to_owned(), color));
    }

    /// Where a caption of object number `at` may stand, the best place first, within the image.
    fn places(&self, at: usize, text: &str) -> Vec<Area> {
        let (left, top, across, down) = self.objects[at].0;
        let (right, bottom) = (left + across, top + down);
        let (width, height) = self.style.size(text);
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
        let edges = (1..STEPS).map(|step| top + step * height);
        let edges = edges.take_while(|y| *y < bottom);
        let edges = edges.flat_map(|y| [(left, y), (right - width, y)]);
        let within = |(x, y): (i32, i32)| {
            let x = x.clamp(0, (self.image.0 - width).max(0));
            let y = y.clamp(0, (self.image.1 - height).max(0));
            (x, y, width, height)
        };
        corners.into_iter().chain(edges).map(within).collect()
    }

    /// Draws them, the first on top.
    pub fn draw(&self, canvas: &mut Canvas) {
        for ((x, y, width, height), text, color) in self.placed.iter().rev() {
            canvas.fill((*x, *y), (*width as u32, *height as u32), *color);
            self.style.write(canvas, text, (*x, *y), text_color(*color));
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
        let boxes = [(100, 100, 300, 300), (100, 100, 300, 300), (520, 0, 600, 250)];
        let mut labels = Labels::new(Style::for_side(600), (600, 400), boxes);
        let (width, height) = labels.style.size("cat 90%");
        for at in 0..3 {
            assert!(labels.place(at, "cat 90%", RED));
        }
        // The same box again: inside. At the image's upper edge: pushed inside.
        let expected = [
            (100, 100 - height, width, height),
            (100, 100, width, height),
            (520, 0, width, height),
        ];
        assert_eq!(areas(&labels), expected);
    }

    #[test]
    fn there_is_no_caption_that_would_cover_objects() {
        // A pattern without room between: only the outermost have some outside.
        let boxes: Vec<_> = (0..100)
            .map(|at| (at % 10 * 20 + 100, at / 10 * 20 + 100))
            .map(|(x, y)| (x, y, x + 20, y + 20))
            .collect();
        let mut labels = Labels::new(Style::for_side(600), (600, 400), boxes.clone());
        let placed = (0..100).filter(|at| labels.place(*at, "cell 90%", RED)).count();
        assert!((4..20).contains(&placed), "{placed}");
        for (number, area) in areas(&labels).iter().enumerate() {
            for (left, top, right, bottom) in &boxes {
                let shared = overlap(*area, (*left, *top, right - left, bottom - top));
                assert!(shared <= 80, "{area:?} covers {shared} pixels");
            }
            assert!(areas(&labels)[..number].iter().all(|other| overlap(*area, *other) == 0));
        }
    }

    #[test]
    fn where_there_is_no_room_the_least_is_covered() {
        let boxes = vec![(10, 10, 20, 20); 12];
        let mut labels = Labels::new(Style::for_side(64), (64, 30), boxes);
        for at in 0..12 {
            if !labels.place(at, "a name that is too long", RED) {
                labels.place_anyway(at, "a name that is too long", RED);
            }
        }
        assert_eq!(labels.placed.len(), 12);
        for (x, y, width, height) in areas(&labels) {
            assert!(x >= 0 && y >= 0 && x + width <= 64 && y + height <= 30);
        }
    }

    #[test]
    fn captions_never_leave_the_image() {
        for text in ["a name that is far too long 99%", "cat"] {
            let boxes = (-30..90).map(|at| (at, at, at + 20, at + 20));
            let mut labels = Labels::new(Style::for_side(64), (64, 48), boxes);
            let placed = (0..120).filter(|at| labels.place(*at, text, RED)).count();
            assert_eq!(placed > 0, text == "cat");
            for (x, y, width, height) in areas(&labels) {
                assert!(x >= 0 && y >= 0 && x + width <= 64 && y + height <= 48);
            }
        }
    }

    #[test]
    fn large_images_get_large_text() {
        let height = |side| Style::for_side(side).size("x").1;
        let heights = [100, 300, 640, 1000, 4000].map(height);
        assert!(heights.is_sorted() && heights[4] > 50, "{heights:?}");
    }
}
