//! Resizing of pixels by `fast_image_resize`, whose convolutions are generic: the crate that calls
//! them compiles them, for a minute or more. In this small one that happens once, beside other work.

use std::cell::RefCell;

use fast_image_resize as fir;
pub use fast_image_resize::FilterType;
use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};

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
pub struct Part {
    /// Above it.
    pub top: f64,
    /// Left of it.
    pub left: f64,
    /// From top to bottom.
    pub height: f64,
    /// From left to right.
    pub width: f64,
}

/// What the bytes of a row of pixels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A byte a pixel.
    L8,
    /// Three bytes a pixel.
    Rgb8,
    /// Four bytes a pixel, of which the last weighs the others.
    Rgba8,
    /// A float32 a pixel.
    F32,
}

/// What a resize does, apart from the samples. Sizes are (height, width).
#[derive(Debug, Clone, Copy)]
pub struct Resampling {
    /// The source's size.
    pub from: (usize, usize),
    /// All that is looked at of the source.
    pub view: CropBox,
    /// What becomes the target, in the view; none: all of it.
    pub part: Option<Part>,
    /// The target's size.
    pub to: (usize, usize),
    /// How pixels are weighed. Filters widen when shrinking (antialiasing), as Pillow's do.
    pub filter: FilterType,
}

thread_local! {
    /// Keeps its buffers from one image to the next.
    static RESIZER: RefCell<fir::Resizer> = RefCell::new(fir::Resizer::new());
}

impl Resampling {
    /// Resizes `samples` into `target`.
    ///
    /// # Errors
    /// A sentence: sides beyond 2³², or rectangles and buffers that do not fit the sizes.
    pub fn run(&self, layout: Layout, samples: &[u8], target: &mut [u8]) -> Result<(), String> {
        match layout {
            Layout::L8 => self.run_typed::<fir::pixels::U8>(samples, target),
            Layout::Rgb8 => self.run_typed::<fir::pixels::U8x3>(samples, target),
            Layout::Rgba8 => self.run_typed::<fir::pixels::U8x4>(samples, target),
            Layout::F32 => self.run_typed::<fir::pixels::F32>(samples, target),
        }
    }

    /// By type, since the call that finds out at run time compiles the kernels of all fifteen.
    fn run_typed<P: fir::PixelTrait>(
        &self,
        samples: &[u8],
        target: &mut [u8],
    ) -> Result<(), String> {
        let convolution = fir::ResizeAlg::Convolution(self.filter);
        let mut options = fir::ResizeOptions::new().resize_alg(convolution);
        if let Some(Part { top, left, height, width }) = self.part {
            options = options.crop(left, top, width, height);
        }
        let (height, width) = self.from;
        let source = TypedImageRef::<P>::from_buffer(side(width)?, side(height)?, samples)
            .map_err(|error| error.to_string())?;
        let CropBox { top, left, height, width } = self.view;
        let [left, top, width, height] = [side(left)?, side(top)?, side(width)?, side(height)?];
        let source = TypedCroppedImage::from_ref(&source, left, top, width, height)
            .map_err(|error| error.to_string())?;
        let (height, width) = self.to;
        let mut target = TypedImage::<P>::from_buffer(side(width)?, side(height)?, target)
            .map_err(|error| error.to_string())?;
        RESIZER
            .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
            .map_err(|error| error.to_string())
    }
}

fn side(side: usize) -> Result<u32, String> {
    u32::try_from(side).map_err(|error| format!("{side}: {error}"))
}
