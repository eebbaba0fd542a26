//! The cache: what is read twice is asked for once, and never another's or half of it.

use std::path::Path;
use std::sync::Barrier;

use storage::{Object, Reader};
use tempfile::TempDir;
use test_objects::{Fault, Objects, Rule};

use crate::{count, numbered, storage, with_object};

const SIZE: u64 = 1 << 30;

fn reader(objects: &Objects, folder: &Path) -> Reader {
    Reader::new(storage(objects), Some((folder, SIZE))).unwrap()
}

/// A server with an object of this content, and a reader with a cache in an empty folder.
fn cached(content: impl Into<Vec<u8>>) -> (Objects, Object, TempDir, Reader) {
    let (objects, object) = with_object(content);
    let folder = tempfile::tempdir().unwrap();
    let reader = reader(&objects, folder.path());
    (objects, object, folder, reader)
}

#[test]
fn what_was_read_is_not_asked_for_again() {
    let bytes = numbered(5 << 20);
    let (objects, object, folder, first) = cached(bytes.clone());
    // Across the border of two blocks, and the last one.
    let ranges = [2_000_000..2_200_000, 5_242_000..5_242_880, 10..20];
    for range in ranges.clone() {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(first.read(&object, range).unwrap() == wanted);
    }
    assert_eq!(count(&objects, "GET"), 3, "each block once");
    // Another process, later.
    drop(first);
    let second = reader(&objects, folder.path());
    for range in ranges {
        let wanted = &bytes[range.start as usize..range.end as usize];
        assert!(second.read(&object, range).unwrap() == wanted);
    }
    assert_eq!(count(&objects, "GET"), 0);
}

#[test]
fn a_changed_object_is_read_anew() {
    let (objects, old, _folder, reader) = cached("old content");
    assert_eq!(&reader.read(&old, 0..3).unwrap()[..], b"old");
    objects.put("bucket", "a.bin", "new content");
    let new = reader.storage().head(&old.location).unwrap();
    assert_eq!(&reader.read(&new, 0..3).unwrap()[..], b"new");
    // What was read as the old one is still that.
    assert_eq!(&reader.read(&old, 0..3).unwrap()[..], b"old");
}

#[test]
fn many_at_once_fetch_each_block_once_and_survive_a_failure() {
    let bytes = numbered(6 << 20);
    let (objects, object, _folder, reader) = cached(bytes.clone());
    objects.fail(Rule::get("a.bin").times(2), Fault::Reset(1 << 20));
    objects.requests();
    let start = Barrier::new(8);
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (reader, object, bytes, start) = (&reader, &object, &bytes, &start);
            scope.spawn(move || {
                start.wait();
                for n in 0..24 {
                    let from = (n * 250_000 + thread * 1000) % (bytes.len() as u64 - 5000);
                    let read = reader.read(object, from..from + 5000).unwrap();
                    assert!(read == bytes[from as usize..from as usize + 5000]);
                }
            });
        }
    });
    assert_eq!(count(&objects, "GET"), 3 + 2, "three blocks, and two answers that broke off");
}

#[test]
fn without_a_cache_nothing_more_is_read_than_asked_for() {
    let (objects, object) = with_object(numbered(3 << 20));
    let reader = Reader::new(storage(&objects), None).unwrap();
    assert_eq!(reader.read(&object, 100..200).unwrap().len(), 100);
    let tiny = tempfile::tempdir().unwrap();
    let error = Reader::new(storage(&objects), Some((tiny.path(), 1000))).unwrap_err().to_string();
    assert!(error.contains("size of the cache is 1000 bytes, but"), "{error}");
}
