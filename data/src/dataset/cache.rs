//! Listings and members of shards, kept for the next time.
//!
//! Both lie in one folder, in a file each data set: walking a million files or reading the headers
//! of a thousand shards takes minutes where each goes over a network.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::evidence::Evidence;
use super::listing::Listing;
use super::parallel::in_parallel;
use super::shard::Scanned;
use super::stamp::Stamp;
use super::wire::{Reader, Writer};
use super::{DatasetOptions, walk::within};
use crate::atomic::write_file;
use crate::user_cache::user_cache_in;

/// Start of every file; its number changes with the format.
const MAGIC: &[u8] = b"spark-backbone listing 3\n";

/// What is kept where, and for what.
pub(super) struct Cache {
    /// None: nothing is kept.
    pub folder: Option<PathBuf>,
    /// Whether what was kept is to be made anew.
    pub relist: bool,
    /// Entries that a listing must have to be kept: few are listed as fast as looked up.
    pub least: usize,
    /// Members that shards must have together for these to be kept.
    pub least_members: usize,
    /// What changed less than this before it was looked at is not kept.
    pub age: Duration,
}

/// The name of something kept.
pub(super) struct Key(Vec<u8>);

impl Key {
    /// Of `what` is known of `rest` in the folder `base`, which may be empty for the working
    /// folder; none if that can't be reached.
    pub(super) fn new(what: &str, base: &Path, rest: &Path) -> Option<Self> {
        let base = fs::canonicalize(within(Path::new("."), base)).ok()?;
        let parts = [what.as_bytes(), base.as_os_str().as_bytes(), rest.as_os_str().as_bytes()];
        Some(Key(parts.join(&0)))
    }

    /// Of `what` is known of a location in a store.
    pub(super) fn of_url(what: &str, url: &str) -> Self {
        Key([what.as_bytes(), url.as_bytes()].join(&0))
    }
}

impl Cache {
    pub(super) fn of(options: &DatasetOptions) -> Self {
        Cache {
            folder: options.listings.clone(),
            relist: options.relist,
            least: 10_000,
            least_members: 1_000,
            // The coarsest clock of a file system, FAT's.
            age: Duration::from_secs(2),
        }
    }

    /// The listing kept as `key`, if another of `base` would find the same.
    pub(super) fn listing(&self, key: Option<&Key>, base: &Path) -> Option<Listing> {
        let (evidence, listing) =
            self.load(key, |from| Some((Evidence::read(from)?, Listing::read(from)?)))?;
        let holds = evidence.holds(base);
        let holding = if holds { "taken" } else { "out of date" };
        tracing::debug!("{}: the listing that was kept is {holding}", base.display());
        holds.then_some(listing)
    }

    /// Keeps `listing`, which was begun at `begun` and rests on `evidence`, if that is worth it.
    pub(super) fn keep_listing(
        &self,
        key: Option<&Key>,
        listing: &Listing,
        evidence: &Evidence,
        begun: SystemTime,
    ) {
        let entries = listing.names.len() + listing.others + evidence.folders();
        if entries >= self.least && evidence.is_settled(begun, self.age) {
            self.store(key, |to| {
                evidence.write(to);
                listing.write(to);
            });
        }
    }

    /// The listing of objects kept as `key`, and when it was made.
    pub(super) fn objects(&self, key: &Key) -> Option<(SystemTime, Listing)> {
        self.load(Some(key), |from| {
            let made = SystemTime::UNIX_EPOCH + Duration::from_secs(from.number()?);
            Some((made, Listing::read(from)?))
        })
    }

