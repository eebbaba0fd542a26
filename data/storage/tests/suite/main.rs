//! Against an S3 server on the loopback interface, and a proxy before it that fails as it is told.

mod cached;
mod faults;
mod objects;

use std::time::Duration;

use storage::{Location, Object, Settings, Storage};
use test_objects::Objects;

/// Patience for tests: a lost request costs no minutes.
fn settings(objects: &Objects) -> Settings {
    let variables = objects.env().into_iter().map(|(name, value)| (name.to_owned(), value));
    Settings {
        tries: 4,
        first_pause: Duration::from_millis(5),
        // Much, where many tests share few cores.
        limit: Duration::from_secs(240),
        timeout: Duration::from_secs(100),
        variables: variables.collect(),
        ..Settings::default()
    }
}

fn storage(objects: &Objects) -> Storage {
    Storage::new(settings(objects)).unwrap()
}

/// A server with an object of this content, at [`OBJECT`].
fn with_object(content: impl Into<Vec<u8>>) -> (Objects, Object) {
    let objects = Objects::start();
    objects.put("bucket", "a.bin", content);
    let object = storage(&objects).head(&at(OBJECT)).unwrap();
    (objects, object)
}

const OBJECT: &str = "s3://bucket/a.bin";

fn at(text: &str) -> Location {
    Location::parse(text).unwrap()
}

/// Bytes that tell where they are.
fn numbered(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 3 % 251) as u8).collect()
}

/// How many requests of a method the server saw since last asked.
fn count(objects: &Objects, method: &str) -> usize {
    objects.requests().iter().filter(|request| request.method == method).count()
}
