//! `detect evaluate`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{ArgGroup, Args};
use data::{LoaderOptions, write_file};
use engine::outputs::{Inputs, make_folder};
use engine::progress::Counter;
use engine::run_dir::display_path;
use engine::settings::put;
use tch::Kind as TensorKind;
use toml::Table;
use words::counted;

use super::model_flags::{FeedFlags, ModelOptions};
use crate::data::coco::same_classes;
use crate::data::{CocoDataset, DetectionLoader, GroundTruth, Share};
use crate::evaluation::{
    AnalysisOptions, Areas, CocoEvaluator, Evaluation, EvaluatorOptions, ImageDetections, Kind,
    analyse, category_names, results,
};
use crate::inference;
use crate::modeling::config::BackgroundClass;
use crate::picture::{confusion_matrix, error_bars, png, pr_curves};
use crate::saved::LoadedModel;

const EXAMPLES: &str = "\
--output gets report.json, results.bbox.json and results.segm.json (which pycocotools scores), and
for boxes and masks each the precision-recall curves, the confusion matrix and the errors by kind
(TIDE) as pictures.

Examples:
  # A run, on its own validation data
  detect evaluate --weights runs/first --output evaluation

  # detectron2's weights on COCO
  detect evaluate --weights model_final.pth --preset mask_rcnn_resnet50_1x \\
      --annotations coco/annotations/instances_val2017.json --output evaluation

  # A file of results, of whatever program
  detect evaluate --results results.segm.json --annotations labels.json --output evaluation";

/// Flags of `detect evaluate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("what").required(true).args(["weights", "results"]))]
pub struct EvaluateArgs {
    /// A run folder, a checkpoint, or a weight file.
    #[arg(long, value_name = "PATH")]
    weights: Option<PathBuf>,
    /// Score these results instead: a list of entries in COCO's format, or predictions.json.
    #[arg(long, value_name = "FILE", requires = "annotations")]
    results: Option<PathBuf>,
    /// The objects there are, in COCO's format; the run's validation data if not given
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// Folder of the images; where COCO has them if not given
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Folder for report, results and pictures.
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    feed: FeedFlags,
    /// Share of the images that may be unreadable or missing; the scores are without these;
    /// the run's, else that of `detect train`, if not given
    #[arg(long, value_name = "SHARE", conflicts_with = "results")]
    max_corrupt: Option<f64>,
    /// Most detections of an image and class that count, and of an image that a detector
    /// gives; COCO's 100 and the detector's if not given
    #[arg(long, value_name = "N")]
    max_detections: Option<usize>,
}

impl EvaluateArgs {
    fn options(&self, kinds: Vec<Kind>, areas: Areas) -> EvaluatorOptions {
        let usual = EvaluatorOptions { kinds, areas, keep_detections: true, ..Default::default() };
        let max_detections = self.max_detections.unwrap_or(usual.max_detections);
        EvaluatorOptions { max_detections, ..usual }
    }
}

/// Scores and reports.
pub fn run(args: EvaluateArgs) -> Result<()> {
    if let Some(folder) = &args.output {
        let read = [&args.annotations, &args.results, &args.model.config, &args.weights];
        let inputs = Inputs::new(read.into_iter().flatten());
        let names = ["report.json".to_owned()].into_iter();
        let per_kind =
            |kind: Kind| ["results", "errors"].map(|n| format!("{n}.{}.json", kind.name()));
        for name in names.chain([Kind::Bbox, Kind::Segm].into_iter().flat_map(per_kind)) {
            inputs.spare(&folder.join(name))?;
        }
    }
    let (ground_truth, evaluation) = match (&args.weights, &args.results, &args.annotations) {
        (Some(weights), _, _) => of_weights(&args, weights)?,
        (None, Some(results), Some(annotations)) => of_results(&args, results, annotations)?,
        _ => bail!("nothing to score: give --weights, or --results and --annotations"),
    };
    print!("{}\n{}", evaluation.report, evaluation.report.class_table());
    if let Some(folder) = &args.output {
        write(folder, &ground_truth, &evaluation)?;
    }
    Ok(())
}