    /// Keeps a listing of objects: nothing tells whether another would find the same, so that it
    /// is taken until it is to be made anew.
    pub(super) fn keep_objects(&self, key: &Key, listing: &Listing) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.store(Some(key), |to| {
            to.number(now.as_secs());
            listing.write(to);
        });
    }

    /// For each of `shards` of `base`, what was kept as `key` if it is as it was.
    pub(super) fn members(
        &self,
        key: Option<&Key>,
        base: &Path,
        shards: &[PathBuf],
    ) -> Vec<Option<Scanned>> {
        let now = |shard: &Path| fs::metadata(base.join(shard)).map(|now| Stamp::of(&now)).ok();
        self.members_as(key, shards, now)
    }

    /// For each of `shards`, what was kept as `key` if its stamp is what it is `now`.
    pub(super) fn members_as(
        &self,
        key: Option<&Key>,
        shards: &[PathBuf],
        now: impl Fn(&Path) -> Option<Stamp> + Sync,
    ) -> Vec<Option<Scanned>> {
        let entry = |from: &mut Reader| Some((from.text()?.to_owned(), Scanned::read(from)?));
        let kept = self.load(key, |from| from.many(entry)).unwrap_or_default();
        let kept: HashMap<Vec<u8>, Scanned> = kept.into_iter().collect();
        // A list may name a shard twice.
        let known: Vec<Option<Scanned>> =
            shards.iter().map(|shard| kept.get(shard.as_os_str().as_bytes()).cloned()).collect();
        let known: Vec<_> = shards.iter().zip(known).collect();
        let holds = in_parallel(&known, |(shard, scanned)| {
            scanned.as_ref().is_some_and(|scanned| now(shard) == Some(scanned.stamp))
        });
        known.into_iter().zip(holds).map(|((_, known), holds)| known.filter(|_| holds)).collect()
    }

    /// Keeps the members of those `shards` that are known, whose reading was begun at `begun`.
    pub(super) fn keep_members(
        &self,
        key: Option<&Key>,
        shards: &[PathBuf],
        known: &[Option<Scanned>],
        begun: SystemTime,
    ) {
        let settled: Vec<_> = shards
            .iter()
            .zip(known)
            .filter_map(|(shard, known)| Some((shard, known.as_ref()?)))
            .filter(|(_, scanned)| scanned.stamp.is_settled(begun, self.age))
            .collect();
        let members: usize = settled.iter().map(|(_, scanned)| scanned.members.len()).sum();
        // Reading them again would be to read the whole objects.
        let of_objects = settled.iter().any(|(_, scanned)| scanned.stamp.is_of_object());
        if members < self.least_members && !of_objects {
            return;
        }
        self.store(key, |to| {
            to.count(settled.len());
            for (shard, scanned) in settled {
                to.text(shard.as_os_str().as_bytes());
                scanned.write(to);
            }
        });
    }

    fn path(&self, key: &Key) -> Option<PathBuf> {
        let mut hasher = DefaultHasher::new();
        hasher.write(&key.0);
        Some(self.folder.as_ref()?.join(format!("{:016x}.bin", hasher.finish())))
    }

    fn load<T>(&self, key: Option<&Key>, read: impl FnOnce(&mut Reader) -> Option<T>) -> Option<T> {
        let key = key.filter(|_| !self.relist)?;
        let path = self.path(key)?;
        let bytes = fs::read(&path).ok()?;
        let content = content(&bytes, key).and_then(|mut from| {
            let content = read(&mut from)?;
            from.is_empty().then_some(content)
        });
        if content.is_none() {
            tracing::debug!("{}: damaged, or of something else; ignored", path.display());
        }
        content
    }

    fn store(&self, key: Option<&Key>, write: impl FnOnce(&mut Writer)) {
        let Some((key, path)) = key.and_then(|key| Some((key, self.path(key)?))) else { return };
        let mut to = Writer { bytes: MAGIC.to_vec() };
        to.text(&key.0);
        write(&mut to);
        let mut bytes = to.bytes;
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        if let Some(folder) = path.parent()
            && let Err(e) = fs::create_dir_all(folder)
        {
            tracing::debug!("{}: {e}; no listing is kept", folder.display());
            return;
        }
        if let Err(e) = write_file(&path, &bytes) {
            tracing::debug!("{e}; no listing is kept");
        }
    }
}

/// What follows the key in the file `bytes`; none unless all of it is as it was written for `key`.
fn content<'a>(bytes: &'a [u8], key: &Key) -> Option<Reader<'a>> {
    let (bytes, sum) = bytes.split_last_chunk()?;
    let mut from = Reader::new(bytes.strip_prefix(MAGIC)?);
    let is_whole = crc32c::crc32c(bytes) == u32::from_le_bytes(*sum);
    (is_whole && from.text()? == key.0).then_some(from)
}

/// `spark-backbone/listings` in the user's cache folder, which these two variables name; none
/// if neither does.
pub(super) fn listings_in(
    xdg_cache_home: Option<OsString>,
    home: Option<OsString>,
) -> Option<PathBuf> {
    Some(user_cache_in(xdg_cache_home, home)?.join("listings"))
}
