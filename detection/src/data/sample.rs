//! One image with its objects, as the model takes it.

use data::{Image, Pixels};
use tch::Tensor;

use crate::structures::Targets;
use crate::{Error, Result};

/// An image and what is in it.
#[derive(Debug)]
pub struct Sample {
    /// `[3, H, W]`, uint8, red, green, blue.
    pub image: Tensor,
    /// The objects in this image's pixels; all of the data set's that are no crowd, or what
    /// augmentation left of them.
    pub targets: Targets,
    /// The id in the annotation file.
    pub image_id: u64,
    /// (height, width) of the file, before any resizing.
    pub size: (usize, usize),
    /// The index in the data set.
    pub index: usize,
    /// The number in the epoch, which the augmentation depended on.
    pub position: u64,
}

/// Interleaved bytes to `[3, H, W]`. Without libtorch's operators: each loader thread would
/// start a pool of threads of its own for them.
pub(super) fn planes(image: &Image) -> Result<Tensor> {
    let (height, width) = (image.height(), image.width());
    let Pixels::U8(pixels) = image.pixels() else {
        let rule = "detection works on 8-bit pictures";
        return Err(Error::invalid("the image's samples", "floating point", rule));
    };
    let area = height * width;
    let mut planes = vec![0u8; 3 * area];
    for (channel, plane) in planes.chunks_exact_mut(area).enumerate() {
        for (target, pixel) in plane.iter_mut().zip(pixels.chunks_exact(3)) {
            *target = pixel[channel];
        }
    }
    Ok(Tensor::from_slice(&planes).view([3, height as i64, width as i64]))
}