fn of_weights(args: &EvaluateArgs, path: &Path) -> Result<(GroundTruth, Evaluation)> {
    let mut more = args.feed.table();
    if let Some(most) = args.max_detections {
        let roi =
            Table::from_iter([("detections-per-image".to_owned(), toml::Value::from(most as i64))]);
        more.insert("model".into(), Table::from_iter([("roi".to_owned(), roi.into())]).into());
    }
    put(&mut more, "max-corrupt", &args.max_corrupt);
    let loaded = args.model.load(path, TensorKind::Float, more)?;
    let dataset = dataset(args, &loaded)?;
    let renumber = renumbering(&loaded, &dataset)?;

    let max_corrupt = loaded.loading.max_corrupt;
    let options = LoaderOptions::new(loaded.loading.workers, max_corrupt);
    let dataset = Arc::new(dataset);
    let transform = loaded.inference.transform();
    let loader =
        DetectionLoader::evaluation(Arc::clone(&dataset), transform, 1, &options, Share::ALL)?;
    let mut kinds = vec![Kind::Bbox];
    if loaded.has_masks() {
        kinds.push(Kind::Segm);
    }
    let mut ground_truth = dataset.coco().clone();
    let options = args.options(kinds, Areas::OfKind);
    let mut evaluator = CocoEvaluator::new(&ground_truth, options)?;
    tell(evaluator.notes());
    let mut counter = Counter::new("image", dataset.len() as u64);
    let detector = &loaded.detector;
    let mode = detector.eval_mode(loaded.precision.compute());
    let done = |images: usize| counter.add(images as u64);
    let mut scored = BTreeSet::new();
    let found = |found: ImageDetections| {
        scored.insert(found.image_id);
        evaluator.add(found.image_id, found.detections)
    };
    inference::detect(&detector.model, &mode, &loader, found, &*renumber, done)?;
    let unread = loader.corrupt_files().report();
    for (name, why) in &unread {
        counter.note(&format!("left out {name}: {why}"));
    }
    counter.finish();
    if unread.is_empty() {
        return Ok((ground_truth, evaluator.finish()?));
    }
    // The loader allows one at least, which is a large share of a few images.
    ensure!(
        unread.len() as f64 <= max_corrupt * dataset.len() as f64,
        "{} of {} images can't be scored: repair them, or allow a larger share than {} with \
         --max-corrupt",
        unread.len(),
        dataset.len(),
        max_corrupt
    );
    eprintln!("{} of {} images are not scored", unread.len(), dataset.len());
    evaluator.leave_out_rest();
    ground_truth.retain_images(|image| scored.contains(&image.id));
    Ok((ground_truth, evaluator.finish()?))
}

/// The images to detect in: those named, or the run's validation data.
fn dataset(args: &EvaluateArgs, loaded: &LoadedModel) -> Result<CocoDataset> {
    let open = |file: &Path, images| CocoDataset::open_with(file, images, loaded.has_masks());
    let dataset = match &args.annotations {
        Some(file) => open(file, args.images.as_deref())?,
        None => {
            let run = loaded.run.as_ref().with_context(
                || "a weight file comes without data: name some with --annotations",
            )?;
            let [_, (file, images)] = run.files()?;
            open(&file, args.images.as_deref().or(images))?
        }
    };
    tell(&dataset.scoring_warnings());
    Ok(dataset)
}

