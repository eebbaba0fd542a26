//! `pretrain inspect`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use backbone::models::{self, Model};
use backbone::weights;
use clap::Args;
use engine::remote;

use crate::saved::LoadedWeights;

const EXAMPLES: &str = "\
Examples:
  pretrain inspect resnet50_1kpretrained_timm_style.pth

  # What lies on the hub, and whether it fits
  pretrain inspect hf:timm/resnet50.a1_in1k

  # The run that is kept in a bucket, or any file there
  pretrain inspect s3://bucket/runs/first

  # A network that torch.export has written: its stages, and whether it can be pretrained
  pretrain inspect my.pt2";

/// Flags of `pretrain inspect`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct InspectArgs {
    /// A weight file of any format, a timm folder, a checkpoint, a run folder, or a network in a
    /// .pt2 file; any of these on the Hugging Face hub as hf:owner/name[@revision][/file], or in
    /// object storage as s3://bucket/key.
    file: PathBuf,
    /// Modules whose outputs are the stages of a .pt2 file, finest first; found if not given
    #[arg(long, value_name = "A,B,C,D")]
    stages: Option<String>,
}

/// Prints what the file is.
pub fn run(mut args: InspectArgs) -> Result<()> {
    args.file = remote::local(&args.file)?.into_owned();
    if let Some(name) = args.file.to_str().filter(|name| models::is_file(name)) {
        let stages = args.stages.map(|stages| models::with_stages(name, &stages)).transpose()?;
        return describe(&models::find(stages.as_deref().unwrap_or(name))?);
    }
    ensure!(
        args.stages.is_none(),
        "--stages is given, but {} is no .pt2 file",
        args.file.display()
    );
    let saved = LoadedWeights::open(&args.file)?;
    println!("{}", saved.file.path.display());
    let candidates = match &saved.carried {
        Some(model) => vec![weights::candidate_of(model)?],
        None => weights::candidates(saved.in_chans())?,
    };
    println!("{}", weights::inspect(&saved.file, &candidates));
    saved.carried.as_ref().map_or(Ok(()), describe)?;
    if let Some(config) = &saved.config {
        println!("\na run of pretrain train with:\n{}", toml::to_string_pretty(config)?);
    }
    Ok(())
}

/// Prints what a network from a `.pt2` file is.
fn describe(model: &Model) -> Result<()> {
    let graph = model.graph().context("a registered model has no graph")?;
    println!("{}", graph.describe().trim_end());
    if graph.refusal().is_none() && graph.has_weights() {
        graph.verify()?;
        println!("  checked: with all patches visible it equals the whole grid");
    }
    Ok(())
}
