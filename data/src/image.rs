//! A decoded image, cropping and resizing.

use std::cell::RefCell;

use clap::ValueEnum;
use fast_image_resize as fir;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
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

/// A rectangle of whole pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

/// A rectangle whose edges may lie inside of pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    pub top: f64,
    pub left: f64,
    pub height: f64,
    pub width: f64,
}

thread_local! {
    /// Keeps its buffers from one image to the next.
    static RESIZER: RefCell<fir::Resizer> = RefCell::new(fir::Resizer::new());
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
        let resampling = Resampling { from, view, part, to: size, interpolation };
        let pixels = match &self.pixels {
            Pixels::U8(samples) => {
                let mut resized = vec![0; width * height * self.channels];
                match self.channels {
                    1 => resampling.run::<fir::pixels::U8>(samples, &mut resized),
                    3 => resampling.run::<fir::pixels::U8x3>(samples, &mut resized),
                    _ => resampling.run::<fir::pixels::U8x4>(samples, &mut resized),
                }?;
                Pixels::U8(resized)
            }
            Pixels::F32(samples) => {
                let mut resized = vec![0.0f32; width * height * self.channels];
                let planes = samples.chunks_exact(self.width * self.height);
                for (plane, target) in planes.zip(resized.chunks_exact_mut(width * height)) {
                    let (plane, target) =
                        (bytemuck::cast_slice(plane), bytemuck::cast_slice_mut(target));
                    resampling.run::<fir::pixels::F32>(plane, target)?;
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

/// What a resize does, apart from the samples. Sizes are (height, width).
struct Resampling {
    from: (usize, usize),
    /// All that is looked at of the source.
    view: CropBox,
    /// What becomes the target, in the view; none: all of it.
    part: Option<Part>,
    to: (usize, usize),
    interpolation: Interpolation,
}

impl Resampling {
    /// Resizes pixels of type `P`. By type, since the call that finds out at run time compiles
    /// the kernels of all fifteen.
    fn run<P: fir::PixelTrait>(&self, samples: &[u8], target: &mut [u8]) -> Result<()> {
        let refused = |problem: String| {
            let value = format!("{:?} to {:?}", (self.view.height, self.view.width), self.to);
            Error::invalid("resize (height, width)", value, problem)
        };
        let side = |side: usize| u32::try_from(side).map_err(|e| refused(e.to_string()));
        let filter = match self.interpolation {
            Interpolation::Bilinear => fir::FilterType::Bilinear,
            Interpolation::Bicubic => fir::FilterType::CatmullRom,
        };
        let mut options = fir::ResizeOptions::new().resize_alg(fir::ResizeAlg::Convolution(filter));
        if let Some(Part { top, left, height, width }) = self.part {
            options = options.crop(left, top, width, height);
        }
        let (height, width) = self.from;
        let source = TypedImageRef::<P>::from_buffer(side(width)?, side(height)?, samples)
            .map_err(|e| refused(e.to_string()))?;
        let CropBox { top, left, height, width } = self.view;
        let source = TypedCroppedImage::from_ref(
            &source,
            side(left)?,
            side(top)?,
            side(width)?,
            side(height)?,
        )
        .map_err(|e| refused(e.to_string()))?;
        let (height, width) = self.to;
        let mut target = TypedImage::<P>::from_buffer(side(width)?, side(height)?, target)
            .map_err(|e| refused(e.to_string()))?;
        RESIZER
            .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
            .map_err(|e| refused(e.to_string()))
    }
}

#[cfg(test)]
mod tests;
