//! What the commands that look at images share: which images and weights, how images are
//! prepared, and which patches are masked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use backbone::Size;
use backbone::models::Model;
use backbone::weights::{self, StateDict};
use clap::Args;
use engine::device::DeviceFlags;
use engine::outputs::Inputs;
use engine::run_dir::display_path;
use tch::{Device, Tensor};

use crate::config::{InputSize, TrainConfig};
use crate::mask::{Masking, VisiblePatches};
use crate::prepare::prepare;
use crate::saved::LoadedWeights;

/// Images, weights, and what the images become.
#[derive(Debug, Args)]
pub struct ImageFlags {
    /// Images to look at
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A run folder, a checkpoint, or a weight file of any format
    #[arg(long, alias = "checkpoint", value_name = "PATH")]
    pub weights: PathBuf,
    /// Size to resize and crop to; the run's, else the paper's, if not given
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<InputSize>,
    /// Mean of every channel, for pixels in 0–1; the run's, else ImageNet's, if not given
    #[arg(long, value_name = "M,M,M", value_delimiter = ',')]
    mean: Option<Vec<f32>>,
    /// Standard deviation of every channel; likewise if not given
    #[arg(long, value_name = "S,S,S", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// The model, or its .pt2 file, if the weights do not tell
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    compute: DeviceFlags,
    /// PNG to write
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// Also write what is drawn as tensors, .safetensors
    #[arg(long, value_name = "FILE")]
    tensors: Option<PathBuf>,
}

/// Weights, and images prepared for them.
#[derive(Debug)]
pub struct Prepared {
    /// The weights.
    pub saved: LoadedWeights,
    /// Their network.
    pub model: Model,
    /// Settings of the run, or those of the paper, as far as they are about images.
    pub config: TrainConfig,
    /// Where to compute.
    pub device: Device,
    /// `[N, C, H, W]`, normalised, on `device`.
    pub images: Tensor,
}

impl ImageFlags {
    /// Reads the weights, then the images.
    pub fn open(&self) -> Result<Prepared> {
        let device = self.compute.open()?;
        let saved = LoadedWeights::open(&self.weights)?;
        let model = saved.model(self.model.as_deref())?;
        let own = saved.image_config(&model);
        let [mean, std] = [&self.mean, &self.std].map(Clone::clone);
        let config = TrainConfig { mean: mean.or(own.mean), std: std.or(own.std), ..own };
        let config = config.resolve_images()?;
        let size = self.input_size.unwrap_or(config.input_size);
        let images = self.images.iter().map(|path| sample(path, &config, size));
        let images = images.collect::<Result<Vec<Tensor>>>()?;
        let images = Tensor::stack(&images, 0).to_device(device);
        Ok(Prepared { saved, model, config, device, images })
    }

    /// Refuses outputs that would be written over what is read.
    pub fn check_outputs(&self, mask: &MaskFlags) -> Result<()> {
        let inputs = Inputs::new(self.images.iter().chain([&self.weights]).chain(&mask.mask));
        for output in [&self.output].into_iter().chain(&self.tensors) {
            inputs.spare(output)?;
        }
        Ok(())
    }

    /// Writes the tensors and says so, if they are asked for.
    pub fn write_tensors(&self, tensors: impl FnOnce() -> StateDict) -> Result<()> {
        let Some(path) = &self.tensors else { return Ok(()) };
        weights::write_safetensors(path, &tensors(), &BTreeMap::new())?;
        println!("tensors: {}", display_path(path));
        Ok(())
    }
}

/// Which patches are masked.
#[derive(Debug, Args)]
pub struct MaskFlags {
    /// Visible patches chosen by hand, the same of all images: JSON `{"patches": [rows, columns],
    /// "visible": [[0, 1, …], …]}` (1 visible, 0 masked), or a picture, laid over the grid of
    /// patches, whose dark parts are masked
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mask_ratio", "seed"])]
    pub mask: Option<PathBuf>,
    /// Share of patches that is masked; the run's, else the paper's, if not given
    #[arg(long, value_name = "RATIO")]
    mask_ratio: Option<f64>,
    /// Seed of the masks
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl MaskFlags {
    /// The masks of images of `grid` patches (rows, columns); `ratio` if none is given.
    pub fn masking(&self, ratio: f64, grid: Size) -> Result<Masking> {
        Ok(match &self.mask {
            Some(path) => Masking::Given(VisiblePatches::read(path, grid)?),
            None => Masking::Random { ratio: self.mask_ratio.unwrap_or(ratio), seed: self.seed },
        })
    }
}

/// The image in the file `path`, as [`prepare`] makes it.
fn sample(path: &Path, config: &TrainConfig, size: InputSize) -> Result<Tensor> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    prepare(path, &bytes, config, size)
}
