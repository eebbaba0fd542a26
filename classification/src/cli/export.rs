//! `classify export`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use engine::export::ExportFormat;
use engine::run_dir::display_path;

use super::model_flags::ModelFlags;

const EXAMPLES: &str = "\
Examples:
  # A folder for timm.create_model('local-dir:flowers', pretrained=True): head and class names, too
  classify export --weights runs/first --output flowers

  # torchvision's names
  classify export --weights runs/first --format torchvision --output flowers.pth";

/// Flags of `classify export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Whose names and file form to write.
    #[arg(long, value_enum, default_value = "timm")]
    format: ExportFormat,
    /// File (for timm: folder) to write; .pth, .pkl or .safetensors decide the form.
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
}

/// Exports.
///
/// # Errors
/// Weights that cannot be read, a framework without such a model, a file that
/// cannot be written.
pub fn run(args: ExportArgs) -> Result<()> {
    let loaded = args.model.load()?;
    if let Some(folder) = args.output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let classifier = &loaded.classifier;
    let (model, tensors) = (classifier.model(), classifier.variables());
    let config = loaded.timm_config();
    args.format.write(&args.output, model, &tensors, Some(config))?;
    println!(
        "{} ({} tensors of {}, {} classes) → {}",
        display_path(&args.model.weights),
        tensors.len(),
        model.name,
        classifier.num_classes(),
        display_path(&args.output)
    );
    Ok(())
}
