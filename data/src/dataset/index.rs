//! From a listing and the members of its shards to a [`Dataset`], among several processes.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use storage::{Location, Object};

use super::super::peers::{Peers, share, share_first};
use super::archive::Scratch;
use super::cache::{Cache, Key};
use super::kind::Kind;
use super::listing::{Form, Listing, Request};
use super::names::Names;
use super::remote::{self, Objects, Opened, Remote};
use super::shard::{Content, Member, Scanned, Wanted, scan_all};
use super::stamp::Stamp;
use super::wire::{Reader, Writer};
use super::{ARRAY, Dataset, DatasetOptions, PICTURES, Place, Unpacked};
use crate::{Error, Result};

/// An opened data set.
pub(super) struct Indexed {
    pub dataset: Dataset,
    /// The class folders, if these were asked for.
    pub classes: Vec<OsString>,
    /// Of each shard, samples with their labels, if these were wanted.
    pub texts: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// The data set that `request` asks for.
///
/// The first process lists and tells the others; all of them read the shards' headers. Nothing
/// may return between one gather and the next that isn't the same for all of them: whoever
/// waits in a gather must not be left.
pub(super) fn open(
    request: Request,
    options: &DatasetOptions,
    cache: &Cache,
    peers: &dyn Peers,
    wanted: Wanted,
) -> Result<Indexed> {
    let at = check(request, options).and_then(|()| remote::location(request.path()));
    let is_remote = matches!(at, Ok(Some(_)));
    let (listed, remote) =
        match (at.map(|at| at.map(|_| open_remote(request, options))), peers.rank()) {
            (Err(error), _) => (Err(error), None),
            (Ok(Some(Err(error))), 0) => (Err(error), None),
            (Ok(remote), 0) => {
                let remote = remote.transpose()?;
                (list(request, options, cache, remote.as_ref(), wanted), remote.map(Ok))
            }
            (Ok(remote), _) => (Ok(Vec::new()), remote),
        };
    let listed = Listed::read(&mut Reader::new(&share_first(peers, listed)?));
    let Listed { form, listing, known } = listed.ok_or_else(foreign)?;
    let mut remote =
        remote.map(|remote| remote.and_then(|remote| ShardsInStore::new(remote, &listing)));
    if is_remote {
        // What fails on one machine, such as a cache's folder, must not leave the others waiting.
        let made = match remote.take() {
            Some(Err(error)) => Err(error),
            other => {
                remote = other;
                Ok(Vec::new())
            }
        };
        share(peers, made)?;
    }
    let remote = remote.transpose()?;
    let mut job = Job {
        path: request.path(),
        base: request.base(form),
        shards: listing.shards(),
        listing,
        options,
        cache,
        peers,
        scratch: Scratch::default(),
        remote,
        wanted,
        texts: Vec::new(),
    };
    let dataset = if options.own_shards { job.own()? } else { job.whole(known)? };
    Ok(Indexed { dataset, classes: job.listing.classes, texts: job.texts })
}

/// The store that `request` names.
fn open_remote(request: Request, options: &DatasetOptions) -> Result<Remote> {
    let base = request.base(request.form()).to_str().unwrap_or_default();
    if !Location::is_one(base) {
        let rule = "braces stand behind the bucket's name: a data set lies in one";
        return Err(Error::invalid("shard pattern", request.path().display(), rule));
    }
    let base = Location::parse(base)?.as_folder();
    Remote::open(base, &options.storage)
}

/// The shards of a listing of objects.
struct ShardsInStore {
    remote: Remote,
    /// None for one that is not there.
    shards: Vec<Option<Object>>,
}

impl ShardsInStore {
    fn new(remote: Remote, listing: &Listing) -> Result<Self> {
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
    fn known(&self, cache: &Cache, key: Option<&Key>, names: &[PathBuf]) -> Vec<Option<Scanned>> {
        let stamps: HashMap<&Path, Stamp> = names
            .iter()
            .zip(&self.shards)
            .filter_map(|(name, shard)| Some((name.as_path(), Stamp::of_object(shard.as_ref()?))))
            .collect();
        cache.members_as(key, names, |name| stamps.get(name).copied())
    }

    /// What the shards of these numbers hold.
    fn scan(&self, numbers: &[usize], wanted: Wanted) -> Result<Vec<Scanned>> {
        let there: Vec<Object> =
            numbers.iter().filter_map(|&number| self.shards[number].clone()).collect();
        let mut scanned = remote::scan_all(&self.remote, &there, wanted)?.into_iter();
        let of = |&number: &usize| match &self.shards[number] {
            Some(_) => scanned.next(),
            None => Some(Scanned::gone()),
        };
        Ok(numbers.iter().filter_map(of).collect())
    }
}

fn check(request: Request, options: &DatasetOptions) -> Result<()> {
    if options.channels == 0 {
        return Err(Error::invalid("channels", options.channels, "at least 1 is needed"));
    }
    if options.own_shards && matches!(request, Request::Classes(..)) {
        let rule = "images in class folders are read by all processes together";
        return Err(Error::invalid("own shards", true, rule));
    }
    Ok(())
}

/// What the first process tells the others.
struct Listed {
    form: Form,
    listing: Listing,
    /// Of each shard, what was kept of it; empty where every process takes shards of its own.
    known: Vec<Option<Scanned>>,
}

/// A [`Listed`], written.
fn list(
    request: Request,
    options: &DatasetOptions,
    cache: &Cache,
    remote: Option<&Remote>,
    wanted: Wanted,
) -> Result<Vec<u8>> {
    let (form, listing) = match (remote, remote::location(request.path())?) {
        (Some(remote), Some(at)) => remote::list(request, &at, remote, cache)?,
        _ => Listing::of(request, cache)?,
    };
    let mut to = Writer::default();
    form.write(&mut to);
    listing.write(&mut to);
    let shards = if options.own_shards { Vec::new() } else { listing.shards() };
    let base = request.base(form);
    let key = members_key(request.path(), base, None, wanted);
    let known = match remote {
        Some(remote) if !shards.is_empty() => {
            ShardsInStore::new(remote.clone(), &listing)?.known(cache, key.as_ref(), &shards)
        }
        _ => cache.members(key.as_ref(), base, &shards),
    };
    to.count(known.len());
    for known in &known {
        to.number(known.is_some().into());
        known.iter().for_each(|known| known.write(&mut to));
    }
    Ok(to.bytes)
}

impl Listed {
    fn read(from: &mut Reader) -> Option<Self> {
        let (form, listing) = (Form::read(from)?, Listing::read(from)?);
        let known = from.many(|from| match from.number()? {
            0 => Some(None),
            _ => Scanned::read(from).map(Some),
        })?;
        Some(Listed { form, listing, known })
    }
}

/// The name that members of shards are kept by: of all shards, or those of one of several
/// processes.
fn members_key(
    path: &Path,
    base: &Path,
    part: Option<(usize, usize)>,
    wanted: Wanted,
) -> Option<Key> {
    let what = match wanted {
        Wanted::Places => "members",
        Wanted::Labels => "members and labels",
    };
    let what = match part {
        None => what.to_owned(),
        Some((rank, size)) => format!("{what} {rank} of {size}"),
    };
    if let Some(url) = path.to_str().filter(|url| Location::is_one(url)) {
        return Some(Key::of_url(&what, url));
    }
    Key::new(&what, base, path.strip_prefix(base).unwrap_or(path))
}

fn foreign() -> Error {
    Error::Data(
        "another process sent a listing that can't be read; all of them must run the same build"
            .into(),
    )
}

/// A data set in the making.
struct Job<'a> {
    /// What the user asked for.
    path: &'a Path,
    base: &'a Path,
    listing: Listing,
    shards: Vec<PathBuf>,
    options: &'a DatasetOptions,
    cache: &'a Cache,
    peers: &'a dyn Peers,
    scratch: Scratch,
    /// Where the shards and images lie, if that is a store.
    remote: Option<ShardsInStore>,
    wanted: Wanted,
    /// Of each shard, samples with their labels.
    texts: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Job<'_> {
    /// All images, for every process; `known` is what is known of each shard.
    fn whole(&mut self, mut known: Vec<Option<Scanned>>) -> Result<Dataset> {
        known.resize(self.shards.len(), None);
        let missing: Vec<usize> =
            (0..known.len()).filter(|&shard| known[shard].is_none()).collect();
        if !missing.is_empty() {
            let begun = SystemTime::now();
            let (rank, size) = (self.peers.rank(), self.peers.size());
            let mine: Vec<usize> = missing.iter().copied().skip(rank).step_by(size).collect();
            let scanned = self.scan(&mine).map(|scanned| {
                let mut to = Writer::default();
                to.count(scanned.len());
                scanned.iter().for_each(|scanned| scanned.write(&mut to));
                to.bytes
            });
            // Everybody's parts, back in the order of the shards.
            for (rank, scanned) in share(self.peers, scanned)?.into_iter().enumerate() {
                let scanned =
                    Reader::new(&scanned).many(|f| Scanned::read(f)).ok_or_else(foreign)?;
                for (&shard, scanned) in missing.iter().skip(rank).step_by(size).zip(scanned) {
                    known[shard] = Some(scanned);
                }
            }
            if rank == 0 {
                let key = members_key(self.path, self.base, None, self.wanted);
                self.cache.keep_members(key.as_ref(), &self.shards, &known, begun);
            }
        }
        let known: Vec<Scanned> =
            known.into_iter().map(|known| known.ok_or_else(foreign)).collect::<Result<_>>()?;
        if known.iter().any(|scanned| scanned.compressed) {
            // Each process on its own machine's disk, which another's may be too small for.
            share(self.peers, self.unpack(&known).map(|()| Vec::new()))?;
        }
        let scanned = self.without_texts(known);
        let [first, second] = Kind::choices(self.options.channels);
        let any = self.listing.kinds.iter().any(|kind| first.contains(kind))
            || scanned.iter().flatten().any(|member| first.contains(&Kind::of(&member.name)));
        let mut dataset = self.take(if any { first } else { second }, scanned);
        if dataset.places.is_empty() {
            return Err(self.no_images(self.shards.len(), dataset.others));
        }
        (dataset.most, dataset.total) = (dataset.len(), dataset.len());
        Ok(dataset)
    }

