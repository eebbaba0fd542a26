//! Whether shards are what they should be.

use std::collections::BTreeSet;
use std::io::{self, Read};

use ring::digest::{Context, SHA256};
use storage::ShardIndex;

use super::folder::Folder;
use super::make::{WORK, index_of};
use super::ordered::in_order;
use super::record::{ShardEntry, Summary};
use super::tarball::Lies;
use super::{CLASSES, SUMMARY, Watcher, hex, no_set};
use crate::corrupt::outcome;
use crate::dataset::is_image_name;
use crate::names::readable_bytes;
use crate::{Result, decode};

/// What [`check`] found.
#[derive(Debug)]
pub struct Checked {
    /// Shards that are there.
    pub shards: usize,
    /// Images in them that can be read.
    pub images: usize,
    /// Bytes of the shards.
    pub bytes: u64,
    /// What is wrong, each in a line that names where.
    pub problems: Vec<String>,
    /// Whether there was a summary to compare with.
    pub summary: bool,
}

/// Reads the shards in `folder` whole, on so many threads: that they are tar archives, that they
/// have the bytes, checksums and images that the summary says and lie where the indexes say, that
/// every image can be decoded, and that labels are numbers of classes. Without a summary, all
/// shards of the folder are read as images of `channels` channels, and what can be compared is.
///
/// # Errors
/// [`Error::Data`](crate::Error::Data) when it holds no shards or an unfinished set,
/// [`Error::Io`](crate::Error::Io) for a folder that can't be read. What is wrong with a set is no error here.
pub fn check(
    folder: &Folder,
    channels: usize,
    threads: usize,
    watcher: &dyn Watcher,
) -> Result<Checked> {
    let names = folder.names()?;
    let mut problems = Vec::new();
    let summary = read_summary(folder, &mut problems)?;
    if summary.is_none() && names.contains(WORK) {
        let problem =
            "the shards are not finished: give the command that makes them again, which goes on";
        return Err(no_set(folder.path(), problem));
    }
    let there: Vec<&String> = names.iter().filter(|name| name.ends_with(".tar")).collect();
    let expected: Vec<ShardEntry> = match &summary {
        Some(summary) => summary.shards.clone(),
        None => there
            .iter()
            .map(|name| ShardEntry {
                name: (*name).clone(),
                images: 0,
                bytes: 0,
                sha256: String::new(),
            })
            .collect(),
    };
    if expected.is_empty() && there.is_empty() {
        return Err(no_set(folder.path(), "holds no .tar shards"));
    }
    if summary.is_some() {
        let known: BTreeSet<&String> = expected.iter().map(|shard| &shard.name).collect();
        let strange = there.iter().filter(|name| !known.contains(*name));
        problems
            .extend(strange.map(|name| format!("{name}: a shard that {SUMMARY} does not name")));
    }
    let classes = classes(folder, summary.as_ref(), &mut problems)?;
    let images = summary.as_ref().map_or(0, |summary| summary.images);
    let channels = summary.as_ref().map_or(channels, |summary| summary.settings.channels);
    watcher.begin(images as u64, 0);

    let mut checked =
        Checked { shards: 0, images: 0, bytes: 0, problems, summary: summary.is_some() };
    let one = |number: usize| {
        let shard = Shard {
            folder,
            entry: &expected[number],
            compare: summary.is_some(),
            classes,
            channels,
            watcher,
        };
        shard.check(names.contains(&index_name(&expected[number].name)))
    };
    in_order(0..expected.len(), threads, one, |_, found: Found| {
        checked.shards += usize::from(found.there);
        checked.images += found.images;
        checked.bytes += found.bytes;
        checked.problems.extend(found.problems);
        Ok::<(), crate::Error>(())
    })?;
    Ok(checked)
}

fn index_name(shard: &str) -> String {
    ShardIndex::name_for(shard)
}

fn read_summary(folder: &Folder, problems: &mut Vec<String>) -> Result<Option<Summary>> {
    let Some(bytes) = folder.read(SUMMARY)? else { return Ok(None) };
    match serde_json::from_slice::<Summary>(&bytes) {
        Ok(summary) => {
            let images: usize = summary.shards.iter().map(|shard| shard.images).sum();
            if images != summary.images {
                problems.push(format!(
                    "{SUMMARY}: it says {} images, and its shards have {images}",
                    summary.images
                ));
            }
            Ok(Some(summary))
        }
        Err(error) => {
            problems.push(format!("{SUMMARY}: not a summary of shards: {error}"));
            Ok(None)
        }
    }
}

/// How many classes there are; none where it isn't known.
fn classes(
    folder: &Folder,
    summary: Option<&Summary>,
    problems: &mut Vec<String>,
) -> Result<Option<usize>> {
    let listed = folder.read(CLASSES)?.map(|text| text.split(|&b| b == b'\n').count() - 1);
    let said = summary.map(|summary| summary.classes);
    if let Some(said) = said.filter(|&said| said != listed.unwrap_or(0)) {
        let listed = listed.map_or("is not there".to_owned(), |count| format!("has {count}"));
        problems.push(format!("{CLASSES}: {listed}, and {SUMMARY} says {said} classes"));
    }
    Ok(listed.or(said))
}

