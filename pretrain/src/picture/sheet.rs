//! The contact sheet: original, masked and reconstructed images side by side.

use backbone::{Error, PatchMask};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, Canvas, HEADING, INK};
use image::RgbImage;
use tch::{Device, Tensor};

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
    /// latter in image space. (From [`denormalise`](crate::spark::denormalise)
    /// each patch has its true mean and contrast, which the loss does not ask
    /// for: an untrained model already shows right shades, but no structure.)
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use image::Rgb;
    use tch::Kind;

    use super::*;

    const GREY: Rgb<u8> = Rgb([128; 3]);

    fn sheet(caption: &str) -> Sheet<'_> {
        Sheet { caption, mean: &[0.5; 3], std: &[0.25; 3] }
    }

    /// Two red images of 64 px, blue reconstructions, and a mask that shows
    /// patches 0 and 3 of the first and patch 1 of the second image.
    fn example() -> (Tensor, Tensor, Rc<PatchMask>) {
        let plain = |rgb: [f64; 3]| {
            let normalised = rgb.map(|value| (value - 0.5) / 0.25);
            Tensor::from_slice(&normalised).view([1, 3, 1, 1]).expand([2, 3, 64, 64], false)
        };
        let mask = PatchMask::from_visible(2, (2, 2), &[0, 3, 5], Device::Cpu).unwrap();
        (plain([1.0, 0.0, 0.0]), plain([0.0, 0.0, 1.0]), mask)
    }

    fn ink(image: &RgbImage, rows: std::ops::Range<u32>) -> usize {
        let dark =
            |y: &u32| (0..image.width()).filter(|x| image.get_pixel(*x, *y).0 == [40; 3]).count();
        rows.map(|y| dark(&y)).sum()
    }

    #[test]
    fn each_row_shows_original_masked_and_reconstruction() {
        let (original, reconstruction, mask) = example();
        let image = sheet("caption").render(&original, &reconstruction, &mask).unwrap();
        let layout = Layout::new(64, 64, 2, "caption");
        assert_eq!((layout.factor, layout.image), (3, (192, 192)));
        assert_eq!(image.width(), 2 * MARGIN + 3 * 192 + 2 * GAP);
        let (left, top) = layout.cell(1, 2);
        assert_eq!((left + 192 + MARGIN, top + 192 + MARGIN), image.dimensions());

        let (red, blue) = (Rgb([255, 0, 0]), Rgb([0, 0, 255]));
        let visible = [[true, false, false, true], [false, true, false, false]];
        for (row, visible) in (0..).zip(visible) {
            for (patch, visible) in (0..).zip(visible) {
                // Every pixel of a patch but the last row and column, which
                // outline it where it is masked.
                for (y, x) in (0..95).flat_map(|y| (0..95).map(move |x| (y, x))) {
                    let at = |column| {
                        let (left, top) = layout.cell(row, column);
                        *image.get_pixel(left + patch % 2 * 96 + x, top + patch / 2 * 96 + y)
                    };
                    let middle = if visible { red } else { GREY };
                    assert_eq!([at(0), at(1), at(2)], [red, middle, blue], "{row} {patch} {y} {x}");
                }
            }
        }
        let (left, top) = layout.cell(0, 1);
        assert_eq!(image.get_pixel(left + 191, top).0, [150; 3], "outline of patch 1");
        assert_eq!(image.get_pixel(left + 191, top + 191).0, [255, 0, 0], "none at patch 3");
    }

    #[test]
    fn caption_and_headings_are_printed_above() {
        let (original, reconstruction, mask) = example();
        let render = |caption| sheet(caption).render(&original, &reconstruction, &mask).unwrap();
        let (plain, captioned) = (render(""), render("resnet50 · mask ratio 0.60"));
        assert!(ink(&plain, MARGIN..MARGIN + HEADING.height()) > 300, "headings");
        let caption = MARGIN..MARGIN + BODY.height();
        assert!(ink(&captioned, caption.clone()) > 200, "caption");
        assert_ne!(captioned, render("resnet50 · mask ratio 0.75"));
        // A caption too long for one line takes more, and stays within.
        let long = render(&"many words ".repeat(20));
        assert_eq!(long.width(), captioned.width());
        assert!(long.height() > captioned.height());
        let in_margin =
            (0..long.height()).any(|y| long.get_pixel(long.width() - 8, y).0 == [40; 3]);
        assert!(!in_margin);
    }

    #[test]
    fn hidden_channels_are_mentioned_in_the_caption() {
        let (_, _, mask) = example();
        let images = Tensor::zeros([2, 5, 64, 64], (Kind::Float, Device::Cpu));
        let render = |caption| {
            let sheet = Sheet { caption, mean: &[0.5; 5], std: &[0.5; 5] };
            sheet.render(&images, &images, &mask).unwrap()
        };
        let rgb = images.narrow(1, 0, 3);
        let spelled_out =
            sheet("model (channels 1-3 of 5 shown)").render(&rgb, &rgb, &mask).unwrap();
        assert_eq!(render("model"), spelled_out);
    }

    #[test]
    fn large_images_stay_as_they_are_and_narrow_ones_leave_room_for_headings() {
        assert_eq!(Layout::new(96, 96, 1, "").factor, 2);
        assert_eq!(Layout::new(224, 224, 1, "").factor, 1);
        assert_eq!(Layout::new(640, 480, 1, "").factor, 1);
        let narrow = Layout::new(32, 224, 1, "");
        assert_eq!(narrow.column, HEADING.width("reconstruction"));
    }

    #[test]
    fn misfits_are_refused() {
        let (original, reconstruction, mask) = example();
        let refuse = |original: &Tensor, reconstruction: &Tensor| {
            sheet("").render(original, reconstruction, &mask).unwrap_err().to_string()
        };
        let message = refuse(&original, &reconstruction.narrow(3, 0, 32));
        assert!(message.starts_with("reconstruction is [2, 3, 64, 32], but"), "{message}");
        let one = original.narrow(0, 0, 1);
        let message = refuse(&one, &one);
        assert!(message.contains("original is [1, 3, 64, 64], but it must be [2, C"), "{message}");
        let odd = original.narrow(2, 0, 63);
        let message = refuse(&odd, &odd);
        assert!(message.contains("[2, 3, 63, 64]") && message.contains("2×2"), "{message}");
    }
}
