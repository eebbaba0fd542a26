//! `pretrain forward`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use backbone::weights::{self, StateDict};
use backbone::{DropPathDraws, Mode, PatchMask};
use clap::{Args, ValueEnum};
use tch::{Kind, Tensor};
use words::counted;

use crate::saved::LoadedWeights;
use crate::spark::{Execution, denormalise};
use engine::device::parse_device;
use engine::outputs::Inputs;
use engine::precision::Dtype;
use engine::run_dir::display_path;

const EXAMPLES: &str = "\
The batch holds `input` [N, C, H, W] (normalised) and bool `active` [N, 1, H/32, W/32] (of a .pt2
file by its own total stride), true where visible. Written are feature0…, reconstruction and loss; in train mode also the norm of every
gradient and running statistic. Drop-path is off.

Example:
  pretrain forward --model resnet50 --weights withdecoder.pth --batch batch.safetensors \\
      --out out.safetensors --mode train --dtype float64";

/// Flags of `pretrain forward`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ForwardArgs {
    /// The model, or its .pt2 file; the run's, or the one that the weights fit, if not given
    #[arg(long)]
    model: Option<String>,
    /// Weights with decoder, in any format.
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Tensors to run on.
    #[arg(long, value_name = "FILE")]
    batch: PathBuf,
    /// Where to write the results, .safetensors.
    #[arg(long, short, alias = "out", value_name = "FILE")]
    output: PathBuf,
    /// Whether norms use running or batch statistics.
    #[arg(long, value_enum, default_value = "eval")]
    mode: PassMode,
    /// Type of weights and arithmetic.
    #[arg(long, alias = "dtype", value_enum, default_value = "float32")]
    precision: Dtype,
    /// Execute densely and mask after every layer, as the official code does.
    #[arg(long)]
    masked_dense: bool,
    /// auto, cpu, cuda or cuda:N.
    #[arg(long, default_value = "cpu")]
    device: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PassMode {
    Eval,
    Train,
}

/// Runs the pass and writes its results.
pub fn run(args: ForwardArgs) -> Result<()> {
    Inputs::new([&args.batch, &args.weights]).spare(&args.output)?;
    let device = parse_device(&args.device)?;
    let kind = args.precision.kind();
    let batch = weights::read(&args.batch)?;
    let tensor = |name: &str| {
        batch.tensors.get(name).with_context(|| {
            let names: Vec<&String> = batch.tensors.keys().take(8).collect();
            format!("{} has no tensor `{name}`; it has {names:?}", args.batch.display())
        })
    };
    let input = tensor("input")?;
    ensure!(
        input.is_floating_point(),
        "input is of type {:?}, but it must hold normalised floating-point images",
        input.kind()
    );
    let input = input.to_device(device).to_kind(kind);
    let mask = PatchMask::from_active(&tensor("active")?.to_device(device))?;

    let saved = LoadedWeights::open(&args.weights)?;
    let (spark, store) = saved.spark(&saved.model(args.model.as_deref())?, device, kind)?;
    let (size, channels) = (input.size(), spark.encoder().in_chans());
    ensure!(
        size.len() == 4 && size[1] == channels,
        "input is {size:?}, but the backbone takes [N, {channels}, H, W]"
    );
    spark.patch_grid((size[2], size[3]))?;

    let train = args.mode == PassMode::Train;
    let mode = if train { Mode::train() } else { Mode::eval() };
    let mode = mode.with_drop_path(DropPathDraws::Off);
    let execution = if args.masked_dense { Execution::MaskedDense } else { Execution::Packed };
    let pass = spark.forward(&input, &mask, &mode, execution)?;

    let mut results = StateDict::new();
    for (level, feature) in pass.features.iter().enumerate() {
        results.insert(format!("feature{level}"), feature.to_grid());
    }
    results.insert("reconstruction".into(), denormalise(&input, &pass.prediction, &mask));
    results.insert("loss".into(), pass.loss.reshape([1]));
    if train {
        pass.loss.backward();
        let variables: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        for (name, tensor) in variables {
            if tensor.requires_grad() {
                // Without a gradient: no part of what was computed.
                if tensor.grad().defined() {
                    results.insert(format!("grad_norm.{name}"), norm(&tensor.grad()));
                }
            } else if tensor.is_floating_point() {
                results.insert(format!("running_norm.{name}"), norm(&tensor));
            }
        }
    }
    let results = results
        .into_iter()
        .map(|(name, t)| (name, t.detach().to_device(tch::Device::Cpu)))
        .collect();
    weights::write_safetensors(&args.output, &results, &BTreeMap::new())?;
    println!(
        "loss {:.9}\nwrote {} to {}",
        pass.loss.double_value(&[]),
        counted(results.len(), "tensor"),
        display_path(&args.output)
    );
    Ok(())
}

fn norm(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Kind::Double).norm().reshape([1])
}
