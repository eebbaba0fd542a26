//! What is asked of a store that keeps its promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use storage::{Error, Reader, Storage};
use test_objects::Objects;

use crate::{at, count, numbered, settings, storage};

#[test]
fn objects_are_looked_at_read_and_listed() {
    let objects = Objects::start();
    // Two parts and a rest, so that parts are put together in their order.
    let bytes = numbered((16 << 20) + 12_345);
    objects.put("bucket", "set/a b+c.bin", bytes.clone());
    for n in 0..3 {
        objects.put("bucket", &format!("set/in/{n}.txt"), format!("{n}"));
    }
    objects.put("bucket", "settled/x", "x");
    let storage = storage(&objects);
    let whole = at("s3://bucket/set/a b+c.bin");
    let object = storage.head(&whole).unwrap();
    assert_eq!((object.size, object.etag.is_some()), (bytes.len() as u64, true));
    assert_eq!(storage.read(&object, 8_000_000..8_000_010).unwrap(), bytes[8_000_000..8_000_010]);
    assert!(storage.read(&object, 5..5).unwrap().is_empty());
    let beyond = storage.read(&object, 0..object.size + 1).unwrap_err();
    assert!(matches!(beyond, Error::Invalid { .. }), "{beyond}");
    assert!(storage.read_all(&whole).unwrap().1 == bytes);
    let folder = tempfile::tempdir().unwrap();
    let (copied, copy) = (Arc::new(AtomicU64::new(0)), folder.path().join("copy"));
    let told = Arc::clone(&copied);
    let count = move |more| {
        told.fetch_add(more, Ordering::Relaxed);
    };
    storage.copy_to_file(&object, &copy, count).unwrap();
    assert!(std::fs::read(&copy).unwrap() == bytes);
    assert_eq!(copied.load(Ordering::Relaxed), object.size);

    let listed = storage.list(&at("s3://bucket/set/"), |_| {}).unwrap();
    let names: Vec<&str> = listed.iter().map(|object| object.location.key()).collect();
    assert_eq!(names, ["set/a b+c.bin", "set/in/0.txt", "set/in/1.txt", "set/in/2.txt"]);
    assert_eq!(listed[0].size, object.size);
    assert_eq!(storage.read(&listed[0], 5..9).unwrap(), bytes[5..9], "as it was listed");
    assert!(storage.list(&at("s3://bucket/none/"), |_| {}).unwrap().is_empty());
    assert!(storage.exists(&whole).unwrap() && !storage.exists(&at("s3://bucket/no")).unwrap());
    objects.put("bucket", "empty", "");
    assert!(storage.read_all(&at("s3://bucket/empty")).unwrap().1.is_empty());
}

#[test]
fn a_slow_store_is_asked_for_many_small_pieces_at_a_time() {
    let objects = Objects::start();
    let bytes = numbered(256 * 10);
    objects.put("bucket", "a.bin", bytes.clone());
    let storage = storage(&objects);
    let object = storage.head(&at("s3://bucket/a.bin")).unwrap();
    let reader = Reader::new(storage, None).unwrap();
    let delay = Duration::from_secs(2);
    objects.delay(delay);
    let begun = Instant::now();
    let pieces: Vec<_> =
        (0..256).map(|n| reader.start_read(&object, n * 10..(n + 1) * 10)).collect();
    let read: Vec<_> = pieces.into_iter().map(|piece| piece.wait().unwrap()).collect();
    assert!(read.concat() == bytes);
    // In two turns it would take two delays.
    assert!(begun.elapsed() < delay * 2, "{:?}", begun.elapsed());
}

#[test]
fn plain_web_servers_are_read_as_well() {
    let objects = Objects::start();
    let bytes = numbered(100_000);
    objects.put("bucket", "set/a b.bin", bytes.clone());
    let storage = Storage::new(settings(&objects)).unwrap();
    let object =
        storage.head(&at(&format!("{}/bucket/set/a%20b.bin", objects.endpoint()))).unwrap();
    assert_eq!(storage.read(&object, 99_000..100_000).unwrap(), bytes[99_000..]);
}

#[test]
fn objects_are_written_whole_and_removed() {
    let objects = Objects::start();
    let storage = storage(&objects);
    storage.put(&at("s3://bucket/new/small"), "content").unwrap();
    assert_eq!(objects.get("bucket", "new/small").unwrap(), b"content");
    let large = numbered((33 << 20) + 1);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    std::fs::write(&path, &large).unwrap();
    storage.put_file(&at("s3://bucket/new/large"), &path, |_| {}).unwrap();
    assert!(objects.get("bucket", "new/large").unwrap() == large);
    assert!(count(&objects, "POST") >= 2, "it was written in parts");
    storage.delete(&at("s3://bucket/new/small")).unwrap();
    storage.delete(&at("s3://bucket/new/small")).unwrap();
    assert_eq!(objects.keys("bucket"), ["new/large"]);
    let error = storage.put(&at("s3://bucket"), "x").unwrap_err().to_string();
    assert!(error.contains("names no object"), "{error}");
}
