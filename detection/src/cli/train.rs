//! `detect train`.

use anyhow::Result;
use clap::Args;
use engine::settings::put;
use engine::training::TrainFlags;

use crate::data::TrainTransform;
use crate::train::{self, Preset, TrainConfig};

const EXAMPLES: &str = "\
Examples:
  # One's own data in COCO's format, a backbone from pretraining; settings are chosen by the data
  # and the machine
  detect train --data data --output runs/first --backbone-weights runs/pretrained

  # Annotation files and image folders of any name
  detect train --train-annotations train.json --train-images photos/train \\
      --val-annotations val.json --val-images photos/val --output runs/first

  # Continue after an interruption
  detect train --output runs/first --resume

  # SparK's recipes on COCO
  detect train --data coco --output runs/r50 --preset mask_rcnn_resnet50_1x \\
      --backbone-weights resnet50_spark.pth
  detect train --data coco --output runs/cnx --preset mask_rcnn_convnext_base_3x \\
      --backbone-weights convnext_base_spark.pth --precision bfloat16 --accum-steps 4

  # See what would be chosen or what flags mean, and keep it in a file
  detect train --data data --output runs/a --preset demo --dump-config > a.toml
  detect train --config a.toml";

/// Flags of `detect train`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_override_self = true)]
pub struct TrainArgs {
    #[command(flatten)]
    flags: TrainFlags<TrainConfig, Preset>,
    /// Short sides that training images are resized to, one drawn for each, then a flip;
    /// in place of the preset's augmentation.
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', help_heading = "Data")]
    short_sides: Option<Vec<usize>>,
    /// Longest long side then
    #[arg(
        long,
        value_name = "PIXELS",
        requires = "short_sides",
        default_value_t = 1333,
        help_heading = "Data"
    )]
    max_side: usize,
}

/// Resolves the flags and trains.
pub fn run(mut args: TrainArgs) -> Result<()> {
    if let Some(sides) = &args.short_sides {
        let transform = TrainTransform::multi_scale(sides.clone(), args.max_side)?;
        put(&mut args.flags.settings.table, "augmentation", &transform);
    }
    args.flags.run(train::prepare)
}
