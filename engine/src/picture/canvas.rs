//! An RGB image that embedded-graphics draws on, and the few marks that the
//! pictures share.

use std::convert::Infallible;

use embedded_graphics::mono_font::iso_8859_1::{
    FONT_4X6, FONT_5X8, FONT_6X10, FONT_8X13, FONT_9X18_BOLD,
};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Baseline, Text, TextStyleBuilder};
use image::{Rgb, RgbImage};

/// Bold face of titles and headings.
pub const HEADING: Face = Face(&FONT_9X18_BOLD);
/// Face of everything else.
pub const BODY: Face = Face(&FONT_8X13);

/// Small face, for numbers in cells and labels on small images.
pub const SMALL: Face = Face(&FONT_6X10);
/// Smaller.
pub const SMALLER: Face = Face(&FONT_5X8);
/// As small as can be read.
pub const TINY: Face = Face(&FONT_4X6);

/// Paper.
pub const WHITE: Rgb888 = Rgb888::WHITE;
/// Text and axes: dark, but not harsh.
pub const INK: Rgb888 = Rgb888::new(40, 40, 40);

/// A name of at most so many letters.
pub fn shorten(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    name.chars().take(letters - 2).chain("..".chars()).collect()
}

/// A fixed-width bitmap font of Latin-1; other characters become `?`.
#[derive(Debug, Clone, Copy)]
pub struct Face(&'static MonoFont<'static>);

impl Face {
    /// Height of a line in pixels.
    pub fn height(self) -> u32 {
        self.0.character_size.height
    }

    /// Width of a text in pixels.
    pub fn width(self, text: &str) -> u32 {
        text.chars().count() as u32 * self.advance()
    }

    fn advance(self) -> u32 {
        self.0.character_size.width + self.0.character_spacing
    }

    /// `text` in lines of at most `width` pixels, broken between words; a word
    /// wider than that is broken within.
    pub fn wrap(self, text: &str, width: u32) -> Vec<String> {
        let room = (width / self.advance()).max(1) as usize;
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            let letters: Vec<char> = word.chars().collect();
            for piece in letters.chunks(room) {
                match lines.last_mut() {
                    Some(line) if line.chars().count() + 1 + piece.len() <= room => {
                        line.push(' ');
                        line.extend(piece);
                    }
                    _ => lines.push(piece.iter().collect()),
                }
            }
        }
        lines
    }
}

/// An image to draw on. What lies outside is cut off.
#[derive(Debug)]
pub struct Canvas(RgbImage);

impl Canvas {
    /// White, of this size in pixels.
    pub fn new(width: u32, height: u32) -> Self {
        Self(RgbImage::from_pixel(width, height, Rgb([255; 3])))
    }

    /// The drawn image.
    pub fn into_image(self) -> RgbImage {
        self.0
    }

    /// A line of text whose `align`ed edge is at `x` and whose top is at `y`.
    pub fn text(
        &mut self,
        text: &str,
        (x, y): (i32, i32),
        face: Face,
        align: Alignment,
        color: Rgb888,
    ) {
        let layout = TextStyleBuilder::new().alignment(align).baseline(Baseline::Top).build();
        let style = MonoTextStyle::new(face.0, color);
        let Ok(_) = Text::with_text_style(text, Point::new(x, y), style, layout).draw(self);
    }

    /// A line of text as [`text`](Self::text) has it, every dot `factor` pixels
    /// wide and high, its left edge at `x`.
    pub fn large_text(
        &mut self,
        text: &str,
        (x, y): (i32, i32),
        (face, factor): (Face, u32),
        color: Rgb888,
    ) {
        let dots = dots(text, face);
        for (dx, dy, _) in dots.enumerate_pixels().filter(|(.., dot)| dot.0 == [0; 3]) {
            let corner = (x + (dx * factor) as i32, y + (dy * factor) as i32);
            self.fill(corner, (factor, factor), color);
        }
    }

    /// A line of text that runs upwards from (`x`, `bottom`), its left edge
    /// (the tops of its letters) at `x`.
    pub fn rising_text(&mut self, text: &str, (x, bottom): (i32, i32), face: Face, color: Rgb888) {
        let dots = dots(text, face);
        for (dx, dy, _) in dots.enumerate_pixels().filter(|(.., dot)| dot.0 == [0; 3]) {
            self.fill((x + dy as i32, bottom - 1 - dx as i32), (1, 1), color);
        }
    }

    /// A filled rectangle.
    pub fn fill(&mut self, (x, y): (i32, i32), (width, height): (u32, u32), color: Rgb888) {
        let rectangle = Rectangle::new(Point::new(x, y), Size::new(width, height));
        self.shape(rectangle, PrimitiveStyle::with_fill(color));
    }

