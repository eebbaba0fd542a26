//! Where the members of a tar archive lie.

use std::cell::Cell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::archive::{self, Archive, Scratch};
use super::kind::{Kind, is_hidden};
use super::parallel::in_parallel;
use super::stamp::Stamp;
use super::wire::{Reader, Writer};
use super::{labels, remote};
use crate::names::readable_bytes;
use crate::{Error, Result};

/// A file in a tar archive.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Member {
    /// Its path in the archive.
    pub name: Vec<u8>,
    pub content: Content,
}

impl Member {
    /// Whether it is of one of these kinds; what stands for a whole archive that is not there is
    /// of all.
    pub(super) fn is_one_of(&self, kinds: &[Kind]) -> bool {
        self.content == Content::Missing(Flaw::Gone) || kinds.contains(&Kind::of(&self.name))
    }
}

/// A member's bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Content {
    /// In one piece of the (unpacked) archive, of which `offset` is the first.
    At {
        offset: u64,
        size: u64,
    },
    Missing(Flaw),
}

/// Why a member can't be read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Flaw {
    /// A link to nothing in the archive.
    Link,
    /// A file with holes.
    Sparse,
    /// The archive itself is not there.
    Gone,
}

impl Flaw {
    pub(super) fn problem(self) -> &'static str {
        match self {
            Flaw::Link => "a link to a file that the archive has not",
            Flaw::Gone => "the shard is not there: there is no such object",
            Flaw::Sparse => "packed with holes (tar --sparse), which is not read; pack it without",
        }
    }
}

/// What an archive's headers say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scanned {
    /// The archive's, from before its headers were read.
    pub stamp: Stamp,
    /// Whether it must be unpacked.
    pub compressed: bool,
    /// Hidden ones are left out.
    pub members: Vec<Member>,
    /// Samples and their labels as they are written, if these were wanted.
    pub texts: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is to be found in an archive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wanted {
    /// Where members lie.
    Places,
    /// Also the labels of samples, which are members too.
    Labels,
}

impl Scanned {
    /// Of an archive that is not there: what is told of like a file that can't be read.
    pub(super) fn gone() -> Self {
        let member = Member { name: Vec::new(), content: Content::Missing(Flaw::Gone) };
        let stamp = Stamp::default();
        Scanned { stamp, compressed: false, members: vec![member], texts: Vec::new() }
    }

    pub(super) fn write(&self, to: &mut Writer) {
        self.stamp.write(to);
        to.number(self.compressed.into());
        to.count(self.members.len());
        for Member { name, content } in &self.members {
            to.text(name);
            match *content {
                Content::At { offset, size } => [0, offset, size].map(|number| to.number(number)),
                Content::Missing(Flaw::Link) => [1, 0, 0].map(|number| to.number(number)),
                Content::Missing(Flaw::Sparse) => [2, 0, 0].map(|number| to.number(number)),
                Content::Missing(Flaw::Gone) => [3, 0, 0].map(|number| to.number(number)),
            };
        }
        to.count(self.texts.len());
        for (sample, label) in &self.texts {
            to.text(sample);
            to.text(label);
        }
    }

    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let stamp = Stamp::read(from)?;
        let compressed = from.number()? == 1;
        let members = from.many(|from| {
            let name = from.text()?.to_owned();
            let content = match [from.number()?, from.number()?, from.number()?] {
                [0, offset, size] => Content::At { offset, size },
                [1, ..] => Content::Missing(Flaw::Link),
                [2, ..] => Content::Missing(Flaw::Sparse),
                [3, ..] => Content::Missing(Flaw::Gone),
                _ => return None,
            };
            Some(Member { name, content })
        })?;
        let text = |from: &mut Reader| Some((from.text()?.to_owned(), from.text()?.to_owned()));
        let texts = from.many(text)?;
        Some(Scanned { stamp, compressed, members, texts })
    }
}

/// What every one of `shards` in `base` holds.
///
/// # Errors
/// As [`scan`], of the first that has one.
pub(super) fn scan_all(
    base: &Path,
    shards: &[&PathBuf],
    scratch: &Scratch,
    wanted: Wanted,
) -> Result<Vec<Scanned>> {
    let of_shard = |shard: &&PathBuf| {
        let path = base.join(shard);
        scan(&path, &scratch.open(&path)?, wanted)
    };
    in_parallel(shards, of_shard).into_iter().collect()
}

