//! `classify evaluate`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use backbone::Mode;
use clap::Args;
use data::write_file;
use data::{LabelledDataset, LoaderOptions};
use engine::distributed::ProcessGroup;
use engine::outputs::make_folder;
use engine::picture::png;
use engine::progress::Counter;
use engine::remote::check_is_here;
use engine::run_dir::display_path;
use engine::settings::{Given, LoadingSettings};
use words::counted;

use super::model_flags::ModelFlags;
use crate::data::{evaluation_loader, reading};
use crate::evaluation::{Report, confusion_csv, confusion_picture};
use crate::inference::{Logits, evaluate};
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
--output gets report.json, classes.csv, confusion.csv and confusion.png.

Examples:
  # A run, on its own validation data
  classify evaluate --weights runs/first --output evaluation

  # timm's weights on ImageNet
  classify evaluate --weights resnet50.a1_in1k --data imagenet/val

  # A state dict of torchvision's, as its recipe evaluates it
  classify evaluate --weights resnet50-11ad3fa6.pth --model resnet50 --data imagenet/val \\
      --crop-pct 0.9655 --interpolation bilinear

  # A network as torch.export has written it, its own classifier included
  classify evaluate --weights mobilenet.pt2 --data imagenet/val --interpolation bilinear";

/// Flags of `classify evaluate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EvaluateArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Folder with one folder of images a class, or with `train` and `val` in it: then `val`;
    /// the run's validation data if not given
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder for report, tables and picture.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Images computed at a time.
    #[arg(long, value_name = "N", default_value = "32")]
    batch_size: usize,
    #[command(flatten)]
    loading: Given<LoadingSettings>,
}

/// Scores and reports.
pub fn run(args: EvaluateArgs) -> Result<()> {
    if let Some(folder) = &args.output {
        check_is_here(folder)?;
        make_folder(folder)?;
    }
    let loading = args.loading.settings()?;
    let loaded = args.model.load_any()?;
    let dataset = Arc::new(dataset(args.data.as_deref(), &loaded)?);
    let options = LoaderOptions::new(loading.workers, loading.max_corrupt);
    let images = dataset.len() as u64;
    let world = ProcessGroup::alone();
    let loader = evaluation_loader(dataset, &loaded.images, args.batch_size, &options, &world)?;
    let mut counter = Counter::new("image", images);
    let mode = Mode::eval().with_compute(loaded.precision.compute());
    let count = |images| counter.add(images);
    let report = evaluate(loaded.classifier.as_ref(), &mode, &loader, &world, count)?;
    for (name, why) in loader.corrupt_files().report() {
        counter.note(&format!("left out {name}: {why}"));
    }
    counter.finish();
    print!("{report}");
    if let Some(folder) = &args.output {
        write(folder, &report)?;
    }
    Ok(())
}

/// The images to score on, with the classifier's classes.
fn dataset(
    folder: Option<&Path>,
    loaded: &LoadedModel<Box<dyn Logits>>,
) -> Result<LabelledDataset> {
    let folder = match (folder, &loaded.config) {
        (Some(folder), _) if folder.join("train").is_dir() && folder.join("val").is_dir() => {
            folder.join("val")
        }
        (Some(folder), _) => folder.to_owned(),
        (None, Some(config)) => {
            config.validation_folder().context("name the images with --data")?
        }
        (None, None) => {
            bail!("weights come without data: name a folder of class folders with --data")
        }
    };
    let dataset = labelled(&folder, loaded)?;
    dataset.notes().iter().for_each(|note| eprintln!("note: {note}"));
    Ok(dataset)
}

/// The class folders of `folder` by name: by what the classes were called in training, or as
/// --classes calls them. By their order only where the weights tell no names.
fn labelled(folder: &Path, loaded: &LoadedModel<Box<dyn Logits>>) -> Result<LabelledDataset> {
    let open = |names: &Vec<String>| LabelledDataset::open_as(folder, &reading(), names);
    match (&loaded.trained_on, &loaded.classes) {
        (Some(trained_on), Some(classes)) if trained_on != classes => {
            // Folders may be called otherwise than in training (`n01440764` is a tench).
            open(trained_on).or_else(|_| Ok(open(classes)?))
        }
        (_, Some(classes)) => Ok(open(classes).map_err(|error| {
            // Where the folders are sound, it is their names that are wrong.
            let hint = LabelledDataset::open(folder, &reading()).map(|_| {
                "; rename the folders, or say with --classes FILE what they are called: a name a \
                 line, in the order of the classifier's classes"
            });
            anyhow!("{error}{}", hint.unwrap_or_default())
        })?),
        (_, None) => {
            let dataset = LabelledDataset::open(folder, &reading())?;
            let (found, known) = (dataset.classes().len() as i64, loaded.classifier.num_classes());
            ensure!(
                found == known,
                "{} has {}, but the classifier has {}",
                folder.display(),
                counted(found, "class folder"),
                counted(known, "class"),
            );
            eprintln!(
                "note: {}: the weights do not tell what their classes are called: the {found} class \
                 folders are taken in the order of their names; --classes FILE tells",
                folder.display(),
            );
            Ok(dataset)
        }
    }
}

/// Writes everything into `folder`, which is there, and says so.
fn write(folder: &Path, report: &Report) -> Result<()> {
    let picture = confusion_picture("Confusion", report)?;
    for (name, bytes) in [
        ("report.json", serde_json::to_vec_pretty(report)?),
        ("classes.csv", report.class_csv().into_bytes()),
        ("confusion.csv", confusion_csv(report).into_bytes()),
        ("confusion.png", png(&picture)?),
    ] {
        let path = folder.join(name);
        write_file(&path, &bytes)?;
        println!("{}", display_path(&path));
    }
    Ok(())
}