    /// The images of this process's shards.
    fn own(&mut self) -> Result<Dataset> {
        let (rank, size) = (self.peers.rank(), self.peers.size());
        if let Some((name, _)) = self.listing.entries().find(|(_, kind)| *kind != Kind::Shard) {
            return Err(Error::Data(format!(
                "{}: {} is not in a .tar shard; where each process reads shards of its own, all \
                 images must be in shards",
                self.path.display(),
                name.display(),
            )));
        }
        let all = self.shards.len();
        if all < size {
            let rule = format!("each of the {size} processes needs one of its own");
            return Err(Error::invalid("number of .tar shards", all, rule));
        }
        self.shards =
            std::mem::take(&mut self.shards).into_iter().skip(rank).step_by(size).collect();
        let mut names = Names::default();
        self.shards.iter().for_each(|shard| names.push(shard.as_os_str().as_bytes()));
        self.listing.names = names;
        self.listing.kinds.truncate(self.shards.len());
        if let Some(remote) = &mut self.remote {
            let shards = std::mem::take(&mut remote.shards);
            remote.shards = shards.into_iter().skip(rank).step_by(size).collect();
        }

        let choices = Kind::choices(self.options.channels);
        let (sent, scanned) = match self.scan_own() {
            Ok(scanned) => {
                let members = || scanned.iter().flatten();
                let count = |taken: &[Kind]| members().filter(|m| m.is_one_of(taken)).count();
                let mut to = Writer::default();
                choices.iter().for_each(|taken| to.count(count(taken)));
                to.count(members().count());
                (Ok(to.bytes), scanned)
            }
            Err(error) => (Err(error), Vec::new()),
        };
        let counts: Vec<[usize; 3]> = share(self.peers, sent)?
            .iter()
            .map(|bytes| {
                let mut from = Reader::new(bytes);
                Some([from.count()?, from.count()?, from.count()?])
            })
            .collect::<Option<_>>()
            .ok_or_else(foreign)?;
        let choice = if counts.iter().any(|counts| counts[0] > 0) { 0 } else { 1 };
        let images = || counts.iter().map(|counts| counts[choice]);
        let (most, total) = (images().max().unwrap_or(0), images().sum());
        if total == 0 {
            let others = self.listing.others + counts.iter().map(|counts| counts[2]).sum::<usize>();
            return Err(self.no_images(all, others));
        }
        if let Some(rank) = images().position(|count| count == 0) {
            return Err(Error::Data(format!(
                "{}: none of the shards of process {rank} of {size} has images; it reads every \
                 {size}th of {all} shards",
                self.path.display(),
            )));
        }
        Ok(Dataset { most, total, ..self.take(choices[choice], scanned) })
    }

