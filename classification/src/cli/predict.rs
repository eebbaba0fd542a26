//! `classify predict`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use clap::Args;
use data::files::{NamedImage, image_files, read_file};
use data::names::readable;
use data::rng::Rng;
use data::write_file;
use data::{Transform, decode};
use engine::outputs::Inputs;
use engine::progress::Counter;
use engine::run_dir::display_path;
use serde::Serialize;
use tch::Tensor;
use words::counted;

use super::model_flags::ModelFlags;

const EXAMPLES: &str = "\
Examples:
  classify predict --weights runs/first photo.jpg

  # Whole folders and patterns, as JSON
  classify predict --weights runs/first --top 3 --json predictions.json photos 'more/*.png'";

/// Flags of `classify predict`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PredictArgs {
    #[command(flatten)]
    model: ModelFlags,
    /// Images, folders (at any depth) or patterns.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Classes to name for each image, the likeliest first.
    #[arg(long, value_name = "N", default_value = "5")]
    top: usize,
    /// Also write the predictions to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Images computed at a time.
    #[arg(long, value_name = "N", default_value = "16")]
    batch_size: usize,
}

/// What an image shows.
#[derive(Debug, Serialize)]
struct Prediction {
    /// As [`readable`] writes it: JSON holds no other bytes than text's.
    file: String,
    /// The likeliest first.
    classes: Vec<Guess>,
}

#[derive(Debug, Serialize)]
struct Guess {
    class: usize,
    name: String,
    probability: f64,
}

/// Predicts and prints.
///
/// # Errors
/// Files that cannot be read or do not fit together; images that cannot be read
/// are passed over, unless that is all of them.
pub fn run(args: PredictArgs) -> Result<()> {
    ensure!(args.top >= 1, "top is 0, but at least one class must be named");
    ensure!(args.batch_size >= 1, "batch-size is 0, but it must be at least 1");
    let files = image_files(&args.images)?;
    if let Some(path) = &args.json {
        check_output(path, &files)?;
    }
    let loaded = args.model.load_any()?;
    let (transform, names) = (loaded.images.transform()?, loaded.names());
    let top = args.top.min(names.len()) as i64;
    let mut counter = Counter::new("image", files.len() as u64);
    let mut predictions = Vec::new();
    for chunk in files.chunks(args.batch_size) {
        let (mut paths, mut images) = (Vec::new(), Vec::new());
        for file in chunk {
            match read(&file.path, &transform) {
                Ok(image) => {
                    paths.push(&file.path);
                    images.push(image);
                }
                Err(error) => counter.note(&format!("passed over: {error:#}")),
            }
        }
        counter.add(chunk.len() as u64);
        if images.is_empty() {
            continue;
        }
        let batch = Tensor::stack(&images, 0);
        let likely = loaded.classifier.probabilities(&batch, loaded.precision.compute())?;
        let (shares, classes) = likely.topk(top, 1, true, true);
        for (row, path) in paths.into_iter().enumerate() {
            let guess = |rank: i64| {
                let at = [row as i64, rank];
                let class = classes.int64_value(&at) as usize;
                let probability = shares.double_value(&at);
                Guess { class, name: names[class].clone(), probability }
            };
            let prediction =
                Prediction { file: readable(path), classes: (0..top).map(guess).collect() };
            print(&prediction);
            predictions.push(prediction);
        }
    }
    ensure!(!predictions.is_empty(), "none of {} can be read", counted(files.len(), "image"));
    if let Some(path) = &args.json {
        write_file(path, &serde_json::to_vec_pretty(&predictions)?)?;
        println!("{}", display_path(path));
    }
    Ok(())
}

/// Refuses, before anything is computed, a file that cannot be written or is one of the images.
fn check_output(path: &Path, files: &[NamedImage]) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "--json {}: {} is no folder", path.display(), folder.display());
    ensure!(!path.is_dir(), "--json {} is a folder, but it must be a file", path.display());
    Ok(Inputs::new(files.iter().map(|file| &file.path)).spare(path)?)
}

fn read(path: &Path, transform: &impl Transform) -> Result<Tensor> {
    prepare(path, &read_file(path)?, transform)
}

/// The picture in a file's `bytes` as the classifier takes it, `[C, H, W]`; messages name `path`.
pub(super) fn prepare(path: &Path, bytes: &[u8], transform: &impl Transform) -> Result<Tensor> {
    let shape = transform.shape();
    let image = decode(path, bytes, shape[0])?;
    let mut pixels = vec![0f32; shape.iter().product()];
    transform.apply(&image, &mut Rng::new(0, &[]), &mut pixels)?;
    Ok(Tensor::from_slice(&pixels).view(shape.map(|side| side as i64)))
}

fn print(prediction: &Prediction) {
    let guesses: Vec<String> = prediction
        .classes
        .iter()
        .map(|guess| format!("{} {:.1} %", guess.name, 100.0 * guess.probability))
        .collect();
    println!("{}: {}", prediction.file, guesses.join(", "));
}
