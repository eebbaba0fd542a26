//! The contact sheet: original, masked and reconstructed images side by side.

use backbone::{Error, PatchMask};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use image::RgbImage;
use tch::{Device, Tensor};

use super::canvas::{BODY, Canvas, HEADING, INK};
use super::{Result, to_rgb};

/// A masked patch.
const MASKED: Rgb888 = Rgb888::new(128, 128, 128);
/// Its outline, so that single patches can be told apart.
const PATCH_EDGE: Rgb888 = Rgb888::new(150, 150, 150);

const COLUMNS: [&str; 3] = ["original", "masked", "reconstruction"];
/// White around everything, in pixels.
const MARGIN: u32 = 16;
/// White between images, in pixels.
const GAP: u32 = 8;
/// Images smaller than this are enlarged by the largest whole factor that
/// stays within it: 64 px to 192, 96 to 192; 224 px stay as they are.
const COMFORTABLE_SIDE: u32 = 224;

/// How a sheet is captioned and how its tensors were normalised.
#[derive(Debug, Clone, Copy)]
pub struct Sheet<'a> {
    /// Printed above the images: model, mask ratio, seed, loss.
    pub caption: &'a str,
    /// Mean that was subtracted, one value a channel (1 = white).
    pub mean: &'a [f64],
    /// Deviation that was divided by, one value a channel.
    pub std: &'a [f64],
}

impl Sheet<'_> {
    /// One row for each image: as it is, with its masked patches grey, and
    /// reconstructed. `original` and `reconstruction` are `[N, C, H, W]`, the
    /// latter in image space (see [`denormalise`](crate::spark::denormalise)).
    ///
    /// # Errors
    /// The tensors do not fit each other, the mask, or the normalisation (see
    /// [`to_rgb`]).
    pub fn render(
        &self,
        original: &Tensor,
        reconstruction: &Tensor,
        mask: &PatchMask,
    ) -> Result<RgbImage> {
        check(original, reconstruction, mask)?;
        let originals = to_rgb(original, self.mean, self.std)?;
        let reconstructions = to_rgb(reconstruction, self.mean, self.std)?.images;
        let visible = Vec::<bool>::try_from(mask.active((1, 1)).to_device(Device::Cpu).view([-1]))
            .map_err(Error::from)?;
        let caption = match originals.remark {
            None => self.caption.to_owned(),
            Some(remark) => format!("{} ({remark})", self.caption),
        };

        let (width, height) = originals.images[0].dimensions();
        let layout = Layout::new(width, height, originals.images.len() as u32, &caption);
        let mut canvas = layout.canvas();
        let patches_per_image = visible.len() / originals.images.len();
        let rows = originals.images.iter().zip(&reconstructions);
        for ((row, (original, reconstruction)), visible) in
            (0..).zip(rows).zip(visible.chunks(patches_per_image))
        {
            canvas.paste(original, layout.cell(row, 0), layout.factor);
            canvas.paste(original, layout.cell(row, 1), layout.factor);
            layout.hide(&mut canvas, row, visible, mask);
            canvas.paste(reconstruction, layout.cell(row, 2), layout.factor);
        }
        Ok(canvas.into_image())
    }
}

fn check(original: &Tensor, reconstruction: &Tensor, mask: &PatchMask) -> Result<()> {
    let (size, (rows, cols)) = (original.size(), mask.patches());
    if reconstruction.size() != size {
        let rule = format!("it must have the size of the originals, {size:?}");
        let value = format!("{:?}", reconstruction.size());
        return Err(Error::invalid("reconstruction", value, rule).into());
    }
    match size[..] {
        [n, _, h, w] if n == mask.batch() && h % rows == 0 && w % cols == 0 => Ok(()),
        _ => {
            let rule = format!(
                "it must be [{}, C, H, W] with sides that are multiples of the mask's \
                 {rows}×{cols} patches",
                mask.batch()
            );
            Err(Error::invalid("original", format!("{size:?}"), rule).into())
        }
    }
}

/// Where everything lies, in pixels.
struct Layout {
    factor: u32,
    /// Of an enlarged image.
    image: (u32, u32),
    column: u32,
    rows: u32,
    caption: Vec<String>,
}

impl Layout {
    fn new(width: u32, height: u32, rows: u32, caption: &str) -> Self {
        let factor = (COMFORTABLE_SIDE / width.max(height)).max(1);
        let image = (width * factor, height * factor);
        let headings = COLUMNS.map(|heading| HEADING.width(heading));
        let column = headings.into_iter().fold(image.0, u32::max);
        let mut layout = Self { factor, image, column, rows, caption: Vec::new() };
        layout.caption = BODY.wrap(caption, layout.width() - 2 * MARGIN);
        layout
    }

    fn width(&self) -> u32 {
        2 * MARGIN + 3 * self.column + 2 * GAP
    }

    fn headings_top(&self) -> u32 {
        let lines = self.caption.len() as u32;
        MARGIN + if lines > 0 { lines * (BODY.height() + 3) + GAP } else { 0 }
    }

    /// Top left corner of an image.
    fn cell(&self, row: u32, column: u32) -> (u32, u32) {
        let top = self.headings_top() + HEADING.height() + GAP / 2;
        let indent = (self.column - self.image.0) / 2;
        (MARGIN + column * (self.column + GAP) + indent, top + row * (self.image.1 + GAP))
    }

    /// White paper with caption and headings.
    fn canvas(&self) -> Canvas {
        let bottom = self.cell(self.rows - 1, 0).1 + self.image.1 + MARGIN;
        let mut canvas = Canvas::new(self.width(), bottom);
        for (line, top) in self.caption.iter().zip((MARGIN..).step_by(BODY.height() as usize + 3)) {
            canvas.text(line, (MARGIN as i32, top as i32), BODY, Alignment::Left, INK);
        }
        for (column, heading) in (0..).zip(COLUMNS) {
            let centre = self.cell(0, column).0 + self.image.0 / 2;
            let at = (centre as i32, self.headings_top() as i32);
            canvas.text(heading, at, HEADING, Alignment::Center, INK);
        }
        canvas
    }

    /// Covers the masked patches of the middle column.
    fn hide(&self, canvas: &mut Canvas, row: u32, visible: &[bool], mask: &PatchMask) {
        let (rows, cols) = mask.patches();
        let patch = (self.image.0 / cols as u32, self.image.1 / rows as u32);
        let (left, top) = self.cell(row, 1);
        for (index, _) in (0u32..).zip(visible).filter(|(_, visible)| !**visible) {
            let (y, x) = (index / cols as u32, index % cols as u32);
            let corner = ((left + x * patch.0) as i32, (top + y * patch.1) as i32);
            canvas.fill(corner, patch, PATCH_EDGE);
            let inner = (patch.0.saturating_sub(1), patch.1.saturating_sub(1));
            canvas.fill(corner, inner, MASKED);
        }
    }
}
