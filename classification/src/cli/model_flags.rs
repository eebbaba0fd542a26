//! Flags of every command that loads a classifier.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use data::Interpolation;
use engine::device::DeviceFlags;
use engine::precision::Precision;
use tch::Kind;

use crate::data::ImageSettings;
use crate::inference::Logits;
use crate::saved::{LoadSpec, LoadedModel};
use crate::train::CropMode;

/// Which classifier, and how it is run.
#[derive(Debug, Args)]
pub struct ModelFlags {
    /// A run folder (its best checkpoint), a checkpoint, a timm folder, a weight file of any format
    /// that has a head, or a network's .pt2 file with its classifier in it; any of these on the
    /// Hugging Face hub as hf:owner/name[@revision][/file], or in object storage as s3://bucket/key.
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    pub model: Option<String>,
    /// File with the classes' names, one a line; runs and timm folders tell.
    #[arg(long, value_name = "FILE")]
    pub classes: Option<PathBuf>,
    #[command(flatten)]
    pub images: ImageFlags,
    /// Arithmetic of convolutions and linear layers; the run's if not given
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    #[command(flatten)]
    pub compute: DeviceFlags,
}

/// How images are prepared.
#[derive(Debug, Args)]
pub struct ImageFlags {
    /// Side of the images as they are fed, in pixels; the classifier's, else ImageNet's, if not given
    #[arg(long, value_name = "PIXELS")]
    pub input_size: Option<usize>,
    /// Share of the resized short side that is cropped from the centre; the classifier's, else
    /// ImageNet's, if not given
    #[arg(long, alias = "eval-crop", value_name = "SHARE")]
    pub crop_pct: Option<f64>,
    /// How images are brought to a square; the classifier's, else center, if not given
    #[arg(long, alias = "eval-squash", num_args = 0..=1, default_missing_value = "squash")]
    pub crop_mode: Option<CropMode>,
    /// How images are resized; the classifier's, else bicubic, if not given
    #[arg(long, alias = "eval-interpolation", value_enum, value_name = "FILTER")]
    pub interpolation: Option<Interpolation>,
}

impl ImageFlags {
    /// What is not given stays as `images` have it.
    pub fn over(&self, images: ImageSettings) -> ImageSettings {
        ImageSettings {
            size: self.input_size.unwrap_or(images.size),
            crop: self.crop_pct.unwrap_or(images.crop),
            crop_mode: self.crop_mode.unwrap_or(images.crop_mode),
            interpolation: self.interpolation.unwrap_or(images.interpolation),
            ..images
        }
    }
}

impl ModelFlags {
    /// Loads a classifier of ours, to export.
    pub fn load(&self) -> Result<LoadedModel> {
        Ok(self.over(self.spec()?.load()?))
    }

    /// Loads what gives logits.
    pub fn load_any(&self) -> Result<LoadedModel<Box<dyn Logits>>> {
        Ok(self.over(self.spec()?.load_any()?))
    }

    fn spec(&self) -> Result<LoadSpec<'_>> {
        Ok(LoadSpec {
            path: &self.weights,
            model: self.model.as_deref(),
            classes: self.classes.as_deref(),
            device: self.compute.open()?,
            kind: Kind::Float,
        })
    }

    /// `loaded`, used as these flags say.
    fn over<C>(&self, loaded: LoadedModel<C>) -> LoadedModel<C> {
        let images = self.images.over(loaded.images);
        let precision = self.precision.unwrap_or(loaded.precision);
        LoadedModel { images, precision, ..loaded }
    }
}
