//! `classify presets`.

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::train::Preset;

const EXAMPLES: &str = "\
Examples:
  classify presets

  # The settings of one, as a file to change
  classify presets small-data > mine.toml";

/// Flags of `classify presets`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PresetsArgs {
    /// Print this one's settings (those that differ from the defaults) as TOML.
    #[arg(value_enum)]
    preset: Option<Preset>,
}

/// Lists the presets, or prints one.
///
/// # Errors
/// None; the signature is that of every command.
pub fn run(args: PresetsArgs) -> Result<()> {
    match args.preset {
        Some(preset) => print!("{}", preset.toml()),
        None => {
            for value in Preset::value_variants().iter().filter_map(Preset::to_possible_value) {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                println!("{:<28} {help}", value.get_name());
            }
        }
    }
    Ok(())
}
