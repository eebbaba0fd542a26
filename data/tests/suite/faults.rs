//! What a store's failures are to a data set.

use std::sync::Arc;
use std::time::Duration;

use data::{Dataset, EpochSampler, Error};
use test_objects::{Fault, Objects, Rule};

use crate::{SHARDS, archive, batches, loader, local, names, options, picture, shards};

#[test]
fn a_store_that_stumbles_gives_the_same_batches() {
    let objects = Objects::start();
    let folder = shards(&objects);
    let there = Arc::new(Dataset::open(SHARDS, &options(&objects)).unwrap());
    let here = local(folder.path());
    for (n, fault) in [
        Fault::slow_down(None),
        Fault::Reset(700),
        Fault::Cut(700),
        Fault::Shorter(3),
        Fault::AnswerLost,
    ]
    .into_iter()
    .enumerate()
    {
        objects.fail(Rule::get("shard-").after(5 * n), fault);
    }
    assert!(batches(&there, 0, 1, 0) == batches(&here, 0, 1, 0));
}

#[test]
fn a_store_that_fails_stops_the_run_with_its_object() {
    let objects = Objects::start();
    shards(&objects);
    let there = Arc::new(Dataset::open(SHARDS, &options(&objects)).unwrap());
    let failure = |fault| {
        objects.recover();
        objects.fail(Rule::get("shard-1").always(), fault);
        let sampler = EpochSampler::new(there.len(), 4, 7).unwrap();
        // No share of corrupt files covers it: another run would see other images.
        let loader = loader(&there, sampler, 1.0);
        let error = loader.epoch(0, 0).find_map(Result::err).expect("it fails");
        assert!(loader.corrupt_files().is_empty());
        assert!(matches!(error, Error::Storage(_)), "{error}");
        error.to_string()
    };
    let down = failure(Fault::slow_down(None));
    assert!(down.starts_with("s3://bucket/set/shard-1.tar: reading bytes "), "{down}");
    assert!(down.contains("given up after 3 tries"), "{down}");
    assert!(failure(Fault::expired()).contains("credentials have expired"));
    assert!(failure(Fault::denied()).contains("AccessDenied"));
    objects.recover();
    objects.put("bucket", "set/shard-1.tar", archive(&[("x.png".into(), picture(1))]));
    let changed = failure(Fault::Stall(0, Duration::ZERO));
    assert!(changed.contains("shard-1.tar") && changed.contains("looked at first"), "{changed}");
}

#[test]
fn a_missing_shard_is_counted_and_told_like_a_corrupt_file() {
    let objects = Objects::start();
    shards(&objects);
    objects.remove("bucket", "set/shard-1.tar");
    let there = Arc::new(Dataset::open(SHARDS, &options(&objects)).unwrap());
    assert_eq!(there.len(), 8 + 1 + 8);
    assert_eq!(names(&there)[8], "shard-1.tar");
    let sampler = EpochSampler::new(there.len(), 4, 7).unwrap();
    let read = loader(&there, sampler, 0.1);
    assert_eq!(read.epoch(0, 0).map(|batch| batch.unwrap().indices.len()).sum::<usize>(), 20);
    let report = read.corrupt_files().report();
    assert_eq!(report.len(), 1);
    assert!(report[0].0 == "shard-1.tar" && report[0].1.contains("not there"), "{report:?}");
    let sampler = EpochSampler::new(there.len(), 4, 7).unwrap();
    let strict = loader(&there, sampler, 0.0);
    let error = strict.epoch(0, 0).find_map(Result::err).expect("none may be missing").to_string();
    assert!(error.contains("shard-1.tar: the shard is not there"), "{error}");
    // One that goes in the middle of a run.
    objects.remove("bucket", "set/shard-2.tar");
    let sampler = EpochSampler::new(there.len(), 4, 7).unwrap();
    let read = loader(&there, sampler, 0.9);
    assert!(read.epoch(0, 0).all(|batch| batch.is_ok()));
    assert!(read.corrupt_files().report().iter().any(|(name, _)| name.starts_with("shard-2.tar:")));
}

#[test]
fn what_cannot_be_read_is_refused_with_its_name() {
    let objects = Objects::start();
    shards(&objects);
    objects.put("bucket", "set/packed.tar.gz", [0x1f, 0x8b, 8, 0]);
    objects.put(
        "bucket",
        "set/short.tar",
        archive(&[("a.png".into(), picture(1))])[..900].to_vec(),
    );
    objects.put("bucket", "set/notes.txt", "words, and more of them\n");
    for (place, said) in [
        ("s3://bucket/set/packed.tar.gz", "s3://bucket/set/packed.tar.gz: compressed by gzip"),
        ("s3://bucket/set/short.tar", "s3://bucket/set/short.tar: "),
        ("s3://bucket/none-{0..3}.tar", "s3://bucket/none-0.tar: looking at it"),
        ("s3://bucket/none/", "s3://bucket/none/: no images found"),
        ("s3://bucket/photos", "a prefix of images ends with a slash: s3://bucket/photos/"),
        ("s3://bucket/set/notes.txt", "s3://bucket/set/notes.txt:1: "),
        ("ftp://host/x.tar", "location is ftp://host/x.tar, but its scheme must be one of"),
        ("s3://{a,b}/x.tar", "braces stand behind the bucket's name"),
    ] {
        let error = Dataset::open(place, &options(&objects)).unwrap_err().to_string();
        assert!(error.contains(said), "{place}: {error}");
    }
}
