//! `pretrain mask-pattern`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

/// Flags of `pretrain mask-pattern`.
#[derive(Debug, Args)]
pub struct MaskPatternArgs {
    /// PNG to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// x
///
/// # Errors
/// x
pub fn run(_args: MaskPatternArgs) -> Result<()> {
    todo!()
}
