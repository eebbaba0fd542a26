//! What the commands that look at images share: which images and weights, how images are
//! prepared, and which patches are masked.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use backbone::Size;
use backbone::models::Model;
use clap::Args;
use data::rng::Rng;
use data::{Evaluate, Image, Interpolation, Transform, decode_deep};
use engine::device::DeviceFlags;
use engine::outputs::Inputs;
use tch::{Device, Tensor};

use crate::config::{InputSize, TrainConfig};
use crate::mask::{Masking, VisiblePatches};
use crate::saved::LoadedWeights;
use crate::train::normalize;

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
    ///
    /// # Errors
    /// Files that cannot be read, a network that is not known, statistics that do not fit.
    pub fn open(self) -> Result<Prepared> {
        let device = self.compute.open()?;
        let saved = LoadedWeights::open(&self.weights)?;
        let model = saved.model(self.model.as_deref())?;
        let own = saved.config.clone().unwrap_or_else(|| foreign_config(saved.in_chans_of(&model)));
        let config = TrainConfig { mean: self.mean.or(own.mean), std: self.std.or(own.std), ..own }
            .resolve_images()?;
        let size = self.input_size.unwrap_or(config.input_size);
        let images = self.images.iter().map(|path| sample(path, &config, size));
        let images = images.collect::<Result<Vec<Tensor>>>()?;
        let images = Tensor::stack(&images, 0).to_device(device);
        Ok(Prepared { saved, model, config, device, images })
    }
}

/// Refuses outputs that would be written over what is read.
///
/// # Errors
/// One would.
pub fn check_outputs(
    images: &ImageFlags,
    mask: &MaskFlags,
    outputs: [Option<&PathBuf>; 2],
) -> Result<()> {
    let inputs = Inputs::new(images.images.iter().chain([&images.weights]).chain(&mask.mask));
    for output in outputs.into_iter().flatten() {
        inputs.spare(output)?;
    }
    Ok(())
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
    ///
    /// # Errors
    /// A file that is no mask for such images.
    pub fn masking(&self, ratio: f64, grid: Size) -> Result<Masking> {
        Ok(match &self.mask {
            Some(path) => Masking::Given(VisiblePatches::read(path, grid)?),
            None => Masking::Random { ratio: self.mask_ratio.unwrap_or(ratio), seed: self.seed },
        })
    }
}

/// Foreign weights come without settings: those of the paper.
fn foreign_config(in_chans: i64) -> TrainConfig {
    TrainConfig { in_chans, ..TrainConfig::default() }
}

/// An image resized, cropped at its centre and normalised, `[C, H, W]`.
fn sample(path: &Path, config: &TrainConfig, size: InputSize) -> Result<Tensor> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let channels = config.in_chans as usize;
    let image: Image = decode_deep(path, &bytes, channels)?;
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