    /// Any primitive of embedded-graphics.
    pub fn shape<S>(&mut self, shape: S, style: PrimitiveStyle<Rgb888>)
    where
        S: Primitive,
        embedded_graphics::primitives::Styled<S, PrimitiveStyle<Rgb888>>:
            Drawable<Color = Rgb888, Output = ()>,
    {
        let Ok(()) = shape.into_styled(style).draw(self);
    }

    /// Mixes `color` into one pixel by `alpha`, 0 to 1.
    pub fn blend(&mut self, (x, y): (i32, i32), color: Rgb888, alpha: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        let Some(pixel) = self.0.get_pixel_mut_checked(x, y) else { return };
        for (old, new) in pixel.0.iter_mut().zip([color.r(), color.g(), color.b()]) {
            *old = (f64::from(*old) * (1.0 - alpha) + f64::from(new) * alpha).round() as u8;
        }
    }

    /// `picture` with its top left corner at (x, y), every pixel `factor` wide
    /// and high.
    pub fn paste(&mut self, picture: &RgbImage, (x, y): (u32, u32), factor: u32) {
        for (px, py, color) in picture.enumerate_pixels() {
            let [r, g, b] = color.0;
            let corner = ((x + px * factor) as i32, (y + py * factor) as i32);
            self.fill(corner, (factor, factor), Rgb888::new(r, g, b));
        }
    }
}

/// Text black on white, as large as itself.
fn dots(text: &str, face: Face) -> RgbImage {
    let mut canvas = Canvas::new(face.width(text), face.height());
    canvas.text(text, (0, 0), face, Alignment::Left, Rgb888::BLACK);
    canvas.into_image()
}

impl From<RgbImage> for Canvas {
    fn from(image: RgbImage) -> Self {
        Self(image)
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(
        &mut self,
        pixels: I,
    ) -> Result<(), Infallible> {
        for Pixel(point, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(point.x), u32::try_from(point.y)) else {
                continue;
            };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_broken_between_words_and_long_words_within() {
        let width = BODY.width("0123456789");
        assert_eq!(BODY.wrap("one two three four", width), ["one two", "three four"]);
        assert_eq!(BODY.wrap("0123456789ab c", width), ["0123456789", "ab c"]);
        assert!(BODY.wrap("", width).is_empty());
    }

    #[test]
    fn drawing_outside_is_cut_off() {
        let mut canvas = Canvas::new(4, 4);
        canvas.fill((-2, -2), (4, 4), INK);
        canvas.text("wide", (-5, 2), BODY, Alignment::Left, INK);
        let image = canvas.into_image();
        assert_eq!(image.get_pixel(1, 1).0, [40; 3]);
        assert_eq!(image.get_pixel(3, 0).0, [255; 3]);
    }

    #[test]
    fn text_can_be_enlarged_and_turned() {
        let ink = |canvas: Canvas| -> Vec<(u32, u32)> {
            let image = canvas.into_image();
            let ink = image.enumerate_pixels().filter(|(.., c)| c.0 == [40; 3]);
            ink.map(|(x, y, _)| (x, y)).collect()
        };
        let mut plain = Canvas::new(40, 40);
        plain.text("Fa", (0, 0), BODY, Alignment::Left, INK);
        let mut large = Canvas::new(80, 80);
        large.large_text("Fa", (2, 4), (BODY, 2), INK);
        let mut rising = Canvas::new(40, 40);
        rising.rising_text("Fa", (0, 40), BODY, INK);
        let (plain, large, rising) = (ink(plain), ink(large), ink(rising));
        assert_eq!(large.len(), 4 * plain.len());
        assert!(plain.iter().all(|(x, y)| large.contains(&(2 * x + 3, 2 * y + 5))));
        assert_eq!(rising.len(), plain.len());
        assert!(plain.iter().all(|(x, y)| rising.contains(&(*y, 39 - x))));
    }

    #[test]
    fn text_is_ink_within_its_box() {
        let mut canvas = Canvas::new(60, 30);
        canvas.text("Mask", (10, 5), BODY, Alignment::Left, INK);
        let (right, bottom) = (10 + BODY.width("Mask"), 5 + BODY.height());
        let image = canvas.into_image();
        let ink: Vec<_> = image.enumerate_pixels().filter(|(.., c)| c.0 == [40; 3]).collect();
        assert!(ink.len() > 30, "{} pixels of ink", ink.len());
        let inside = |x: u32, y: u32| (10..right).contains(&x) && (5..bottom).contains(&y);
        assert!(ink.iter().all(|(x, y, _)| inside(*x, *y)));
    }
}
