//! From a listing and the members of its shards to a [`Dataset`], among several processes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use storage::Location;
use words::counted;

use super::super::peers::{Peers, share, share_first};
use super::cache::{Cache, Key};
use super::kind::Kind;
use super::listing::{Form, Listing, Request};
use super::names::Names;
use super::remote::{self, Objects, Remote};
use super::shard::{Member, Scanned, Wanted};
use super::shards::Shards;
use super::wire::{Reader, Writer};
use super::{ARRAY, Dataset, DatasetOptions, PICTURES, Place};
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
    let mut remote = match &at {
        Ok(Some(_)) => Some(Remote::of(request, options)),
        _ => None,
    };
    let is_remote = remote.is_some();
    let listed = at.and_then(|_| match peers.rank() {
        0 => list(request, options, cache, take_error(&mut remote)?, wanted),
        _ => Ok(Vec::new()),
    });
    let listed = Listed::read(&mut Reader::new(&share_first(peers, listed)?));
    let Listed { form, listing, known } = listed.ok_or_else(foreign)?;
    let base = request.base(form);
    let mut shards = Some(remote.transpose().and_then(|r| Shards::new(base, &listing, r)));
    if is_remote {
        // What fails on one machine, such as a cache's folder, must not leave the others waiting.
        share(peers, take_error(&mut shards).map(|_| Vec::new()))?;
    }
    let Some(shards) = shards.transpose()? else { return Err(foreign()) };
    let wanted = needed(wanted, &listing);
    let path = request.path();
    let job = Job { path, base, listing, shards, options, cache, peers, wanted, texts: Vec::new() };
    if options.own_shards { job.own() } else { job.whole(known) }
}

