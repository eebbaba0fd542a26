//! Images a second that a loader makes of a data set, to choose a number of threads by.
//!
//! `cargo run --release -p spark-engine --example loader_speed -- PATH [THREADS [SIZE [BATCHES]]]`

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::data::{
    Augment, Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions,
    Normalize, RandomHorizontalFlip, RandomResizedCrop,
};
use engine::{Error, Result};

const USAGE: &str = "PATH [THREADS [SIZE [BATCHES]]]";
const BATCH: usize = 64;

fn main() {
    if let Err(e) = run(std::env::args().skip(1).collect()) {
        eprintln!("{e}");
        std::process::exit(1);
    }
}

fn run(arguments: Vec<String>) -> Result<()> {
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
    let dataset = Arc::new(Dataset::open(path, &DatasetOptions::default())?);
    println!("{} images indexed in {:.2?}", dataset.len(), started.elapsed());

    let (scale, ratio) = (RandomResizedCrop::SCALE, RandomResizedCrop::RATIO);
    let transform = Augment {
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
