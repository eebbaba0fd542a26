//! Data sets in object storage are the same as on this machine's disk.

mod faults;
mod labels;
mod same;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use data::{
    Batch, Dataset, DatasetOptions, EpochSampler, Interpolation, Loader, LoaderOptions, Normalize,
    PretrainTransform, RandomHorizontalFlip, RandomResizedCrop, StorageOptions, StorageSettings,
};
use tempfile::TempDir;
use test_objects::Objects;

/// How a store is read in tests: a failure costs no minutes, and nothing is kept.
fn options(objects: &Objects) -> DatasetOptions {
    let variables = objects.env().into_iter().map(|(name, value)| (name.to_owned(), value));
    let settings = StorageSettings {
        tries: 3,
        first_pause: Duration::from_millis(5),
        limit: Duration::from_secs(240),
        variables: variables.collect(),
        ..StorageSettings::default()
    };
    let storage = StorageOptions { cache: None, settings };
    DatasetOptions { listings: None, storage, ..DatasetOptions::default() }
}

/// A picture of its own for every number.
fn picture(number: usize) -> Vec<u8> {
    let shade =
        |x: u32, y: u32, c: u32| ((number as u32 * 37 + x * 11 + y * 7 + c * 53) % 256) as u8;
    let picture = image::RgbImage::from_fn(20, 16, |x, y| {
        image::Rgb([shade(x, y, 0), shade(x, y, 1), shade(x, y, 2)])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// A tar archive of these members.
fn archive(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Three shards of eight pictures each with labels beside them, on the disk and in the store, where
/// they are called `set/shard-N.tar`.
fn shards(objects: &Objects) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for shard in 0..3 {
        let members: Vec<_> = (0..8)
            .map(|n| shard * 8 + n)
            .flat_map(|n| {
                let label = format!("{}", n % 3).into_bytes();
                [(format!("{n:03}.png"), picture(n)), (format!("{n:03}.cls"), label)]
            })
            .collect();
        let name = format!("shard-{shard}.tar");
        std::fs::write(folder.path().join(&name), archive(&members)).unwrap();
    }
    objects.upload("bucket", "set/", folder.path()).unwrap();
    folder
}

const SHARDS: &str = "s3://bucket/set/shard-{0..2}.tar";

fn local(folder: &Path) -> Arc<Dataset> {
    let options = DatasetOptions { listings: None, ..DatasetOptions::default() };
    Arc::new(Dataset::open(folder.join("shard-{0..2}.tar"), &options).unwrap())
}

fn loader(dataset: &Arc<Dataset>, sampler: EpochSampler, max_corrupt: f64) -> Loader {
    let (scale, ratio) = (RandomResizedCrop::SCALE, RandomResizedCrop::RATIO);
    let transform = PretrainTransform {
        crop: RandomResizedCrop::new((8, 8), scale, ratio, Interpolation::Bicubic).unwrap(),
        flip: RandomHorizontalFlip::new(0.5).unwrap(),
        normalize: Normalize::imagenet(),
    };
    let options = LoaderOptions { threads: 3, prefetch: 2, max_corrupt };
    Loader::new(Arc::clone(dataset), Arc::new(transform), sampler, options).unwrap()
}

/// Everything of the batches of two epochs, from a step on.
fn batches(
    dataset: &Arc<Dataset>,
    rank: usize,
    size: usize,
    start: u64,
) -> Vec<(Vec<f32>, Vec<usize>)> {
    let sampler = EpochSampler::distributed(dataset.len(), 4, 7, rank, size).unwrap();
    let content = |batch: data::Result<Batch>| {
        let Batch { images, indices, .. } = batch.unwrap();
        (images.iter().copied().collect(), indices)
    };
    loader(dataset, sampler, 0.5).batches(0..2, start).map(content).collect()
}

fn names(dataset: &Dataset) -> Vec<String> {
    (0..dataset.len()).map(|index| dataset.name(index)).collect()
}

/// The requests for objects since last asked, as `GET key`.
fn asked(objects: &Objects) -> Vec<String> {
    let requests = objects.requests().into_iter();
    requests.map(|request| format!("{} {}", request.method, request.target)).collect()
}