/// What was made, if anything was to be; the error, if there is one, is taken out.
fn take_error<T>(made: &mut Option<Result<T>>) -> Result<Option<&T>> {
    match made.take_if(|made| made.is_err()) {
        Some(Err(error)) => Err(error),
        _ => Ok(made.as_ref().and_then(|made| made.as_ref().ok())),
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
    let base = request.base(form);
    let known = match options.own_shards {
        true => Vec::new(),
        false => {
            let key = members_key(request.path(), base, None, needed(wanted, &listing));
            Shards::new(base, &listing, remote.cloned())?.known(cache, key.as_ref())
        }
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

/// What is wanted of shards: those in class folders have the folders' classes.
fn needed(wanted: Wanted, listing: &Listing) -> Wanted {
    if listing.classes.is_empty() { wanted } else { Wanted::Places }
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
    shards: Shards<'a>,
    options: &'a DatasetOptions,
    cache: &'a Cache,
    peers: &'a dyn Peers,
    wanted: Wanted,
    /// Of each shard, samples with their labels.
    texts: Vec<Vec<(Vec<u8>, Vec<u8>)>>,
}

impl Job<'_> {
    /// All images, for every process; `known` is what is known of each shard.
    fn whole(mut self, mut known: Vec<Option<Scanned>>) -> Result<Indexed> {
        known.resize(self.shards.names.len(), None);
        let missing: Vec<usize> =
            (0..known.len()).filter(|&shard| known[shard].is_none()).collect();
        if !missing.is_empty() {
            let begun = SystemTime::now();
            let (rank, size) = (self.peers.rank(), self.peers.size());
            let mine: Vec<usize> = missing.iter().copied().skip(rank).step_by(size).collect();
            let scanned = self.shards.scan(&mine, self.wanted).map(|scanned| {
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
                self.cache.keep_members(key.as_ref(), &self.shards.names, &known, begun);
            }
        }
        let known: Vec<Scanned> =
            known.into_iter().map(|known| known.ok_or_else(foreign)).collect::<Result<_>>()?;
        if known.iter().any(|scanned| scanned.compressed) {
            // Each process on its own machine's disk, which another's may be too small for.
            share(self.peers, self.shards.unpack(&known).map(|()| Vec::new()))?;
        }
        let scanned = self.without_texts(known);
        let [first, second] = Kind::choices(self.options.channels);
        let any = self.listing.kinds.iter().any(|kind| first.contains(kind))
            || scanned.iter().flatten().any(|member| first.contains(&Kind::of(&member.name)));
        let (path, shards) = (self.path, self.shards.names.len());
        let mut indexed = self.take(if any { first } else { second }, scanned);
        let dataset = &mut indexed.dataset;
        if dataset.places.is_empty() {
            return Err(no_images(path, dataset.channels, shards, dataset.others));
        }
        (dataset.most, dataset.total) = (dataset.len(), dataset.len());
        Ok(indexed)
    }

    /// The images of this process's shards.
    fn own(mut self) -> Result<Indexed> {
        let (rank, size) = (self.peers.rank(), self.peers.size());
        if let Some((name, _)) = self.listing.entries().find(|(_, kind)| *kind != Kind::Shard) {
            return Err(Error::Data(format!(
                "{}: {} is not in a .tar shard; where each process reads shards of its own, all \
                 images must be in shards",
                self.path.display(),
                name.display(),
            )));
        }
        let all = self.shards.names.len();
        if all < size {
            let rule = format!("each of the {size} processes needs one of its own");
            return Err(Error::invalid("number of .tar shards", all, rule));
        }
        self.shards.keep_part(rank, size);
        let mut names = Names::default();
        self.shards.names.iter().for_each(|shard| names.push(shard.as_os_str().as_bytes()));
        self.listing.names = names;
        self.listing.kinds.truncate(self.shards.names.len());

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
            return Err(no_images(self.path, self.options.channels, all, others));
        }
        if let Some(rank) = images().position(|count| count == 0) {
            return Err(Error::Data(format!(
                "{}: none of the shards of process {rank} of {size} has images; it reads every \
                 {size}th of {all} shards",
                self.path.display(),
            )));
        }
        let mut indexed = self.take(choices[choice], scanned);
        (indexed.dataset.most, indexed.dataset.total) = (most, total);
        Ok(indexed)
    }

    /// The members of this process's shards.
    fn scan_own(&mut self) -> Result<Vec<Vec<Member>>> {
        let begun = SystemTime::now();
        let part = Some((self.peers.rank(), self.peers.size()));
        let key = members_key(self.path, self.base, part, self.wanted);
        let mut known = self.shards.known(self.cache, key.as_ref());
        let missing: Vec<usize> =
            (0..known.len()).filter(|&shard| known[shard].is_none()).collect();
        for (&shard, scanned) in missing.iter().zip(self.shards.scan(&missing, self.wanted)?) {
            known[shard] = Some(scanned);
        }
        if !missing.is_empty() {
            self.cache.keep_members(key.as_ref(), &self.shards.names, &known, begun);
        }
        let known: Vec<Scanned> = known.into_iter().flatten().collect();
        self.shards.unpack(&known)?;
        Ok(self.without_texts(known))
    }

    /// The members; the labels are put aside.
    fn without_texts(&mut self, scanned: Vec<Scanned>) -> Vec<Vec<Member>> {
        let (members, texts) = scanned.into_iter().map(|s| (s.members, s.texts)).unzip();
        self.texts = texts;
        members
    }

    /// The data set of all that is of the kinds `taken`.
    fn take(self, taken: &[Kind], scanned: Vec<Vec<Member>>) -> Indexed {
        let Job { listing, shards, options, .. } = self;
        let (mut names, mut places, mut files) = (Names::default(), Vec::new(), Objects::default());
        let mut others = listing.others;
        let mut scanned = (0u32..).zip(scanned);
        for (index, (name, kind)) in listing.entries().enumerate() {
            if kind == Kind::Shard {
                let (shard, members) = scanned.next().unwrap_or_default();
                let place = shards.places(shard);
                for member in members {
                    if member.is_one_of(taken) {
                        names.push(&member.name);
                        places.push(place(member.content));
                    } else {
                        others += 1;
                    }
                }
            } else if taken.contains(&kind) {
                names.push(name.as_os_str().as_bytes());
                places.push(match shards.are_stored() {
                    true => {
                        files.take(&listing.objects, index);
                        Place::Object { number: files.len() as u32 - 1 }
                    }
                    false => Place::File,
                });
            } else {
                others += 1;
            }
        }
        let (shards, unpacked, remote) = shards.into_parts(files);
        let dataset = Dataset {
            base: self.base.to_owned(),
            channels: options.channels,
            deep: options.deep,
            reduced_decode: options.reduced_decode,
            names,
            places,
            shards,
            unpacked,
            remote,
            others,
            most: 0,
            total: 0,
        };
        Indexed { dataset, classes: listing.classes, texts: self.texts }
    }
}

fn no_images(path: &Path, channels: usize, shards: usize, others: usize) -> Error {
    let extensions = match channels {
        1 | 3 | 4 => format!(".{}, .{ARRAY}", PICTURES.join(", .")),
        _ => format!(".{ARRAY}, .tif, .tiff for {channels} channels"),
    };
    Error::Data(format!(
        "{}: no images found; looked for {extensions} at any depth and inside {}, beside {}",
        path.display(),
        counted(shards, ".tar shard"),
        counted(others, "other file"),
    ))
}
