//! The shards of a data set in a store.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use storage::{Location, Object};

use super::super::DatasetOptions;
use super::super::cache::{Cache, Key};
use super::super::kind::Kind;
use super::super::listing::{Listing, Request};
use super::super::shard::{Scanned, Wanted};
use super::super::stamp::Stamp;
use super::{Remote, scan_all};
use crate::{Error, Result};

impl Remote {
    /// The store that `request` names.
    ///
    /// # Errors
    /// [`Error::Invalid`] for braces in the bucket's name, [`Error::Storage`].
    pub(in super::super) fn of(request: Request, options: &DatasetOptions) -> Result<Self> {
        let base = request.base(request.form()).to_str().unwrap_or_default();
        if !Location::is_one(base) {
            let rule = "braces stand behind the bucket's name: a data set lies in one";
            return Err(Error::invalid("shard pattern", request.path().display(), rule));
        }
        let base = Location::parse(base)?.as_folder();
        Remote::open(base, &options.storage)
    }
}

/// The shards of a listing of objects.
pub(in super::super) struct ShardsInStore {
    pub(in super::super) remote: Remote,
    /// None for one that is not there.
    pub(in super::super) shards: Vec<Option<Object>>,
}

impl ShardsInStore {
    pub(in super::super) fn new(remote: Remote, listing: &Listing) -> Result<Self> {
        let shards = listing.entries().enumerate().filter(|(_, (_, kind))| *kind == Kind::Shard);
        let object = |(index, (name, _)): (usize, (&Path, Kind))| {
            let is_gone = listing.objects.is_gone(index);
            let object = || listing.objects.object(index, name, &remote.base);
            (!is_gone).then(object).transpose()
        };
        let shards = shards.map(object).collect::<Result<_>>()?;
        Ok(ShardsInStore { remote, shards })
    }

    /// For each shard, what was kept as `key` if it is as it was; `names` are the shards'.
    pub(in super::super) fn known(
        &self,
        cache: &Cache,
        key: Option<&Key>,
        names: &[PathBuf],
    ) -> Vec<Option<Scanned>> {
        let stamps: HashMap<&Path, Stamp> = names
            .iter()
            .zip(&self.shards)
            .filter_map(|(name, shard)| Some((name.as_path(), Stamp::of_object(shard.as_ref()?))))
            .collect();
        cache.members_as(key, names, |name| stamps.get(name).copied())
    }

    /// What the shards of these numbers hold.
    pub(in super::super) fn scan(&self, numbers: &[usize], wanted: Wanted) -> Result<Vec<Scanned>> {
        let there: Vec<Object> =
            numbers.iter().filter_map(|&number| self.shards[number].clone()).collect();
        let mut scanned = scan_all(&self.remote, &there, wanted)?.into_iter();
        let of = |&number: &usize| match &self.shards[number] {
            Some(_) => scanned.next(),
            None => Some(Scanned::gone()),
        };
        Ok(numbers.iter().filter_map(of).collect())
    }
}
