//! `pretrain inspect`.

use std::path::PathBuf;

use anyhow::Result;
use backbone::weights;
use clap::Args;

use crate::saved::LoadedWeights;

/// Flags of `pretrain inspect`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  pretrain inspect resnet50_1kpretrained_timm_style.pth")]
pub struct InspectArgs {
    /// A weight file of any format, a timm folder, a checkpoint or a run folder.
    file: PathBuf,
}

/// Prints what the file is.
///
/// # Errors
/// It cannot be read or is no weight file.
pub fn run(args: InspectArgs) -> Result<()> {
    let saved = LoadedWeights::open(&args.file)?;
    println!("{}", saved.file.path.display());
    println!("{}", weights::inspect(&saved.file, &weights::candidates(saved.in_chans())?));
    if let Some(config) = &saved.config {
        println!("\na run of pretrain train with:\n{}", toml::to_string_pretty(config)?);
    }
    Ok(())
}
