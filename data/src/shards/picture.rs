//! One image, as it goes into a shard.

use std::borrow::Cow;

use mozjpeg::{ColorSpace, Compress};

use crate::corrupt::outcome;
use crate::{CropBox, Dataset, Image, Interpolation, LazyImage, Pixels};
use crate::{Error, Result};

/// The content of a member.
pub(super) struct Picture {
    pub bytes: Vec<u8>,
    /// What it is called in the shard, if another than its file.
    pub extension: Option<&'static str>,
}

impl Picture {
    /// Image `index`, decoded once to see that it can be; smaller, if a side is longer than
    /// `max_side`, as JPEG of this quality, else byte for byte.
    ///
    /// If it can't be used, why.
    ///
    /// # Errors
    /// [`Error::Storage`] where the store that it lies in fails.
    pub fn read(
        images: &Dataset,
        index: usize,
        max_side: Option<u32>,
        quality: u8,
    ) -> Result<std::result::Result<Self, String>> {
        outcome(|| {
            let file = images.file(index)?;
            let (height, width) = file.size()?;
            let target = max_side.and_then(|side| fitting((height, width), side as usize));
            let Some(size) = target else {
                file.image()?;
                return Ok(Picture { bytes: file.into_bytes(), extension: None });
            };
            let whole = CropBox { top: 0, left: 0, height, width };
            let smaller = file.resized_crop(whole, size, Interpolation::Bicubic)?;
            let bytes = jpeg(&smaller, quality)?;
            Ok(Picture { bytes, extension: Some("jpg") })
        })
    }
}

/// The (height, width) whose longer side is `side`, in the ratio of `size`; none if that is no
/// smaller.
fn fitting((height, width): (usize, usize), side: usize) -> Option<(usize, usize)> {
    let longest = height.max(width);
    let scaled = |length: usize| {
        // Rounded, in whole numbers.
        let (length, side, longest) = (length as u128, side as u128, longest as u128);
        (((2 * length * side + longest) / (2 * longest)) as usize).max(1)
    };
    (longest > side).then(|| (scaled(height), scaled(width)))
}

/// `image`, of 1 or 3 channels, as a baseline JPEG with tables of its own.
fn jpeg(image: &Image, quality: u8) -> Result<Vec<u8>> {
    let samples: Cow<[u8]> = match image.pixels() {
        Pixels::U8(samples) => samples.into(),
        Pixels::F32(_) => {
            let problem = "an array or bands, which can't be made smaller as JPEG";
            return Err(Error::Data(problem.into()));
        }
    };
    let space = if image.channels() == 1 { ColorSpace::JCS_GRAYSCALE } else { ColorSpace::JCS_RGB };
    let failed = |e: std::io::Error| Error::Data(format!("it can't be written as JPEG: {e}"));
    let mut compress = Compress::new(space);
    // Trellis quantisation takes ten times as long for some percent of the size.
    compress.set_fastest_defaults();
    compress.set_optimize_coding(true);
    compress.set_size(image.width(), image.height());
    compress.set_quality(f32::from(quality));
    let mut started = compress.start_compress(Vec::new()).map_err(failed)?;
    started.write_scanlines(&samples).map_err(failed)?;
    started.finish().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_side_is_what_it_may_be_and_the_ratio_stays() {
        assert_eq!(fitting((480, 640), 320), Some((240, 320)));
        assert_eq!(fitting((3000, 2001), 300), Some((300, 200)));
        assert_eq!(fitting((10_000, 1), 100), Some((100, 1)), "never nothing");
        assert_eq!(fitting((100, 100), 100), None);
        assert_eq!(fitting((30, 40), 100), None, "never larger");
    }
}