/// Reads the headers of the archive `opened`, which lies at `path`, seeking over the contents.
///
/// # Errors
/// [`Error::Io`] when it can't be read, [`Error::Data`] when it isn't a whole tar archive.
pub(super) fn scan(path: &Path, opened: &Archive, wanted: Wanted) -> Result<Scanned> {
    let broken = |e: std::io::Error| remote::failed(&path.display().to_string(), e);
    let allowed = Cell::new(0);
    let mut archive = tar::Archive::new(archive::Reader::new(opened, &allowed));
    let (mut entries, mut texts) = (Vec::new(), Vec::new());
    for entry in archive.entries_with_seek().map_err(broken)? {
        archive::Reader::renew(&allowed);
        let mut entry = entry.map_err(broken)?;
        let (offset, size) = (entry.raw_file_position(), entry.size());
        let mut name = entry.path_bytes().into_owned();
        let kind = entry.header().entry_type();
        let mut holds = match () {
            () if kind.is_file() || kind.is_contiguous() => Holds::File { offset, size },
            () if kind.is_gnu_sparse() => Holds::Sparse,
            () if kind.is_hard_link() || kind.is_symlink() => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                Holds::Link { target, hard: kind.is_hard_link() }
            }
            () => continue,
        };
        for extension in entry.pax_extensions().map_err(broken)?.into_iter().flatten().flatten() {
            if extension.key_bytes().starts_with(b"GNU.sparse.") {
                holds = Holds::Sparse;
            }
            if extension.key_bytes() == b"GNU.sparse.name" {
                name = extension.value_bytes().to_owned();
            }
        }
        let is_cut = matches!(holds, Holds::File { .. })
            && offset.checked_add(size).is_none_or(|end| end > opened.length);
        if is_cut {
            return Err(Error::Data(format!(
                "{}: truncated: its member {} of {size} bytes starts at {offset}, but the archive \
                 has {} bytes; fetch it again",
                path.display(),
                readable_bytes(&name),
                opened.length,
            )));
        }
        if wanted == Wanted::Labels
            && matches!(holds, Holds::File { .. })
            && !is_hidden(&name)
            && let Some(label) = labels::of_member(path, &name, size, &mut entry)?
        {
            texts.push((labels::sample(&name).to_owned(), label));
        }
        entries.push(Entry { name, holds });
    }
    let members = members(entries);
    Ok(Scanned { stamp: opened.stamp, compressed: opened.unpacked, members, texts })
}

/// A file or link of an archive.
struct Entry {
    name: Vec<u8>,
    holds: Holds,
}

enum Holds {
    File { offset: u64, size: u64 },
    Sparse,
    Link { target: Vec<u8>, hard: bool },
}

/// Files, and links that are called like images, with the content of what they lead to.
fn members(entries: Vec<Entry>) -> Vec<Member> {
    let is_wanted = |entry: &Entry| {
        let is_link = matches!(entry.holds, Holds::Link { .. });
        !is_hidden(&entry.name) && (!is_link || Kind::of(&entry.name) != Kind::Other)
    };
    let any_link = entries.iter().any(|e| is_wanted(e) && matches!(e.holds, Holds::Link { .. }));
    let places = if any_link { places(&entries) } else { HashMap::new() };
    let contents: Vec<Option<Content>> = (0..entries.len())
        .map(|number| is_wanted(&entries[number]).then(|| follow(&entries, &places, number)))
        .collect();
    let members = entries.into_iter().zip(contents);
    members
        .filter_map(|(entry, content)| Some(Member { name: entry.name, content: content? }))
        .collect()
}

/// Numbers of the entries, in their order, by name.
fn places(entries: &[Entry]) -> HashMap<Vec<u8>, Vec<usize>> {
    let mut places: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
    for (number, entry) in entries.iter().enumerate() {
        places.entry(plain(&entry.name)).or_default().push(number);
    }
    places
}

/// The content of entry `number`, links followed as Python's `tarfile` does: a hard link leads to
/// what came before it, a symbolic one, from its own folder, to anything in the archive; of
/// several of one name to the last.
fn follow(entries: &[Entry], places: &HashMap<Vec<u8>, Vec<usize>>, number: usize) -> Content {
    /// More links in a row than Linux follows.
    const MOST: usize = 40;
    let mut number = Some(number);
    for _ in 0..=MOST {
        let Some(Entry { name, holds }) = number.map(|number| &entries[number]) else { break };
        let (target, hard) = match holds {
            Holds::File { offset, size } => return Content::At { offset: *offset, size: *size },
            Holds::Sparse => return Content::Missing(Flaw::Sparse),
            Holds::Link { target, hard } => (target, hard),
        };
        let folder = name.iter().rposition(|&b| b == b'/').map_or(&[][..], |slash| &name[..slash]);
        let target = match hard {
            true => plain(target),
            false => plain(&[folder, target].join(&b'/')),
        };
        let named = places.get(&target).map_or(&[][..], Vec::as_slice);
        let before = number.filter(|_| *hard).unwrap_or(usize::MAX);
        number = named.iter().rev().copied().find(|&found| found < before);
    }
    Content::Missing(Flaw::Link)
}

/// A path without `.`, `..` and doubled slashes.
fn plain(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}
