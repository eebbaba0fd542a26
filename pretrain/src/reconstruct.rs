//! What a model makes of masked images.

use std::rc::Rc;

use anyhow::Result;
use backbone::{Mode, PatchMask};
use data::Normalize;
use image::RgbImage;
use tch::{Kind, Tensor};

use crate::mask::Masking;
use crate::picture::Sheet;
use crate::spark::{Execution, Spark, denormalise};

/// How to reconstruct and draw.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    /// Which patches are masked.
    pub masking: Masking,
    /// Element type of the arithmetic, if not the images'.
    pub compute: Option<Kind>,
    /// Statistics the images were normalised with.
    pub normalize: Normalize,
    /// First words of the caption.
    pub title: String,
}

/// Reconstructed images and their picture.
#[derive(Debug)]
pub struct Reconstructed {
    /// `[N, C, H, W]`, normalised; visible patches as in the input.
    pub images: Tensor,
    /// Which patches were visible.
    pub mask: Rc<PatchMask>,
    /// Mean squared error on normalised pixels of masked patches.
    pub loss: f64,
    /// Original, masked and reconstructed, a row an image.
    pub sheet: RgbImage,
}

/// Masks `images` `[N, C, H, W]` (normalised), reconstructs them with running
/// statistics, and draws a sheet.
///
/// # Errors
/// Images that do not fit the model, or a mask that does not fit them or leaves none or all
/// patches visible.
pub fn reconstruct(
    spark: &Spark,
    images: &Tensor,
    settings: &Reconstruction,
) -> Result<Reconstructed> {
    let size = images.size();
    let grid = spark.patch_grid((size[2], size[3]))?;
    let mask = settings.masking.mask(size[0], grid, images.device())?;
    let mode = Mode::eval().with_compute(settings.compute);
    let pass = tch::no_grad(|| spark.forward(images, &mask, &mode, Execution::Packed))?;
    let restored = denormalise(images, &pass.prediction, &mask);
    let loss = pass.loss.double_value(&[]);
    let caption = format!("{}, {}, loss {loss:.3}", settings.title, settings.masking);
    let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let (mean, std) = (wide(settings.normalize.mean()), wide(settings.normalize.std()));
    let sheet =
        Sheet { caption: &caption, mean: &mean, std: &std }.render(images, &restored, &mask)?;
    Ok(Reconstructed { images: restored, mask, loss, sheet })
}