    /// The members of this process's shards.
    fn scan_own(&mut self) -> Result<Vec<Vec<Member>>> {
        let begun = SystemTime::now();
        let part = Some((self.peers.rank(), self.peers.size()));
        let key = members_key(self.path, self.base, part, self.wanted);
        let mut known = match &self.remote {
            Some(remote) => remote.known(self.cache, key.as_ref(), &self.shards),
            None => self.cache.members(key.as_ref(), self.base, &self.shards),
        };
        let missing: Vec<usize> =
            (0..known.len()).filter(|&shard| known[shard].is_none()).collect();
        for (&shard, scanned) in missing.iter().zip(self.scan(&missing)?) {
            known[shard] = Some(scanned);
        }
        if !missing.is_empty() {
            self.cache.keep_members(key.as_ref(), &self.shards, &known, begun);
        }
        let known: Vec<Scanned> = known.into_iter().flatten().collect();
        self.unpack(&known)?;
        Ok(self.without_texts(known))
    }

    /// What the shards of these numbers hold.
    fn scan(&self, numbers: &[usize]) -> Result<Vec<Scanned>> {
        if let Some(remote) = &self.remote {
            return remote.scan(numbers, self.wanted);
        }
        let paths: Vec<&PathBuf> = numbers.iter().map(|&shard| &self.shards[shard]).collect();
        scan_all(self.base, &paths, &self.scratch, self.wanted)
    }

