//! `pretrain reconstruct`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use backbone::weights::{self, StateDict};
use clap::Args;
use data::rng::Rng;
use data::write_file;
use data::{Evaluate, Image, Interpolation, Transform, decode_deep};
use engine::device::DeviceFlags;
use engine::outputs::Inputs;
use engine::run_dir::display_path;
use tch::{Device, Kind, Tensor};

use crate::config::{InputSize, TrainConfig};
use crate::picture::png;
use crate::reconstruct::{Reconstruction, reconstruct};
use crate::saved::LoadedWeights;
use crate::train::normalize;

const EXAMPLES: &str = "\
Examples:
  pretrain reconstruct --weights runs/first --output sheet.png photos/*.jpg
  pretrain reconstruct --weights resnet50_withdecoder_1kpretrained_spark_style.pth \\
      --mask-ratio 0.75 --seed 7 --output sheet.png cat.jpg dog.jpg";

/// Flags of `pretrain reconstruct`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ReconstructArgs {
    /// Images to mask and reconstruct.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// A run folder, a checkpoint, or weights with decoder.
    #[arg(long, alias = "checkpoint", value_name = "PATH")]
    weights: PathBuf,
    /// PNG to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also write original, mask and reconstruction as tensors, .safetensors.
    #[arg(long, value_name = "FILE")]
    tensors: Option<PathBuf>,
    /// Share of patches that is masked; the run's, else the paper's, if not given
    #[arg(long, value_name = "RATIO")]
    mask_ratio: Option<f64>,
    /// Seed of the masks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Size to resize and crop to; the run's, else the paper's, if not given
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<InputSize>,
    /// Mean of every channel, for pixels in 0–1; the run's, else ImageNet's, if not given
    #[arg(long, value_name = "M,M,M", value_delimiter = ',')]
    mean: Option<Vec<f32>>,
    /// Standard deviation of every channel; likewise if not given
    #[arg(long, value_name = "S,S,S", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    compute: DeviceFlags,
}

/// Reconstructs, draws and writes.
///
/// # Errors
/// Files that cannot be read, weights without decoder, sizes that do not fit.
pub fn run(args: ReconstructArgs) -> Result<()> {
    let inputs = Inputs::new(args.images.iter().chain([&args.weights]));
    [Some(&args.output), args.tensors.as_ref()]
        .into_iter()
        .flatten()
        .try_for_each(|output| inputs.spare(output))?;
    let device = args.compute.open()?;
    let saved = LoadedWeights::open(&args.weights)?;
    let model = saved.model(args.model.as_deref())?;
    let own = saved.config.clone().unwrap_or_else(|| foreign_config(saved.in_chans_of(&model)));
    let config = TrainConfig { mean: args.mean.or(own.mean), std: args.std.or(own.std), ..own }
        .resolve_images()?;
    let size = args.input_size.unwrap_or(config.input_size);
    let images = args.images.iter().map(|path| sample(path, &config, size));
    let images = images.collect::<Result<Vec<Tensor>>>()?;
    let images = Tensor::stack(&images, 0).to_device(device);

    let (spark, _store) = saved.spark(&model, device, Kind::Float)?;
    let settings = Reconstruction {
        mask_ratio: args.mask_ratio.unwrap_or(config.mask_ratio),
        seed: args.seed,
        compute: None,
        normalize: normalize(&config)?,
        title: model.name.to_string(),
    };
    let drawn = reconstruct(&spark, &images, &settings)?;
    let bytes = png(&drawn.sheet)?;
    write_file(&args.output, &bytes)?;
    println!("loss {:.4} on masked patches; sheet: {}", drawn.loss, display_path(&args.output));
    if let Some(path) = &args.tensors {
        let patches = drawn.mask.active((1, 1));
        let tensors: StateDict =
            [("original", images), ("active", patches), ("reconstruction", drawn.images)]
                .into_iter()
                .map(|(name, tensor)| (name.to_owned(), tensor.to_device(Device::Cpu)))
                .collect();
        weights::write_safetensors(path, &tensors, &BTreeMap::new())?;
        println!("tensors: {}", display_path(path));
    }
    Ok(())
}

/// Foreign weights come without settings: those of the paper.
fn foreign_config(in_chans: i64) -> TrainConfig {
    TrainConfig { in_chans, ..TrainConfig::default() }
}

/// An image resized, cropped at its centre and normalised, `[C, H, W]`.
fn sample(path: &PathBuf, config: &TrainConfig, size: InputSize) -> Result<Tensor> {
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
