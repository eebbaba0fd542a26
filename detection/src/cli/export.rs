//! `detect export`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use backbone::{hub, models};
use clap::{Args, ValueEnum};
use engine::export::{Card, CardTask, HubFlags, without_folders, write_hub_folder};
use engine::remote::{self, Output};
use engine::run_dir::{display_path, run_of};
use tch::Kind;
use toml::Table;

use super::model_flags::ModelFlags;
use crate::evaluation::Report;
use crate::modeling::weights::write_detector;
use crate::published::Published;
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
Examples:
  # detectron2's MODEL.WEIGHTS, or what the preset's framework calls its weights
  detect export --weights runs/det --output det.pkl

  # A folder with a model card, for hf upload me/cells det-hub; detect predict --weights hf:me/cells
  # reads it
  detect export --weights runs/det --format hub --license mit --repo me/cells --output det-hub";

/// Flags of `detect export`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// What to write.
    #[arg(long, value_enum, default_value = "file")]
    format: Format,
    #[command(flatten)]
    hub: HubFlags,
    /// File to write, .pth, .pkl or .safetensors, here or in object storage (s3://bucket/det.pkl);
    /// for hub: folder.
    #[arg(long, short, value_name = "PATH")]
    output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Weights by detectron2's or torchvision's names, as the detector's are.
    File,
    /// Folder to upload to the Hugging Face hub, with settings, classes and a model card.
    Hub,
}

/// Exports.
pub fn run(args: ExportArgs) -> Result<()> {
    args.hub.check(args.format == Format::Hub)?;
    let weights = &args.model.weights;
    let loaded = args.model.options.load(weights, Kind::Float, Table::new())?;
    let detector = &loaded.detector;
    let backbone = &detector.model.config().backbone;
    ensure!(!detector.plugin, "the backbone is a plugin's: its names are nobody else's");
    let output = Output::new(&args.output)?;
    if args.format == Format::Hub {
        ensure!(
            !models::is_file(backbone) || hub::is_name(backbone),
            "the backbone was read from {backbone}, which would not be in the folder: export a file"
        );
        let card = card(&loaded, weights)?;
        let settings = without_folders(&loaded.settings);
        let published = Published::new(detector, &settings, loaded.classes.clone())?;
        let fill = |folder: &Path| published.write(folder, detector);
        write_hub_folder(&output, &args.hub, &card, fill)?;
    } else {
        write_detector(output.path(), &detector.store, detector.model.config())?;
    }
    println!(
        "{} ({}) → {}",
        display_path(weights),
        detector.model.config().name(),
        output.finish()?
    );
    Ok(())
}

/// What the card of a detector says.
fn card(loaded: &LoadedModel, weights: &Path) -> Result<Card> {
    let config = loaded.detector.model.config();
    let names = loaded.names();
    let mut facts = vec![("classes".into(), format!("{}: {}", names.len(), names.join(", ")))];
    let run = run_of(&remote::local(weights)?);
    let report = run.as_ref().map(|run| run.join("report.json")).filter(|path| path.is_file());
    if let Some(path) = report {
        let text = std::fs::read(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let report: Report = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no report", path.display()))?;
        for (what, section) in [("boxes", &report.bbox), ("masks", &report.segm)] {
            facts.extend(section.as_ref().map(|section| {
                let ap = 100.0 * section.figures.ap;
                (format!("AP of {what} in its run's validation"), format!("{ap:.1}"))
            }));
        }
    }
    let theirs = crate::modeling::weights::naming(config).to_string();
    Ok(Card {
        model: config.name(),
        family: config.family(),
        task: CardTask::Detection { naming: theirs, masks: loaded.has_masks() },
        images: None,
        facts,
        settings: Some(loaded.settings.clone()),
        run,
    })
}
