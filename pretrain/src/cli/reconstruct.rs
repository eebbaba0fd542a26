//! `pretrain reconstruct`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use backbone::weights::{self, StateDict};
use clap::Args;
use data::write_file;
use engine::run_dir::display_path;
use tch::{Device, Kind};

use super::image_flags::{ImageFlags, MaskFlags, check_outputs};
use crate::picture::png;
use crate::reconstruct::{Reconstruction, reconstruct};
use crate::train::normalize;

const EXAMPLES: &str = "\
Examples:
  pretrain reconstruct --weights runs/first --output sheet.png photos/*.jpg
  pretrain reconstruct --weights resnet50_withdecoder_1kpretrained_spark_style.pth \\
      --mask-ratio 0.75 --seed 7 --output sheet.png cat.jpg dog.jpg
  pretrain reconstruct --weights runs/first --mask mask.json --output sheet.png cat.jpg";

/// Flags of `pretrain reconstruct`.
#[derive(Debug, Args)]
#[command(
    after_help = EXAMPLES,
    mut_arg("weights", |flag| flag.help("A run folder, a checkpoint, or weights with decoder"))
)]
pub struct ReconstructArgs {
    #[command(flatten)]
    images: ImageFlags,
    /// PNG to write
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also write original, mask and reconstruction as tensors, .safetensors
    #[arg(long, value_name = "FILE")]
    tensors: Option<PathBuf>,
    #[command(flatten)]
    mask: MaskFlags,
}

/// Reconstructs, draws and writes.
///
/// # Errors
/// Files that cannot be read, weights without decoder, sizes that do not fit.
pub fn run(args: ReconstructArgs) -> Result<()> {
    check_outputs(&args.images, &args.mask, [Some(&args.output), args.tensors.as_ref()])?;
    let shown = args.images.open()?;
    let (spark, _store) = shown.saved.spark(&shown.model, shown.device, Kind::Float)?;
    let size = shown.images.size();
    let grid = spark.patch_grid((size[2], size[3]))?;
    let settings = Reconstruction {
        masking: args.mask.masking(shown.config.mask_ratio, grid)?,
        compute: None,
        normalize: normalize(&shown.config)?,
        title: shown.model.name.to_string(),
    };
    let drawn = reconstruct(&spark, &shown.images, &settings)?;
    let bytes = png(&drawn.sheet)?;
    write_file(&args.output, &bytes)?;
    println!("loss {:.4} on masked patches; sheet: {}", drawn.loss, display_path(&args.output));
    if let Some(path) = &args.tensors {
        let patches = drawn.mask.active((1, 1));
        let tensors: StateDict =
            [("original", shown.images), ("active", patches), ("reconstruction", drawn.images)]
                .into_iter()
                .map(|(name, tensor)| (name.to_owned(), tensor.to_device(Device::Cpu)))
                .collect();
        weights::write_safetensors(path, &tensors, &BTreeMap::new())?;
        println!("tensors: {}", display_path(path));
    }
    Ok(())
}
