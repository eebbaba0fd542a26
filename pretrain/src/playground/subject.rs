//! One checkpoint that is looked at.

use std::path::Path;
use std::rc::Rc;

use anyhow::Result;
use backbone::{Mode, PatchMask, Size};
use tch::{Device, Kind, Tensor, nn};

use crate::config::{InputSize, TrainConfig};
use crate::picture::{png, to_rgb};
use crate::saved::LoadedWeights;
use crate::spark::{Execution, Spark, patch_errors, restored};
use crate::train::normalize;

/// A SparK model out of a file.
#[derive(Debug)]
pub struct Subject {
    /// What the page calls it.
    pub name: String,
    /// Its network's name.
    pub model: String,
    /// How its images are prepared, and how they are masked.
    pub config: TrainConfig,
    /// The model, in evaluation.
    pub spark: Spark,
    /// Where it computes.
    pub device: Device,
    _store: nn::VarStore,
}

/// What a model makes of one masked image.
#[derive(Debug)]
pub struct Prediction {
    /// PNG: each patch as the decoder predicts it, with the true mean and contrast of the patch;
    /// visible patches too, which the loss does not ask for.
    pub png: Vec<u8>,
    /// Mean squared error of each patch's normalised pixels, row by row.
    pub errors: Vec<f64>,
}

impl Subject {
    /// The model in a run folder, a checkpoint or a file of weights with decoder.
    ///
    /// # Errors
    /// Files that cannot be read, weights without decoder.
    pub fn load(path: &Path, model: Option<&str>, device: Device) -> Result<Self> {
        let saved = LoadedWeights::open(path)?;
        let model = saved.model(model)?;
        let config = saved.image_config(&model).resolve_images()?;
        let (spark, store) = saved.spark(&model, device, Kind::Float)?;
        let name = path.display().to_string();
        Ok(Self { name, model: model.name.to_string(), config, spark, device, _store: store })
    }

    /// Patches (rows, columns) of an image of this size.
    ///
    /// # Errors
    /// Sides that are not multiples of the total stride.
    pub fn patch_grid(&self, size: InputSize) -> Result<Size> {
        Ok(self.spark.patch_grid((size.height, size.width))?)
    }

    /// A PNG of `image` `[1, C, H, W]`, and what it does not show.
    ///
    /// # Errors
    /// Another number of channels than the statistics have.
    pub fn picture(&self, image: &Tensor) -> Result<(Vec<u8>, Option<String>)> {
        let normalize = normalize(&self.config)?;
        let wide = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
        let shown = to_rgb(image, &wide(normalize.mean()), &wide(normalize.std()))?;
        Ok((png(&shown.images[0])?, shown.remark))
    }

    /// Predicts all patches of `image` `[1, C, H, W]` from the visible ones.
    ///
    /// # Errors
    /// The image does not fit the network.
    pub fn predict(&self, image: &Tensor, mask: &Rc<PatchMask>) -> Result<Prediction> {
        let _no_grad = tch::no_grad_guard();
        let pass = self.spark.forward(image, mask, &Mode::eval(), Execution::Packed)?;
        let grid = mask.patches();
        let errors = patch_errors(image, &pass.prediction, grid).to_kind(Kind::Double);
        let errors = Vec::<f64>::try_from(errors.to_device(Device::Cpu).view([-1]))?;
        let (png, _) = self.picture(&restored(image, &pass.prediction, grid))?;
        Ok(Prediction { png, errors })
    }
}
