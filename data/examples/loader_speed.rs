//! Images a second that a loader makes of a data set, to choose a number of threads by.
//!
//! `cargo run --release -p spark-data --example loader_speed -- PATH [THREADS [SIZE [BATCHES]]]`
//!
//! `--scale LOW` sets the smallest share of an image's area that a crop takes (0.67), `--full`
//! decodes large files in full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use data::{
    Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions, Normalize,
    PretrainTransform, RandomHorizontalFlip, RandomResizedCrop,
};
use data::{Error, Result};

const USAGE: &str = "PATH [THREADS [SIZE [BATCHES]]] [--scale LOW] [--full]";
const BATCH: usize = 64;

fn main() {
    if let Err(e) = run(std::env::args().skip(1).collect()) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn run(mut arguments: Vec<String>) -> Result<()> {
    let full = take(&mut arguments, "--full", 0).is_some();
    let mut scale = RandomResizedCrop::SCALE;
    if let Some(low) = take(&mut arguments, "--scale", 1) {
        scale.0 = low.parse().map_err(|_| Error::invalid("--scale", low, USAGE))?;
    }
    let number = |place: usize, default: usize| match arguments.get(place) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| Error::invalid("argument", text, USAGE)),
    };
    let Some(path) = arguments.first() else {
        return Err(Error::invalid("number of arguments", 0, format!("needed are {USAGE}")));
    };
    let defaults = LoaderOptions::default();
    let options = LoaderOptions { threads: number(1, defaults.threads)?, ..defaults };
    let (threads, size, batches) = (options.threads, number(2, 224)?, number(3, 30)?);

    let started = Instant::now();
    let reading = DatasetOptions { reduced_decode: !full, ..Default::default() };
    let dataset = Arc::new(Dataset::open(path, &reading)?);
    println!("{} images indexed in {:.2?}", dataset.len(), started.elapsed());

    let ratio = RandomResizedCrop::RATIO;
    let transform = PretrainTransform {
        crop: RandomResizedCrop::new((size, size), scale, ratio, Interpolation::Bicubic)?,
        flip: RandomHorizontalFlip::new(0.5)?,
        normalize: Normalize::imagenet(),
    };
    let sampler = EpochSampler::new(dataset.len(), BATCH, 0)?;
    let loader = Loader::new(dataset, Arc::new(transform), sampler, options)?;

    let started = Instant::now();
    let mut waited = Duration::ZERO;
    for batch in loader.batches(0..u64::MAX, 0).take(batches) {
        waited += batch?.waited;
    }
    let rate = (batches * BATCH) as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} images/s at {size} px on {threads} threads (waited {waited:.2?})");
    for (name, reason) in loader.corrupt_files().report() {
        println!("skipped {name}: {reason}");
    }
    Ok(())
}

/// Takes `flag` out of the arguments, with the value behind it if it has one; else itself.
fn take(arguments: &mut Vec<String>, flag: &str, values: usize) -> Option<String> {
    let at = arguments.iter().position(|argument| argument == flag)?;
    let end = (at + 1 + values).min(arguments.len());
    arguments.drain(at..end).next_back()
}
