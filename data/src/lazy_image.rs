//! What a transform takes its sample from.

use super::image::{CropBox, Image, Interpolation};
use crate::Result;

/// An image that a transform shows a part of: decoded, or a file that is decoded only as far as
/// the part needs ([`ImageFile`](super::ImageFile)).
pub trait LazyImage {
    /// (height, width) in pixels, upright.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) for a file that can't be used.
    fn size(&self) -> Result<(usize, usize)>;

    /// The whole image, every pixel of it.
    ///
    /// # Errors
    /// [`Error::Image`](crate::Error::Image) for a file that can't be used.
    fn image(&self) -> Result<&Image>;

    /// The part inside `area`, resized to `size` = (height, width): [`Image::resized_crop`], or
    /// for a large file something close to it.
    ///
    /// # Errors
    /// Those of [`LazyImage::image`] and [`Image::resized_crop`].
    fn resized_crop(
        &self,
        area: CropBox,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image>;
}

impl LazyImage for Image {
    fn size(&self) -> Result<(usize, usize)> {
        Ok((self.height(), self.width()))
    }

    fn image(&self) -> Result<&Image> {
        Ok(self)
    }

    fn resized_crop(
        &self,
        area: CropBox,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image> {
        self.resized_crop(area, size, interpolation)
    }
}
