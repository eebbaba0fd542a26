//! `classify probe`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use backbone::models::{BuildOptions, Model};
use backbone::weights::{self, LoadOptions, StateDict, WeightFile};
use backbone::{Backbone, Mode};
use clap::Args;
use data::LoaderOptions;
use data::names::readable;
use data::write_file;
use engine::device::DeviceFlags;
use engine::distributed::ProcessGroup;
use engine::graph::carried_by;
use engine::precision::Precision;
use engine::probe::{
    FeatureBank, Knn, LinearProbe, Pool, ProbeData, ProbeFigure, StageColumns, pooled,
    pooled_stages,
};
use engine::progress::Counter;
use engine::remote::{self, find_model};
use engine::run_dir::{CONFIG_FILE, display_path, resolve_checkpoint};
use engine::settings::{Given, LoadingSettings, read_table};
use serde::Serialize;
use tch::nn::VarStore;
use toml::Table;

use super::model_flags::ImageFlags;
use crate::data::ImageSettings;
use crate::saved::{TrainCheckpoint, image_settings};

const EXAMPLES: &str = "\
Features are the last stage's map, averaged over its positions. The nearest neighbours in train vote
for the classes of val, weighted by exp(cosine / temperature); the linear classifier is a logistic
regression on the standardised features of train.

Examples:
  # Whether pretraining helped: its backbone against a random one
  classify probe --data flowers --weights runs/pretrained
  classify probe --data flowers --model resnet50

  # The official weights
  classify probe --data flowers --weights resnet50_1kpretrained_timm_style.pth";

/// Flags of `classify probe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ProbeArgs {
    /// Folder with `train` and `val`, each with one folder of images a class.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Backbone: a run of any of the programs, or a weight file of any format; random
    /// weights of --model, those in its .pt2 file, if not given
    #[arg(long, value_name = "PATH", required_unless_present = "model")]
    weights: Option<PathBuf>,
    /// The model, or its .pt2 file, if the weights do not tell.
    #[arg(long)]
    model: Option<String>,
    #[command(flatten)]
    images: ImageFlags,
    #[command(flatten)]
    loading: Given<LoadingSettings>,
    /// Neighbours that vote.
    #[arg(long, value_name = "N", default_value = "20")]
    k: i64,
    /// Temperature of their votes.
    #[arg(long, default_value = "0.07")]
    temperature: f64,
    /// Penalty of the linear classifier's weights; chosen on a fifth of train if not given
    #[arg(long)]
    l2: Option<f64>,
    /// Leave the linear classifier out.
    #[arg(long)]
    knn_only: bool,
    /// Also print the figures of every stage, pooled by mean and by maximum, and of standardised and
    /// whitened features.
    #[arg(long, conflicts_with = "knn_only")]
    every: bool,
    /// Also write the figures to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Images computed at a time.
    #[arg(long, value_name = "N", default_value = "32")]
    batch_size: usize,
    /// Arithmetic of convolutions and linear layers.
    #[arg(long, value_enum, default_value = "float32")]
    precision: Precision,
    #[command(flatten)]
    compute: DeviceFlags,
    /// Seed of random weights.
    #[arg(long, default_value = "0")]
    seed: u64,
}

/// What the probes found; accuracies are in 0–1.
#[derive(Debug, Serialize)]
struct Figures {
    model: String,
    /// As [`readable`] writes the path: JSON holds no other bytes than text's.
    weights: Option<String>,
    train_images: usize,
    val_images: usize,
    classes: usize,
    features: i64,
    knn_top1: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    linear_top1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linear_train_top1: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    l2: Option<f64>,
    /// Of every stage, with `--every`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    every: Vec<StageFigure>,
}

/// A figure of the features of one stage.
#[derive(Debug, Serialize)]
struct StageFigure {
    /// From 1, finest first.
    stage: usize,
    pool: Pool,
    figure: ProbeFigure,
    top1: f64,
}

