//! `detect forward`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use backbone::weights::{self, StateDict};
use clap::Args;
use engine::outputs::Inputs;
use engine::precision::Dtype;
use engine::run_dir::display_path;
use tch::{Device, Tensor};
use toml::Table;
use words::counted;

use super::model_flags::ModelFlags;

const EXAMPLES: &str = "\
The batch holds `image` [3, H, W] or [N, 3, H, W], RGB in 0–255, which is fed as it is: normalised
and padded, but not resized. Written are inference.fpn.p2…p6, inference.proposals.{boxes,logits} and
inference.detections.{boxes,scores,classes,masks28}; of several images each under `0.`, `1.`, ….

Example:
  detect forward --preset mask_rcnn_resnet50_1x --weights model_final.pth \\
      --batch batch.safetensors --out out.safetensors --dtype float64";

/// Flags of `detect forward`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ForwardArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Tensors to run on.
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Where to write the results, .safetensors.
    #[arg(long, short, alias = "out", value_name = "FILE")]
    output: PathBuf,
    /// Type of weights and arithmetic.
    #[arg(long, alias = "dtype", value_enum, default_value = "float32")]
    precision: Dtype,
}

/// Runs the pass and writes its results.
pub fn run(args: ForwardArgs) -> Result<()> {
    Inputs::new([&args.batch, &args.model.weights]).spare(&args.output)?;
    let images = images(&args.batch)?;
    let loaded =
        args.model.options.load(&args.model.weights, args.precision.kind(), Table::new())?;
    let detector = &loaded.detector;
    let dump = detector.model.dump(&images, &detector.eval_mode(None))?;

    let mut results = StateDict::new();
    let single = images.len() == 1;
    for index in 0..images.len() {
        let prefix = if single { String::new() } else { format!("{index}.") };
        let mut insert = |name: &str, tensor: &Tensor| {
            let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
            results.insert(format!("{prefix}inference.{name}"), tensor);
        };
        for (level, map) in (2..).zip(&dump.maps) {
            insert(&format!("fpn.p{level}"), &map.narrow(0, index as i64, 1));
        }
        let proposals = &dump.proposals[index];
        insert("proposals.boxes", proposals.boxes.tensor());
        insert("proposals.logits", &proposals.logits);
        let found = &dump.detections[index];
        insert("detections.boxes", found.boxes.tensor());
        insert("detections.scores", &found.scores);
        insert("detections.classes", &found.classes);
        if let Some(masks) = &found.masks {
            insert("detections.masks28", masks);
        }
        println!(
            "image {index}: {}, {}",
            counted(proposals.boxes.len(), "proposal"),
            counted(found.boxes.len(), "detection")
        );
    }
    weights::write_safetensors(&args.output, &results, &BTreeMap::new())?;
    println!("wrote {} to {}", counted(results.len(), "tensor"), display_path(&args.output));
    Ok(())
}

/// The images of the batch, each `[3, H, W]`.
fn images(path: &PathBuf) -> Result<Vec<Tensor>> {
    let batch = weights::read(path)?;
    let image = batch.tensors.get("image").with_context(|| {
        let names: Vec<&String> = batch.tensors.keys().take(8).collect();
        format!("{} has no tensor `image`; it has {names:?}", path.display())
    })?;
    let size = image.size();
    ensure!(
        matches!(size[..], [3, _, _] | [_, 3, _, _]),
        "image is {size:?}, but it must be [3, H, W] or [N, 3, H, W]"
    );
    Ok(if size.len() == 3 { vec![image.shallow_clone()] } else { image.unbind(0) })
}
