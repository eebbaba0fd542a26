//! Making tar shards, in WebDataset's form, of images that lie anywhere; and checking such.
//!
//! A set of shards is a folder (or the objects below a name in a store) with
//! - `shard-000000.tar`, …: for each image a member `KEY.jpg` (or `.png`, …) and, where images have
//!   classes, `KEY.cls`, its number as text;
//! - `shard-000000.idx`, …: where the members lie, as DALI's `wds2idx` writes it;
//! - `classes.txt`: the classes by number, one a line, where there are any;
//! - `unreadable.txt`: what was left out, with reasons, where there is anything;
//! - `summary.json`: how it was made, and images, bytes and SHA-256 of each shard; written last.
//!
//! The same images and settings give the same bytes, in one go or in several, on any number of
//! threads: the order is drawn once, and a shard ends where the next image would make it too large.

mod check;
mod folder;
mod make;
mod names;
mod ordered;
mod picture;
mod pictures;
mod record;
mod tarball;

use std::path::Path;

pub use self::check::{Checked, check};
pub use self::folder::Folder;
pub use self::make::{Made, make};
pub use self::pictures::{LabelsFrom, Pictures};
pub use self::record::{ShardEntry, ShardSettings, Summary};
use crate::{Error, Result};

/// Whoever shows how far it is.
pub trait Watcher: Send + Sync {
    /// It begins with `total` images, 0 where that isn't known, of which `done` are done.
    fn begin(&self, total: u64, done: u64);

    /// So many more are done, of so many bytes.
    fn advance(&self, images: u64, bytes: u64);
}

/// The file with the classes' names.
pub const CLASSES: &str = "classes.txt";
/// The list of what was left out.
pub const UNREADABLE: &str = "unreadable.txt";
/// The file that says what a set is.
pub const SUMMARY: &str = "summary.json";

/// That what lies at `path` is no set of shards, and why.
fn no_set(path: &Path, problem: &str) -> Error {
    Error::Data(format!("{}: {problem}", path.display()))
}

/// `value` as indented JSON with a line's end.
fn json(value: &impl serde::Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain values");
    text.push(b'\n');
    text
}

/// SHA-256 of `bytes` in hexadecimal.
#[cfg(test)]
fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a shard's file is called, and its index.
fn shard_names(prefix: &str, number: usize) -> (String, String) {
    (format!("{prefix}-{number:06}.tar"), format!("{prefix}-{number:06}.idx"))
}

/// The brace pattern of `count` shards, as `--data` takes it.
pub fn pattern(prefix: &str, count: usize) -> String {
    match count {
        0 | 1 => shard_names(prefix, 0).0,
        count => format!("{prefix}-{{000000..{:06}}}.tar", count - 1),
    }
}

/// That a setting keeps its rule.
fn require(holds: bool, operand: &str, value: impl std::fmt::Display, rule: &str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::invalid(operand, value, rule)) }
}

#[cfg(test)]
mod tests;
