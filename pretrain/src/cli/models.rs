//! `pretrain models`.

use anyhow::Result;
use backbone::models::MODELS;
use clap::Args;

const EXAMPLES: &str = "\
Examples:
  pretrain models

  # Every ConvNeXt's name
  pretrain models --names | grep convnext";

/// Flags of `pretrain models`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ModelsArgs {
    /// Print names alone.
    #[arg(long)]
    names: bool,
}

/// Lists the registered models.
pub fn run(args: ModelsArgs) -> Result<()> {
    if !args.names {
        println!("Parameters with a 1000-class head; multiply-adds at 224 px, as published.\n");
    }
    for model in MODELS {
        if args.names {
            println!("{}", model.name);
        } else {
            println!("{model}");
        }
    }
    Ok(())
}
