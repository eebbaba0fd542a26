//! `pretrain reconstruct`.

use anyhow::Result;
use clap::Args;
use data::write_file;
use engine::run_dir::display_path;
use tch::{Device, Kind};

use super::image_flags::{ImageFlags, MaskFlags};
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
    mut_arg("tensors", |flag| {
        flag.help("Also write original, mask and reconstruction as tensors, .safetensors")
    }),
    mut_arg("weights", |flag| flag.help("A run folder, a checkpoint, or weights with decoder"))
)]
pub struct ReconstructArgs {
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    mask: MaskFlags,
}

/// Reconstructs, draws and writes.
pub fn run(args: ReconstructArgs) -> Result<()> {
    args.images.check_outputs(&args.mask)?;
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
    let output = &args.images.output;
    write_file(output, &png(&drawn.sheet)?)?;
    println!("loss {:.4} on masked patches; sheet: {}", drawn.loss, display_path(output));
    args.images.write_tensors(|| {
        let patches = drawn.mask.active((1, 1));
        [("original", shown.images), ("active", patches), ("reconstruction", drawn.images)]
            .into_iter()
            .map(|(name, tensor)| (name.to_owned(), tensor.to_device(Device::Cpu)))
            .collect()
    })
}