fn tell(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

/// What gives the data set's class for the model's.
type Renumbering = Box<dyn Fn(usize) -> Option<usize>>;

/// The class of the same name; where names are not known the same classes in the same order or,
/// of a detector with torchvision's outputs, category ids themselves.
fn renumbering(loaded: &LoadedModel, dataset: &CocoDataset) -> Result<Renumbering> {
    let settings = loaded.detector.model.config();
    let (classes, there) = (settings.num_classes as usize, dataset.categories());
    if loaded.classes.is_some() && classes == there.len() {
        let places = same_classes(&loaded.names(), &dataset.names()).map_err(|problem| {
            anyhow!(
                "{} has other classes than the detector: {problem}",
                dataset.annotations().display()
            )
        })?;
        return Ok(Box::new(move |class| places.get(class).copied()));
    }
    let ids = crate::evaluation::category_ids(dataset.coco());
    renumbered(classes, settings.background, ids).with_context(|| {
        format!(
            "the detector has {}, but {} has {}",
            counted(classes, "class"),
            dataset.annotations().display(),
            counted(there.len(), "category")
        )
    })
}

/// How `classes` classes are numbered among the categories with these ids, in order; none if
/// they are not these.
fn renumbered(classes: usize, background: BackgroundClass, ids: Vec<u64>) -> Option<Renumbering> {
    if classes == ids.len() {
        return Some(Box::new(Some));
    }
    let largest = ids.iter().max().copied().unwrap_or(0) as usize;
    if background == BackgroundClass::First && classes == largest {
        return Some(Box::new(move |class| ids.binary_search(&(class as u64 + 1)).ok()));
    }
    None
}

fn of_results(
    args: &EvaluateArgs,
    path: &Path,
    annotations: &Path,
) -> Result<(GroundTruth, Evaluation)> {
    args.model.refuse()?;
    let (truth, findings) = GroundTruth::read(annotations)?;
    for finding in findings {
        eprintln!("note: {}: {finding}", annotations.display());
    }
    let read = results::read(path, &truth)?;
    for note in &read.notes {
        eprintln!("note: {}: {note}", path.display());
    }
    let (kinds, areas) = read.to_evaluate(&truth);
    if kinds != read.kinds {
        eprintln!("note: no object has a mask: the boxes around the masks are scored");
    }
    let mut evaluator = CocoEvaluator::new(&truth, args.options(kinds, areas))?;
    tell(evaluator.notes());
    for ImageDetections { image_id, detections } in read.images {
        evaluator.add(image_id, detections)?;
    }
    Ok((truth, evaluator.finish()?))
}

/// Writes everything into `folder`, and says so.
fn write(folder: &Path, ground_truth: &GroundTruth, evaluation: &Evaluation) -> Result<()> {
    make_folder(folder)?;
    let mut written = vec![folder.join("report.json")];
    write_file(&written[0], serde_json::to_string_pretty(&evaluation.report)?.as_bytes())?;
    let found = evaluation.detections.as_deref().unwrap_or_default();
    let names = category_names(ground_truth);
    for (kind, section) in evaluation.report.sections() {
        let kind_name = kind.name();
        let file = |name: &str| folder.join(format!("{name}.{kind_name}.png"));
        let path = folder.join(format!("results.{kind_name}.json"));
        results::write(&path, kind, found, ground_truth)?;
        written.push(path);
        if let Some(curves) = evaluation.precision_recall(kind, 0)
            && curves.mean().is_some()
        {
            let picture = pr_curves(&format!("{kind_name}, IoU 0.50"), &curves, &names)?;
            written.push(file("precision-recall"));
            write_file(&file("precision-recall"), &png(&picture)?)?;
        }
        let max_detections = section.figures.max_detections as usize;
        let options = AnalysisOptions { max_detections, ..AnalysisOptions::default() };
        let analysis = analyse(ground_truth, found, kind, &options)?;
        let picture = confusion_matrix(&format!("{kind_name} confusion"), &analysis.confusion)?;
        written.push(file("confusion"));
        write_file(&file("confusion"), &png(&picture)?)?;
        let picture = error_bars(&format!("{kind_name} errors"), &analysis);
        written.push(file("errors"));
        write_file(&file("errors"), &png(&picture)?)?;
        let path = folder.join(format!("errors.{kind_name}.json"));
        write_file(&path, serde_json::to_string_pretty(&analysis)?.as_bytes())?;
        written.push(path);
    }
    println!();
    for path in written {
        println!("{}", display_path(&path));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torchvisions_classes_are_category_ids() {
        // COCO has 80 categories, whose ids go up to 90.
        let first = BackgroundClass::First;
        let renumber = renumbered(5, first, vec![1, 3, 5]).unwrap();
        let found: Vec<Option<usize>> = (0..5).map(renumber).collect();
        assert_eq!(found, [Some(0), None, Some(1), None, Some(2)]);
        let same = renumbered(3, first, vec![1, 3, 5]).unwrap();
        assert_eq!((0..3).map(same).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert!(renumbered(4, first, vec![1, 3, 5]).is_none());
        assert!(renumbered(5, BackgroundClass::Last, vec![1, 3, 5]).is_none());
    }
}
