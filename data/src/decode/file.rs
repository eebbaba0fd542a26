//! Image files that are decoded when it is known what for.

use std::cell::OnceCell;
use std::path::PathBuf;

use super::super::image::{CropBox, Image, Interpolation};
use super::reduced::Header;
use super::{decode, decode_deep};
use crate::LazyImage;
use crate::Result;

/// The content of an image file, decoded once a [`LazyImage`] of it is asked for.
///
/// With reduced decoding, [`LazyImage::resized_crop`] reads a JPEG that is much larger than needed
/// at 1/2, 1/4 or 1/8 of its size, which the inverse cosine transform gives for a fraction of the
/// work. The part keeps at least twice the target's height and width, so that nearly all of what
/// can be seen at that size is there. Which scale is taken depends on nothing but the file's size,
/// the part and the target. What can't be read so (CMYK, arithmetic coding, other formats) is read
/// in full, as are the parts that are not large enough; the results of those are
/// [`Image::resized_crop`]'s to the bit.
#[derive(Debug)]
pub struct ImageFile {
    path: PathBuf,
    bytes: Vec<u8>,
    channels: usize,
    reduced: bool,
    deep: bool,
    /// None of it: to be decoded in full.
    header: OnceCell<Option<Header>>,
    image: OnceCell<Image>,
}

impl ImageFile {
    /// The file of content `bytes`, to be read with `channels` channels as by [`decode`], in full
    /// or where possible `reduced`. `path` is for messages.
    pub fn new(path: impl Into<PathBuf>, bytes: Vec<u8>, channels: usize, reduced: bool) -> Self {
        let (header, image) = (OnceCell::new(), OnceCell::new());
        ImageFile { path: path.into(), bytes, channels, reduced, deep: false, header, image }
    }

    /// Whether it is read as by [`decode_deep`].
    pub fn deep(self, deep: bool) -> Self {
        ImageFile { deep, ..self }
    }

    /// The content.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn header(&self) -> Option<&Header> {
        let read = || if self.reduced { Header::read(&self.bytes, self.channels) } else { None };
        self.header.get_or_init(read).as_ref()
    }
}

impl LazyImage for ImageFile {
    fn size(&self) -> Result<(usize, usize)> {
        match self.header() {
            Some(header) => Ok(header.upright()),
            None => self.image().map(|image| (image.height(), image.width())),
        }
    }

    fn image(&self) -> Result<&Image> {
        if let Some(image) = self.image.get() {
            return Ok(image);
        }
        let read = if self.deep { decode_deep } else { decode };
        let image = read(&self.path, &self.bytes, self.channels)?;
        Ok(self.image.get_or_init(|| image))
    }

    fn resized_crop(
        &self,
        area: CropBox,
        size: (usize, usize),
        interpolation: Interpolation,
    ) -> Result<Image> {
        let reduced =
            self.header().and_then(|header| header.part(&self.bytes, area, size, interpolation));
        match reduced {
            Some(image) => Ok(image),
            None => self.image()?.resized_crop(area, size, interpolation),
        }
    }
}