/// A shard that is to be checked.
struct Shard<'a> {
    folder: &'a Folder,
    entry: &'a ShardEntry,
    /// Whether the entry says more than the name.
    compare: bool,
    classes: Option<usize>,
    channels: usize,
    watcher: &'a dyn Watcher,
}

/// What was found in a shard.
#[derive(Default)]
struct Found {
    there: bool,
    images: usize,
    bytes: u64,
    problems: Vec<String>,
}

impl Shard<'_> {
    fn check(&self, indexed: bool) -> Found {
        let mut found = Found::default();
        if let Err(problem) = self.read(indexed, &mut found) {
            found.problems.push(format!("{}: {problem}", self.entry.name));
        }
        found
    }

    /// Reads the shard from its start to its end.
    fn read(&self, indexed: bool, found: &mut Found) -> std::result::Result<(), String> {
        let (stream, length) =
            self.folder.stream(&self.entry.name).map_err(|error| match error {
                crate::Error::Io { source, .. } => source.to_string(),
                other => other.to_string(),
            })?;
        (found.there, found.bytes) = (true, length);
        let mut hashing = Hashing { from: stream, hash: Context::new(&SHA256) };
        let mut members = Vec::new();
        let walked = self.walk(&mut hashing, &mut members, found);
        let rest = io::copy(&mut hashing, &mut io::sink());
        rest.map_err(|e| e.to_string())?;
        let sha256 = hex(hashing.hash.finish().as_ref());
        if self.compare {
            let ShardEntry { images, bytes, sha256: expected, .. } = self.entry;
            if *bytes != length {
                found.problems.push(format!(
                    "{}: it has {length} bytes, and {SUMMARY} says {bytes}",
                    self.entry.name
                ));
            } else if sha256 != *expected {
                found.problems.push(format!(
                    "{}: its SHA-256 is {sha256}, and {SUMMARY} says {expected}: its bytes have changed",
                    self.entry.name
                ));
            }
            if walked.is_ok() && *images != found.images && found.problems.is_empty() {
                found.problems.push(format!(
                    "{}: it has {} images, and {SUMMARY} says {images}",
                    self.entry.name, found.images
                ));
            }
        }
        walked?;
        self.compare_index(indexed, members, found);
        Ok(())
    }

    /// Looks at every member.
    fn walk(
        &self,
        hashing: &mut impl Read,
        members: &mut Vec<Lies>,
        found: &mut Found,
    ) -> std::result::Result<(), String> {
        let broken = |e: io::Error| format!("not a whole tar archive: {e}");
        let mut archive = tar::Archive::new(hashing);
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let name = readable_bytes(&entry.path_bytes());
            let (offset, size) = (entry.raw_file_position(), entry.size());
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(broken)?;
            if bytes.len() as u64 != size {
                return Err(format!("it ends in the middle of its member {name}"));
            }
            let problem = if is_image_name(&name) {
                self.watcher.advance(1, size);
                let read = outcome(|| decode(&name, &bytes, self.channels).map(drop))
                    .unwrap_or_else(|error| Err(error.to_string()));
                found.images += usize::from(read.is_ok());
                read.err()
            } else if name.ends_with(".cls") {
                self.wrong_label(&bytes)
            } else {
                None
            };
            let at = &self.entry.name;
            found.problems.extend(problem.map(|problem| format!("{at}:{name}: {problem}")));
            members.push(Lies { name, offset, size });
        }
        Ok(())
    }

    fn wrong_label(&self, bytes: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(bytes);
        let classes = self.classes?;
        let number = text.trim().parse::<usize>().ok();
        let wrong = number.is_none_or(|number| number >= classes);
        wrong.then(|| {
            format!("{text:?} is no class: they have numbers from 0 to {}", classes.max(1) - 1)
        })
    }

    fn compare_index(&self, indexed: bool, members: Vec<Lies>, found: &mut Found) {
        let name = index_name(&self.entry.name);
        if !indexed {
            if self.compare {
                found.problems.push(format!("{name}: not there"));
            }
            return;
        }
        let problem = match (self.folder.read(&name), index_of(members)) {
            (Ok(Some(bytes)), Ok(index)) if bytes == index.as_bytes() => return,
            (Ok(_), Ok(_)) => format!("{name}: it is not the index of {}", self.entry.name),
            (Err(error), _) => error.to_string(),
            (Ok(_), Err(error)) => format!("{name}: {error}"),
        };
        found.problems.push(problem);
    }
}

/// Hashes what is read.
struct Hashing<R> {
    from: R,
    hash: Context,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
