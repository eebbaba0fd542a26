//! A picture as a pretrained network takes it, to be looked at.

use std::path::Path;

use anyhow::{Result, ensure};
use data::rng::Rng;
use data::{Evaluate, Image, Interpolation, Transform, decode_deep};
use tch::Tensor;

use crate::config::{InputSize, TrainConfig};
use crate::train::normalize;

/// The image in a file's `bytes` resized, cropped at its centre and normalised, `[C, H, W]`;
/// messages name `path`.
///
/// # Errors
/// No image of as many channels as `config` says, a size that makes no sense.
pub fn prepare(path: &Path, bytes: &[u8], config: &TrainConfig, size: InputSize) -> Result<Tensor> {
    let channels = config.in_chans as usize;
    let image: Image = decode_deep(path, bytes, channels)?;
    let (height, width) = (size.height as usize, size.width as usize);
    ensure!(height.max(width) <= 8192, "input-size is {size}, but at most 8192 pixels make sense");
    let transform = Evaluate::new(
        height.max(width),
        (height, width),
        Interpolation::Bicubic,
        normalize(config)?,
    )?;
    let mut pixels = vec![0f32; channels * height * width];
    transform.apply(&image, &mut Rng::new(0, &[]), &mut pixels)?;
    Ok(Tensor::from_slice(&pixels).view([channels as i64, size.height, size.width]))
}