/// Probes and prints.
pub fn run(mut args: ProbeArgs) -> Result<()> {
    let device = args.compute.open()?;
    let loading = args.loading.settings()?;
    let knn = Knn { k: args.k, temperature: args.temperature };
    let linear = LinearProbe { l2: args.l2, ..LinearProbe::default() };
    knn.check()?;
    linear.check()?;
    args.json.as_deref().map_or(Ok(()), remote::check_is_here)?;
    let named = args.weights.clone();
    if let Some(path) = &mut args.weights {
        *path = remote::local(path)?.into_owned();
    }
    let (weights, images) = weights_and_images(&args)?;
    let transform = Arc::new(images.transform()?);
    let options = LoaderOptions::new(loading.workers, loading.max_corrupt);
    let data =
        ProbeData::open(&args.data, transform, args.batch_size, &options, &ProcessGroup::alone())?;
    data.notes().for_each(|note| eprintln!("note: {note}"));
    let (model, store, backbone) = backbone(&args, weights, device)?;

    let [train_images, val_images] = data.image_counts();
    let mut counter = Counter::new("image", (train_images + val_images) as u64);
    let mode = Mode::eval().with_compute(args.precision.compute());
    let mut columns = StageColumns::default();
    let features = |images: &tch::Tensor| {
        if !args.every {
            return Ok(pooled(backbone.as_ref(), images, &mode)?);
        }
        let (rows, places) = pooled_stages(backbone.as_ref(), images, &mode)?;
        columns = places;
        Ok(rows)
    };
    let banks = data.features(store.device(), features, |n| counter.add(n))?;
    for (name, why) in data.left_out() {
        counter.note(&format!("left out {name}: {why}"));
    }
    counter.finish();
    let [training, validation] = match columns.stages() {
        0 => [&banks[0], &banks[1]].map(|bank| bank.mapped(tch::Tensor::shallow_clone)),
        stages => {
            [&banks[0], &banks[1]].map(|bank| bank.columns(columns.of(stages - 1, Pool::Mean)))
        }
    };
    let [train_images, val_images] =
        [&training, &validation].map(|part| part.features().size()[0] as usize);

    let from_file = model.graph().is_some();
    let knn_top1 = validation.accuracy(&knn.predict(&training, validation.features())?);
    let mut figures = Figures {
        model: model.name.into_owned(),
        weights: named.as_ref().map(readable),
        train_images,
        val_images,
        classes: data.classes().len(),
        features: training.features().size()[1],
        knn_top1,
        linear_top1: None,
        linear_train_top1: None,
        l2: None,
        every: every(&banks, &columns)?,
    };
    let weights = match (&named, from_file) {
        (Some(path), _) => display_path(path),
        (None, true) => "the file's own weights".into(),
        (None, false) => "random weights".into(),
    };
    println!("{}, {weights}: {} features", figures.model, figures.features);
    println!("{:<24} {:6.2} %", format!("{} nearest neighbours", args.k), 100.0 * knn_top1);
    if !args.knn_only {
        let classifier = linear.fit(&training)?;
        let score =
            |part: &engine::probe::FeatureBank| part.accuracy(&classifier.predict(part.features()));
        let (found, fitted) = (score(&validation), score(&training));
        println!(
            "{:<24} {:6.2} %  ({:.2} % of train, penalty {:e})",
            "linear classifier",
            100.0 * found,
            100.0 * fitted,
            classifier.l2
        );
        (figures.linear_top1, figures.linear_train_top1) = (Some(found), Some(fitted));
        figures.l2 = Some(classifier.l2);
    }
    print_every(&figures.every);
    if let Some(path) = &args.json {
        write_file(path, &serde_json::to_vec_pretty(&figures)?)?;
        println!("{}", display_path(path));
    }
    Ok(())
}

/// All figures of all stages.
fn every(
    [training, validation]: &[FeatureBank; 2],
    columns: &StageColumns,
) -> Result<Vec<StageFigure>> {
    let mut found = Vec::new();
    for stage in 0..columns.stages() {
        for pool in [Pool::Mean, Pool::Max, Pool::Both] {
            let [training, validation] =
                [training, validation].map(|bank| bank.columns(columns.of(stage, pool)));
            for figure in ProbeFigure::ALL {
                let top1 = figure.top1(&training, &validation)?;
                found.push(StageFigure { stage: stage + 1, pool, figure, top1 });
            }
        }
    }
    Ok(found)
}