    /// The members; the labels are put aside.
    fn without_texts(&mut self, scanned: Vec<Scanned>) -> Vec<Vec<Member>> {
        let (members, texts) = scanned.into_iter().map(|s| (s.members, s.texts)).unzip();
        self.texts = texts;
        members
    }

    /// Unpacks the compressed ones of this process's shards, as far as that is not done yet.
    fn unpack(&self, scanned: &[Scanned]) -> Result<()> {
        let shards = self.shards.iter().zip(scanned).filter(|(_, scanned)| scanned.compressed);
        shards
            .into_iter()
            .try_for_each(|(shard, _)| self.scratch.open(&self.base.join(shard)).map(|_| ()))
    }

    /// The data set of all that is of the kinds `taken`.
    fn take(&mut self, taken: &[Kind], scanned: Vec<Vec<Member>>) -> Dataset {
        let (mut names, mut places, mut files) = (Names::default(), Vec::new(), Objects::default());
        let mut others = self.listing.others;
        let mut scanned = (0u32..).zip(scanned);
        for (index, (name, kind)) in self.listing.entries().enumerate() {
            if kind == Kind::Shard {
                let (shard, members) = scanned.next().unwrap_or_default();
                let start = self.scratch.start_of(&self.base.join(name));
                for member in members {
                    let is_taken = member.is_one_of(taken);
                    let Member { name, content } = member;
                    if is_taken {
                        names.push(&name);
                        places.push(match (content, start) {
                            (Content::Missing(flaw), _) => Place::Missing { shard, flaw },
                            (Content::At { offset, size }, None) => {
                                Place::Member { shard, offset, size }
                            }
                            (Content::At { offset, size }, Some(start)) => {
                                Place::Unpacked { shard, offset: start + offset, size }
                            }
                        });
                    } else {
                        others += 1;
                    }
                }
            } else if taken.contains(&kind) {
                names.push(name.as_os_str().as_bytes());
                places.push(match &self.remote {
                    Some(_) => {
                        files.take(&self.listing.objects, index);
                        Place::Object { number: files.len() as u32 - 1 }
                    }
                    None => Place::File,
                });
            } else {
                others += 1;
            }
        }
        let (base, channels) = (self.base.to_owned(), self.options.channels);
        let (shards, reduced_decode) = (self.shards.clone(), self.options.reduced_decode);
        let (most, total) = (0, 0);
        let unpacked = Unpacked(self.scratch.file());
        let deep = self.options.deep;
        let remote = self.remote.take().map(|ShardsInStore { remote, shards }| {
            // One that is not there is never read.
            let gone = || Object {
                location: remote.base.clone(),
                size: 0,
                etag: None,
                modified: SystemTime::UNIX_EPOCH,
            };
            let shards = shards.into_iter().map(|shard| shard.unwrap_or_else(gone)).collect();
            Opened { remote, shards, files }
        });
        Dataset {
            base,
            channels,
            deep,
            reduced_decode,
            names,
            places,
            shards,
            unpacked,
            remote,
            others,
            most,
            total,
        }
    }

    fn no_images(&self, shards: usize, others: usize) -> Error {
        let channels = self.options.channels;
        let extensions = match channels {
            1 | 3 | 4 => format!(".{}, .{ARRAY}", PICTURES.join(", .")),
            _ => format!(".{ARRAY}, .tif, .tiff for {channels} channels"),
        };
        Error::Data(format!(
            "{}: no images found; looked for {extensions} at any depth and inside {shards} \
             .tar shards, where {others} other files are",
            self.path.display(),
        ))
    }
}
