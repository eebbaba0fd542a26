//! The shards of a data set: files of this machine, or objects in a store.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use storage::Object;

use super::archive::Scratch;
use super::cache::{Cache, Key};
use super::listing::Listing;
use super::remote::{Objects, Opened, Remote, ShardsInStore};
use super::shard::{Content, Scanned, Wanted, scan_all};
use super::{Place, Unpacked};
use crate::Result;

/// Shards by number.
pub(super) struct Shards<'a> {
    /// What their names are relative to.
    base: &'a Path,
    pub names: Vec<PathBuf>,
    source: Source,
}

/// Where they lie.
enum Source {
    /// On this machine; compressed ones are unpacked here.
    Files(Scratch),
    Store(ShardsInStore),
}

impl<'a> Shards<'a> {
    /// Those of `listing`, in a store if there is one.
    pub(super) fn new(base: &'a Path, listing: &Listing, remote: Option<Remote>) -> Result<Self> {
        let source = match remote {
            None => Source::Files(Scratch::default()),
            Some(remote) => Source::Store(ShardsInStore::new(remote, listing)?),
        };
        Ok(Shards { base, names: listing.shards(), source })
    }

    /// Whether images that lie in no shard are objects too.
    pub(super) fn are_stored(&self) -> bool {
        matches!(self.source, Source::Store(_))
    }

    /// Only every `size`th, from number `rank` on.
    pub(super) fn keep_part(&mut self, rank: usize, size: usize) {
        fn part<T>(all: &mut Vec<T>, rank: usize, size: usize) {
            *all = std::mem::take(all).into_iter().skip(rank).step_by(size).collect();
        }
        part(&mut self.names, rank, size);
        if let Source::Store(stored) = &mut self.source {
            part(&mut stored.shards, rank, size);
        }
    }

    /// For each of them, what was kept as `key` if it is as it was.
    pub(super) fn known(&self, cache: &Cache, key: Option<&Key>) -> Vec<Option<Scanned>> {
        match &self.source {
            Source::Files(_) => cache.members(key, self.base, &self.names),
            Source::Store(stored) => stored.known(cache, key, &self.names),
        }
    }

    /// What those of these numbers hold.
    pub(super) fn scan(&self, numbers: &[usize], wanted: Wanted) -> Result<Vec<Scanned>> {
        match &self.source {
            Source::Files(scratch) => {
                let names: Vec<&PathBuf> =
                    numbers.iter().map(|&shard| &self.names[shard]).collect();
                scan_all(self.base, &names, scratch, wanted)
            }
            Source::Store(stored) => stored.scan(numbers, wanted),
        }
    }

    /// Unpacks the compressed ones, as far as that is not done yet: in a store there are none.
    pub(super) fn unpack(&self, scanned: &[Scanned]) -> Result<()> {
        let Source::Files(scratch) = &self.source else { return Ok(()) };
        let compressed = self.names.iter().zip(scanned).filter(|(_, scanned)| scanned.compressed);
        compressed
            .into_iter()
            .try_for_each(|(name, _)| scratch.open(&self.base.join(name)).map(|_| ()))
    }

    /// Where the members of a shard lie, as their contents say.
    pub(super) fn places(&self, shard: u32) -> impl Fn(Content) -> Place + use<> {
        let start = match &self.source {
            Source::Files(scratch) => {
                scratch.start_of(&self.base.join(&self.names[shard as usize]))
            }
            Source::Store(_) => None,
        };
        move |content| match (content, start) {
            (Content::Missing(flaw), _) => Place::Missing { shard, flaw },
            (Content::At { offset, size }, None) => Place::Member { shard, offset, size },
            (Content::At { offset, size }, Some(start)) => {
                Place::Unpacked { shard, offset: start + offset, size }
            }
        }
    }

    /// What they are read from, and with them the images `files`, which are objects of their own.
    pub(super) fn into_parts(self, files: Objects) -> (Vec<PathBuf>, Unpacked, Option<Opened>) {
        match self.source {
            Source::Files(scratch) => (self.names, Unpacked(scratch.file()), None),
            Source::Store(ShardsInStore { remote, shards }) => {
                // One that is not there is never read.
                let gone = || Object {
                    location: remote.base.clone(),
                    size: 0,
                    etag: None,
                    modified: SystemTime::UNIX_EPOCH,
                };
                let shards = shards.into_iter().map(|shard| shard.unwrap_or_else(gone)).collect();
                (self.names, Unpacked(None), Some(Opened { remote, shards, files }))
            }
        }
    }
}
