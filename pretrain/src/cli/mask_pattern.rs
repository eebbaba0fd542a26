//! `pretrain mask-pattern`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use backbone::models::BuildOptions;
use clap::Args;
use data::rng::Rng;
use data::write_file;
use engine::remote::{check_is_here, find_model};
use engine::run_dir::display_path;
use tch::Device;

use crate::config::{InputSize, check_pretrainable};
use crate::mask;
use crate::picture::{png, reach_figure};
use crate::sparsity;

const EXAMPLES: &str = "\
Dense convolution lets the visible pixels leak into masked regions, a little further with every
layer, until the mask is gone; sparse convolution keeps it. Blue positions depend on visible
pixels.

Example:
  pretrain mask-pattern --model resnet50 --output pattern.png";

/// Flags of `pretrain mask-pattern`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MaskPatternArgs {
    /// Model whose stages are shown, or a .pt2 file.
    #[arg(long, default_value = "resnet50")]
    model: String,
    /// PNG to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Share of patches that is masked.
    #[arg(long, value_name = "RATIO", default_value_t = 0.6)]
    mask_ratio: f64,
    /// Seed of the mask.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Size of the image.
    #[arg(long, value_name = "PIXELS", default_value = "224")]
    input_size: InputSize,
}

/// Draws and writes the figure, and prints the shares.
pub fn run(args: MaskPatternArgs) -> Result<()> {
    check_is_here(&args.output)?;
    let model = find_model(&args.model)?;
    check_pretrainable(&model)?;
    let stride = model.total_stride();
    let InputSize { height, width } = args.input_size;
    ensure!(
        height % stride == 0 && width % stride == 0,
        "input-size is {}, but its sides must be multiples of {stride}",
        args.input_size
    );
    let grid = (height / stride, width / stride);
    let total = (grid.0 * grid.1) as usize;
    let keep = mask::keep_count(total, args.mask_ratio);
    ensure!(
        args.mask_ratio > 0.0 && keep > 0 && keep < total,
        "mask-ratio is {}, but of {total} patches it would leave {keep} visible; at least one must \
         be visible and one masked",
        args.mask_ratio
    );
    let mask = mask::draw([Rng::new(args.seed, &[])], grid, keep, Device::Cpu)?;
    tch::manual_seed(args.seed as i64);
    let reaches = sparsity::of_architecture(&model.name, (height, width), &mask, |path| {
        let in_chans = model.usual_in_chans();
        model.build(path, &BuildOptions { in_chans, ..BuildOptions::default() })
    })?;
    let title =
        format!("Positions that depend on visible pixels, {:.0} % masked", args.mask_ratio * 100.0);
    let bytes = png(&reach_figure(&title, &reaches))?;
    write_file(&args.output, &bytes)?;
    for reach in &reaches {
        println!("{}", reach.title);
        for layer in &reach.layers {
            let percent = |map: &sparsity::PositionMap| 100.0 * map.share();
            println!(
                "  {:<15} dense {:>5.1} %   sparse {:>5.1} %",
                layer.name,
                percent(&layer.dense),
                percent(&layer.sparse)
            );
        }
    }
    println!("figure: {}", display_path(&args.output));
    Ok(())
}
