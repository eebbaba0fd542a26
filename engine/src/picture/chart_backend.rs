//! What plotters draws on: lines on a finer image that is averaged down
//! afterwards, so that they are smooth, and text in the pictures' own bitmap
//! font, so that no font of the system is needed.

use std::convert::Infallible;

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Circle, Line, PrimitiveStyle};
use embedded_graphics::text::Alignment;
use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use super::canvas::{BODY, Canvas};

/// Fine pixels per pixel of the result, along each side. All that plotters is
/// told (sizes, margins, widths of lines) is in fine pixels.
pub(super) const OVERSAMPLING: u32 = 3;

/// A drawing in the making.
#[derive(Debug)]
pub(super) struct Sketch {
    fine: Canvas,
    texts: Vec<Label>,
}

/// Text waits for the averaged image, since averaging would blur it.
#[derive(Debug)]
struct Label {
    text: String,
    /// In pixels of the result.
    corner: (i32, i32),
    align: Alignment,
    color: Rgb888,
}

impl Sketch {
    /// White, of this size in pixels of the result.
    pub fn new(width: u32, height: u32) -> Self {
        let fine = Canvas::new(width * OVERSAMPLING, height * OVERSAMPLING);
        Self { fine, texts: Vec::new() }
    }

    /// The finished drawing.
    pub fn into_canvas(self) -> Canvas {
        let fine = self.fine.into_image();
        let (width, height) = (fine.width() / OVERSAMPLING, fine.height() / OVERSAMPLING);
        let mut canvas = Canvas::from(image::imageops::thumbnail(&fine, width, height));
        for Label { text, corner, align, color } in &self.texts {
            canvas.text(text, *corner, BODY, *align, *color);
        }
        canvas
    }
}

fn rgb(color: BackendColor) -> Rgb888 {
    let (r, g, b) = color.rgb;
    Rgb888::new(r, g, b)
}

fn point((x, y): BackendCoord) -> Point {
    Point::new(x, y)
}

type Drawn = Result<(), DrawingErrorKind<Infallible>>;

impl DrawingBackend for &mut Sketch {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        let size = self.fine.size();
        (size.width, size.height)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, at: BackendCoord, color: BackendColor) -> Drawn {
        self.fine.blend(at, rgb(color), color.alpha);
        Ok(())
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Drawn {
        if style.color().alpha > 0.0 {
            let stroke = PrimitiveStyle::with_stroke(rgb(style.color()), style.stroke_width());
            self.fine.shape(Line::new(point(from), point(to)), stroke);
        }
        Ok(())
    }

    /// Segments with round joins: a noisy line turns sharply, where pointed
    /// joins would stick out far beyond its values.
    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn {
        let width = style.stroke_width();
        let mut last = None;
        for to in path {
            if let Some(from) = last {
                self.draw_line(from, to, style)?;
                if width > OVERSAMPLING {
                    let joint = Circle::with_center(point(from), width);
                    self.fine.shape(joint, PrimitiveStyle::with_fill(rgb(style.color())));
                }
            }
            last = Some(to);
        }
        Ok(())
    }

    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        (x, y): BackendCoord,
    ) -> Drawn {
        let (pixel, height) = (OVERSAMPLING as i32, BODY.height() as i32);
        let align = match style.anchor().h_pos {
            HPos::Left => Alignment::Left,
            HPos::Center => Alignment::Center,
            HPos::Right => Alignment::Right,
        };
        let above = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => height / 2,
            VPos::Bottom => height,
        };
        self.texts.push(Label {
            text: text.to_owned(),
            corner: (x / pixel, y / pixel - above),
            align,
            color: rgb(style.color()),
        });
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(
        &self,
        text: &str,
        _style: &T,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        Ok((BODY.width(text) * OVERSAMPLING, BODY.height() * OVERSAMPLING))
    }
}
