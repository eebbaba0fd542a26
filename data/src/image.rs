//! A decoded image, cropping and resizing.

use clap::ValueEnum;
pub use resize::CropBox;
pub(super) use resize::Part;
use resize::{FilterType, Layout, Resampling};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The samples of an [`Image`].
#[derive(Debug, Clone, PartialEq)]
pub enum Pixels {
    /// Interleaved 8-bit samples, `[H, W, C]`, 1, 3 or 4 channels.
    U8(Vec<u8>),
    /// Planar float samples, `[C, H, W]`, any number of channels.
    F32(Vec<f32>),
}

/// A decoded image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    width: usize,
    height: usize,
    channels: usize,
    pixels: Pixels,
}

/// How a resize weighs the source pixels. Both filters widen when shrinking
/// (antialiasing), as Pillow's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Interpolation {
    /// Triangle filter.
    Bilinear,
    /// Cubic filter with a = −0.5.
    Bicubic,
}

impl Interpolation {
    fn filter(self) -> FilterType {
        match self {
            Self::Bilinear => FilterType::Bilinear,
            Self::Bicubic => FilterType::CatmullRom,
        }
    }
}

impl Image {
    /// An image of `pixels`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side or the channel count is 0, when 8-bit samples come with
    /// other than 1, 3 or 4 channels, or when the number of samples isn't their product.
    pub fn new(width: usize, height: usize, channels: usize, pixels: Pixels) -> Result<Self> {
        let shape = format!("{height}×{width}×{channels}");
        if width == 0 || height == 0 || channels == 0 {
            return Err(Error::invalid("image shape", shape, "every dimension must be at least 1"));
        }
        let samples = match &pixels {
            Pixels::U8(_) if !matches!(channels, 1 | 3 | 4) => {
                let rule = "8-bit images have 1, 3 or 4 channels";
                return Err(Error::invalid("image channels", channels, rule));
            }
            Pixels::U8(samples) => samples.len(),
            Pixels::F32(samples) => samples.len(),
        };
        let needed = width.checked_mul(height).and_then(|area| area.checked_mul(channels));
        if needed != Some(samples) {
            let rule = format!("a {shape} image has one for each");
            return Err(Error::invalid("number of samples", samples, rule));
        }
        Ok(Image { width, height, channels, pixels })
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The samples.
    pub fn pixels(&self) -> &Pixels {
        &self.pixels
    }

    /// The samples, without the image.
    pub fn into_pixels(self) -> Pixels {
        self.pixels
    }

    /// The part inside `area`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `area` is empty or reaches outside the image.
    pub fn crop(&self, area: CropBox) -> Result<Image> {
        self.check_inside(area)?;
        let pixels = match &self.pixels {
            Pixels::U8(samples) => {
                Pixels::U8(crop_rows(samples, self.width * self.channels, area, self.channels))
            }
            Pixels::F32(samples) => Pixels::F32(
                samples
                    .chunks_exact(self.width * self.height)
                    .flat_map(|plane| crop_rows(plane, self.width, area, 1))
                    .collect(),
            ),
        };
        Ok(Image { width: area.width, height: area.height, channels: self.channels, pixels })
    }

    fn check_inside(&self, area: CropBox) -> Result<()> {
        let inside = |start: usize, length: usize, side| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= side)
        };
        if inside(area.left, area.width, self.width) && inside(area.top, area.height, self.height) {
            return Ok(());
        }
        let rule = format!("it must lie inside the image of {}×{}", self.height, self.width);
        Err(Error::invalid("crop box", format!("{area:?}"), rule))
    }

    /// The image with left and right changed.
    pub fn flip_horizontal(&self) -> Image {
        let pixels = match &self.pixels {
            Pixels::U8(samples) => {
                let rows = samples.chunks_exact(self.width * self.channels);
                let mirrored = rows.flat_map(|row| row.rchunks_exact(self.channels).flatten());
                Pixels::U8(mirrored.copied().collect())
            }
            Pixels::F32(samples) => {
                let rows = samples.chunks_exact(self.width);
                Pixels::F32(rows.flat_map(|row| row.iter().rev()).copied().collect())
            }
        };
        Image { pixels, ..*self }
    }

    /// The part inside `area`, resized to `size` = (height, width).
    ///
    /// Pixels just outside the crop have no say, as in torchvision's `resized_crop`. The alpha
    /// channel of four weighs the colours, as in Pillow.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `area` reaches outside the image or a side of `size` is 0.
    pub fn resized_crop(
        &self,
        area: CropBox,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image> {
        self.check_inside(area)?;
        if (area.height, area.width) == size {
            return self.crop(area);
        }
        self.resample(area, None, size, interpolation)
    }

    /// The whole image resized to `size` = (height, width).
    ///
    /// # Errors
    /// [`Error::Invalid`] when a side of `size` is 0 or beyond 2³².
    pub fn resize(&self, size: (usize, usize), interpolation: Interpolation) -> Result<Image> {
        self.resample(self.whole(), None, size, interpolation)
    }

    /// What is inside `part`, which must lie inside the image, resized to `size`. Unlike in
    /// [`Image::resized_crop`], pixels outside have a say: those that the part's edges cut should.
    pub(super) fn resize_part(
        &self,
        part: Part,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image> {
        self.resample(self.whole(), Some(part), size, interpolation)
    }

    fn whole(&self) -> CropBox {
        CropBox { top: 0, left: 0, height: self.height, width: self.width }
    }

    /// `part`, else all, of what is inside `view`, resized to `size`.
    fn resample(
        &self,
        view: CropBox,
        part: Option<Part>,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image> {
        let (height, width) = size;
        if height == 0 || width == 0 {
            let rule = "both sides must be at least 1";
            return Err(Error::invalid("target size", format!("{height}×{width}"), rule));
        }
        let from = (self.height, self.width);
        let filter = interpolation.filter();
        let resampling = Resampling { from, view, part, to: size, filter };
        let run = |layout, samples: &[u8], target: &mut [u8]| {
            resampling.run(layout, samples, target).map_err(|problem| {
                let value = format!("{:?} to {size:?}", (view.height, view.width));
                Error::invalid("resize (height, width)", value, problem)
            })
        };
        let pixels = match &self.pixels {
            Pixels::U8(samples) => {
                let mut resized = vec![0; width * height * self.channels];
                let layout = match self.channels {
                    1 => Layout::L8,
                    3 => Layout::Rgb8,
                    _ => Layout::Rgba8,
                };
                run(layout, samples, &mut resized)?;
                Pixels::U8(resized)
            }
            Pixels::F32(samples) => {
                let mut resized = vec![0.0f32; width * height * self.channels];
                let planes = samples.chunks_exact(self.width * self.height);
                for (plane, target) in planes.zip(resized.chunks_exact_mut(width * height)) {
                    let plane = bytemuck::cast_slice(plane);
                    run(Layout::F32, plane, bytemuck::cast_slice_mut(target))?;
                }
                Pixels::F32(resized)
            }
        };
        Ok(Image { width, height, channels: self.channels, pixels })
    }
}

/// Copies `area` out of rows of `stride` samples, `step` samples a pixel.
fn crop_rows<T: Copy>(samples: &[T], stride: usize, area: CropBox, step: usize) -> Vec<T> {
    let columns = area.left * step..(area.left + area.width) * step;
    samples
        .chunks_exact(stride)
        .skip(area.top)
        .take(area.height)
        .flat_map(|row| &row[columns.clone()])
        .copied()
        .collect()
}

#[cfg(test)]
mod tests;