fn print_every(figures: &[StageFigure]) {
    let Some(first) = figures.first() else { return };
    let kinds = figures.iter().take_while(|one| (one.stage, one.pool) == (first.stage, first.pool));
    let names: Vec<_> = kinds.map(|one| one.figure.names().1).collect();
    println!("stage pool   {}", names.join("   "));
    for row in figures.chunks(names.len()) {
        let cells = row
            .iter()
            .zip(&names)
            .map(|(one, name)| format!("{:>width$.2} %", 100.0 * one.top1, width = name.len() - 2));
        let pool = format!("{:?}", row[0].pool).to_lowercase();
        println!("{:<5} {pool:<6} {}", row[0].stage, cells.collect::<Vec<_>>().join("   "));
    }
}

/// The weights and how their images are prepared: as in the run that they come from, as a timm
/// folder says, else as for ImageNet; the flags come first.
fn weights_and_images(args: &ProbeArgs) -> Result<(Option<WeightFile>, ImageSettings)> {
    let Some(path) = &args.weights else {
        return Ok((None, args.images.over(ImageSettings::IMAGENET)));
    };
    let file = weights::read(resolve_checkpoint(path)?)?;
    let images = match TrainCheckpoint::open(path) {
        Ok(Some(own)) => ImageSettings::from(&own.state.config),
        _ => match run_settings(path) {
            Some(settings) => images_of_run(&settings)?,
            None => image_settings(&file)?,
        },
    };
    Ok((Some(file), args.images.over(images)))
}

/// The settings of the run whose folder, or whose checkpoint, `path` is. (A timm folder within a
/// run has its own.)
fn run_settings(path: &Path) -> Option<Table> {
    let run = if path.is_file() { path.parent()?.parent()? } else { path };
    read_table(&run.join(CONFIG_FILE)).ok()
}

/// How a run of `pretrain` prepared its images: their size, if they were square, mean and
/// deviation.
fn images_of_run(settings: &Table) -> Result<ImageSettings> {
    let side = match settings.get("input-size") {
        Some(toml::Value::Integer(side)) => usize::try_from(*side).ok(),
        Some(toml::Value::String(text)) => match text.split_once('x') {
            None => text.parse().ok(),
            Some((height, width)) => height.parse().ok().filter(|_| height == width),
        },
        _ => None,
    };
    let three = |key: &str, default: [f32; 3]| match settings.get(key) {
        Some(value) => value
            .clone()
            .try_into()
            .with_context(|| format!("the run's {key} is {value}, but images are read as RGB")),
        None => Ok(default),
    };
    let default = ImageSettings::IMAGENET;
    Ok(ImageSettings {
        size: side.unwrap_or(default.size),
        mean: three("mean", default.mean)?,
        std: three("std", default.std)?,
        ..default
    })
}

/// A backbone with its variables.
type Built = (Model, VarStore, Box<dyn Backbone>);

fn backbone(args: &ProbeArgs, file: Option<WeightFile>, device: tch::Device) -> Result<Built> {
    let carried = args.weights.as_deref().map(carried_by).transpose()?.flatten();
    let model = match (&args.model, carried, &file) {
        (Some(name), ..) => find_model(name)?,
        (None, Some(carried), _) => carried,
        (None, None, Some(file)) => file.registered_model()?,
        (None, None, None) => None.context("no backbone: give --weights or --model")?,
    };
    tch::manual_seed(args.seed as i64);
    let store = VarStore::new(device);
    let options = BuildOptions { uninitialised: file.is_some(), ..BuildOptions::default() };
    let backbone = model.build(&store.root(), &options)?;
    if let Some(file) = &file {
        let target: StateDict = store.variables().into_iter().collect();
        let family = model.family();
        let report = weights::load(&target, family, file, &LoadOptions::of(family))?;
        eprintln!("{report}");
    }
    Ok((model, store, backbone))
}
