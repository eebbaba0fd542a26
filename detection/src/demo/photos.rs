//! The photographs that backgrounds and textures are cut out of.

use std::path::Path;

use data::rng::Rng;
use data::{CropBox, Dataset, DatasetOptions, Image, Interpolation, Pixels};
use image::RgbImage;

use crate::{Error, Result};

/// Share of every photograph that training pictures are cut out of; validation pictures have
/// the rest.
const TRAIN_SHARE: f64 = 0.7;
/// A photograph's part must have sides of this many pixels.
const LEAST_SIDE: usize = 64;
/// Larger photographs are shrunk, so that a folder of them fits into memory.
const LARGEST_SIDE: usize = 1024;

/// The parts of photographs that one half of the data set may show.
pub(super) struct Photos(Vec<Image>);

impl Photos {
    /// Two parts of all photographs in `folder`, for training and validation, that have no pixel
    /// in common.
    pub(super) fn open(folder: &Path) -> Result<(Photos, Photos)> {
        let dataset = Dataset::open(folder, &DatasetOptions::default())?;
        let (mut train, mut val) = (Vec::new(), Vec::new());
        for index in 0..dataset.len() {
            let photo = shrink(dataset.image(index)?)?;
            let (width, height) = (photo.width(), photo.height());
            let cut = |side: usize| (side as f64 * TRAIN_SHARE) as usize;
            let whole = CropBox { top: 0, left: 0, height, width };
            let (first, second) = if width >= height {
                let at = cut(width);
                (CropBox { width: at, ..whole }, CropBox { left: at, width: width - at, ..whole })
            } else {
                let at = cut(height);
                (CropBox { height: at, ..whole }, CropBox { top: at, height: height - at, ..whole })
            };
            if second.width.min(second.height) >= LEAST_SIDE {
                train.push(photo.crop(first)?);
                val.push(photo.crop(second)?);
            }
        }
        if train.is_empty() {
            let rule = format!(
                "at least one is needed whose sides are {} pixels or more",
                (LEAST_SIDE as f64 / (1.0 - TRAIN_SHARE)).ceil()
            );
            return Err(Error::invalid("photographs", folder.display(), rule));
        }
        Ok((Photos(train), Photos(val)))
    }

    /// A part of one of them, of random size and place, as `width` × `height` pixels. Parts are
    /// at least half as large as can be.
    pub(super) fn cut(&self, width: usize, height: usize, rng: &mut Rng) -> Result<RgbImage> {
        let photo = &self.0[rng.below(self.0.len())];
        let fit = (photo.width() as f64 / width as f64).min(photo.height() as f64 / height as f64);
        let scale = fit * rng.between(0.5, 1.0);
        let side = |wanted: usize, most: usize| ((wanted as f64 * scale) as usize).clamp(1, most);
        let (columns, rows) = (side(width, photo.width()), side(height, photo.height()));
        let top = rng.below(photo.height() - rows + 1);
        let left = rng.below(photo.width() - columns + 1);
        let area = CropBox { top, left, height: rows, width: columns };
        let mut part = photo.resized_crop(area, (height, width), Interpolation::Bilinear)?;
        if rng.uniform() < 0.5 {
            part = part.flip_horizontal();
        }
        let Pixels::U8(bytes) = part.pixels() else {
            return Err(Error::invalid("photographs", "floating point", "pictures are needed"));
        };
        let picture = RgbImage::from_raw(width as u32, height as u32, bytes.clone());
        picture.ok_or_else(|| Error::invalid("photographs", "grey", "they are read as RGB"))
    }
}

fn shrink(photo: Image) -> Result<Image> {
    let largest = photo.width().max(photo.height());
    if largest <= LARGEST_SIDE {
        return Ok(photo);
    }
    let side = |side: usize| (side * LARGEST_SIDE / largest).max(1);
    let size = (side(photo.height()), side(photo.width()));
    Ok(photo.resize(size, Interpolation::Bilinear)?)
}
