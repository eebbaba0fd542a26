//! From images to a finished set of shards.

use std::fs::{File, TryLockError};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use storage::{IndexedMember, ShardIndex};

use super::folder::{Draft, Folder};
use super::names::Keys;
use super::ordered::in_order;
use super::picture::Picture;
use super::record::{Begun, Record, ShardEntry, ShardSettings, Summary};
use super::tarball::{Lies, Member, Tarball};
use super::{CLASSES, Pictures, SUMMARY, UNREADABLE, Watcher, json, no_set, shard_names};
use crate::corrupt::CorruptFiles;
use crate::names::one_line;
use crate::{Error, Result};

/// The folder in an unfinished set that says what is done.
pub(super) const WORK: &str = ".making";
const BEGUN: &str = "begun.json";
const LOCK: &str = "lock";

/// What [`make`] did.
#[derive(Debug)]
pub struct Made {
    /// Of the set.
    pub summary: Summary,
    /// Images that an earlier process had done.
    pub resumed: usize,
}

/// Makes shards of `pictures` in `folder` on so many threads, or goes on where an earlier process
/// was stopped. A finished set is left as it is. Of the files a share of `max_corrupt` may be
/// unreadable; they are left out and listed.
///
/// # Errors
/// [`Error::Invalid`] for settings out of range, [`Error::Data`] when the folder holds something
/// else, or shards of other settings or images, or when too many files can't be read; [`Error::Io`].
/// Shards that are finished stay, and the next call goes on from there.
pub fn make(
    pictures: &Pictures,
    folder: &Folder,
    settings: &ShardSettings,
    max_corrupt: f64,
    threads: usize,
    watcher: &dyn Watcher,
) -> Result<Made> {
    settings.check()?;
    let settings = ShardSettings { labels: pictures.labels.is_some(), ..settings.clone() };
    let begun = Begun { settings, listed: pictures.listed() };
    if let Some(summary) = finished(folder, &begun)? {
        return Ok(Made { resumed: summary.listed.images, summary });
    }
    let work = folder.folder(WORK)?;
    begin(folder, &work, &begun)?;
    let _lock = lock(&work)?;
    let records = done(folder, &work, &begun.settings.prefix)?;

    let corrupt = CorruptFiles::new(pictures.len(), max_corrupt);
    for (index, name, reason) in records.iter().flat_map(|record| &record.unreadable) {
        corrupt.add(*index, name.clone(), reason.clone())?;
    }
    let resumed = records.last().map_or(0, |record| record.next);
    watcher.begin(pictures.len() as u64, resumed as u64);
    let job = Job {
        pictures,
        keys: pictures.keys(),
        settings: &begun.settings,
        folder,
        work: &work,
        corrupt: &corrupt,
        watcher,
    };
    let records = job.run(records, threads)?;
    finish(pictures, folder, begun, &corrupt, &records).map(|summary| Made { summary, resumed })
}

/// The summary of the set in `folder`, if it is finished.
fn finished(folder: &Folder, begun: &Begun) -> Result<Option<Summary>> {
    let Some(bytes) = folder.read(SUMMARY)? else { return Ok(None) };
    let at = folder.at(SUMMARY);
    let summary: Summary = serde_json::from_slice(&bytes).map_err(|e| {
        no_set(&at, &format!("not a summary of shards: {e}; choose another output"))
    })?;
    let there = Begun { settings: summary.settings.clone(), listed: summary.listed.clone() };
    same(folder, &there, begun)?;
    Ok(Some(summary))
}

/// That what is there was begun as what is to be made.
fn same(folder: &Folder, there: &Begun, here: &Begun) -> Result<()> {
    let mut differing = there.settings.differences(&here.settings);
    if differing.is_empty() && there.listed != here.listed {
        let (there, here) = (there.listed.images, here.listed.images);
        differing.push(match there == here {
            true => format!("the names or classes of the {here} images"),
            false => format!("the number of images ({there} there, {here} here)"),
        });
    }
    if differing.is_empty() {
        return Ok(());
    }
    let problem = format!(
        "holds shards that differ in {}; name another output, or remove it",
        differing.join(", ")
    );
    Err(no_set(folder.path(), &problem))
}

/// Makes the folder, and notes what is begun or sees that it is the same.
fn begin(folder: &Folder, work: &Folder, begun: &Begun) -> Result<()> {
    match work.read(BEGUN)? {
        Some(bytes) => {
            let there: Begun = serde_json::from_slice(&bytes).map_err(|e| {
                no_set(
                    &work.at(BEGUN),
                    &format!("can't be read ({e}); remove {}", folder.path().display()),
                )
            })?;
            same(folder, &there, begun)?;
        }
        None => {
            let others: Vec<String> =
                folder.names()?.into_iter().filter(|name| name != WORK).collect();
            if let Some(first) = others.first() {
                let problem = format!(
                    "holds {} and is no set of shards; name another output, a folder that is empty \
                     or not there",
                    crate::names::quoted(first)
                );
                return Err(no_set(folder.path(), &problem));
            }
        }
    }
    folder.prepare()?;
    work.prepare()?;
    work.write(BEGUN, &json(begun))
}

/// Keeps other processes from making the same; a store has no locks.
fn lock(work: &Folder) -> Result<Option<File>> {
    if !work.is_local() {
        return Ok(None);
    }
    let path = work.at(LOCK);
    let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
    match file.try_lock() {
        // Where a file system has no locks nothing can be done about it.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            Err(no_set(work.path(), "another process makes these shards; wait for it"))
        }
    }
}

fn record_name(number: usize) -> String {
    format!("{number:06}.json")
}

/// The records of the shards that are finished. Anything of later ones is removed.
fn done(folder: &Folder, work: &Folder, prefix: &str) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Some(bytes) = work.read(&record_name(records.len()))? {
        match serde_json::from_slice(&bytes) {
            Ok(record) => records.push(record),
            Err(_) => break,
        }
    }
    let (kept, _) = shard_names(prefix, records.len());
    let is_later = |name: &str| {
        let ours = name.ends_with(".tar") || name.ends_with(".idx");
        ours && name.split('.').next() >= kept.split('.').next()
    };
    for name in folder.names()?.iter().filter(|name| is_later(name)) {
        folder.remove(name)?;
    }
    Ok(records)
}

/// What is common to all shards.
struct Job<'a> {
    pictures: &'a Pictures,
    keys: Keys,
    settings: &'a ShardSettings,
    folder: &'a Folder,
    work: &'a Folder,
    corrupt: &'a CorruptFiles,
    watcher: &'a dyn Watcher,
}

/// Of a file that can be used, or why it can't be.
type Unread<T> = std::result::Result<T, String>;

/// One image's members, and whether it was made smaller.
struct Sample {
    members: Vec<Member>,
    resized: bool,
}

/// A shard that is being filled.
struct Open {
    tarball: Tarball,
    draft: Draft,
    images: usize,
    resized: usize,
}

/// A shard that is to get its name.
struct Closed {
    draft: Draft,
    index: String,
    record: Record,
}

impl Job<'_> {
    /// Makes the shards that `records` lacks, and gives the records of all.
    fn run(&self, mut records: Vec<Record>, threads: usize) -> Result<Vec<Record>> {
        let order = self.pictures.order(self.settings);
        let start = records.last().map_or(0, |record| record.next);
        let first = records.len();
        // A shard reaches the disk while the next is being filled.
        let (send, closed) = sync_channel(1);
        let (filled, published) = std::thread::scope(|scope| {
            let publisher = scope.spawn(move || self.publish_all(first, &closed));
            let mut filling =
                Filling { job: self, open: None, number: first, unreadable: Vec::new(), send };
            let work = |position: usize| self.sample(order[position]);
            let filled = in_order(start..order.len(), threads, work, |position, sample| {
                filling.take(position, order[position], sample)
            });
            let filled = filled.and_then(|()| filling.close(order.len()));
            drop(filling);
            (filled, publisher.join())
        });
        let (published, outcome) =
            published.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // What went wrong with the disk is why the filling stopped.
        outcome?;
        filled?;
        records.extend(published);
        Ok(records)
    }

    /// The members of image `index`, or why there are none.
    fn sample(&self, index: usize) -> Result<Unread<Sample>> {
        let ShardSettings { max_side, quality, .. } = *self.settings;
        let picture = match Picture::read(&self.pictures.images, index, max_side, quality)? {
            Ok(picture) => picture,
            Err(reason) => return Ok(Err(reason)),
        };
        let (key, extension) = self.keys.key(index, &self.pictures.images.name(index));
        let resized = picture.extension.is_some();
        let extension = picture.extension.unwrap_or(&extension);
        let mut members = vec![Member { name: format!("{key}.{extension}"), bytes: picture.bytes }];
        if let Some(labels) = &self.pictures.labels {
            let bytes = labels.label(index).to_string().into_bytes();
            members.push(Member { name: format!("{key}.cls"), bytes });
        }
        Ok(Ok(Sample { members, resized }))
    }

    /// Gives shards their names as they come, the first of which is number `first`.
    fn publish_all(&self, first: usize, closed: &Receiver<Closed>) -> (Vec<Record>, Result<()>) {
        let mut records = Vec::new();
        for (Closed { draft, index, record }, number) in closed.iter().zip(first..) {
            let (shard, index_name) = shard_names(&self.settings.prefix, number);
            let publish = || {
                self.folder.publish(draft, &shard)?;
                self.folder.write(&index_name, index.as_bytes())?;
                self.work.write(&record_name(number), &json(&record))
            };
            if let Err(error) = publish() {
                return (records, Err(error));
            }
            records.push(record);
        }
        (records, Ok(()))
    }
}

/// Shards being filled, one after the other.
struct Filling<'a> {
    job: &'a Job<'a>,
    open: Option<Open>,
    number: usize,
    /// Since the last shard was closed.
    unreadable: Vec<(usize, String, String)>,
    send: SyncSender<Closed>,
}

impl Filling<'_> {
    /// Takes what became of image `index`, which stands at `position` of the order.
    fn take(
        &mut self,
        position: usize,
        index: usize,
        sample: Result<Unread<Sample>>,
    ) -> Result<()> {
        let job = self.job;
        let sample = match sample? {
            Ok(sample) => sample,
            Err(reason) => {
                let name = job.pictures.images.name(index);
                job.corrupt.add(index, name.clone(), reason.clone())?;
                self.unreadable.push((index, name, reason));
                job.watcher.advance(1, 0);
                return Ok(());
            }
        };
        let fits = |open: &Open| open.tarball.length_with(&sample.members) <= job.settings.size.0;
        if !self.open.as_ref().is_none_or(fits) {
            self.close(position)?;
        }
        let (shard, _) = shard_names(&job.settings.prefix, self.number);
        let open = match &mut self.open {
            Some(open) => open,
            empty => {
                let (draft, file) = job.folder.draft(&shard)?;
                let tarball = Tarball::new(file);
                empty.insert(Open { tarball, draft, images: 0, resized: 0 })
            }
        };
        for member in &sample.members {
            open.tarball.add(member).map_err(|e| Folder::failed(&open.draft, e))?;
        }
        open.images += 1;
        open.resized += usize::from(sample.resized);
        let bytes = sample.members.iter().map(|member| member.bytes.len() as u64).sum();
        job.watcher.advance(1, bytes);
        Ok(())
    }

    /// Ends the open shard, if there is one: all images before `next` of the order are done.
    fn close(&mut self, next: usize) -> Result<()> {
        let Some(Open { tarball, draft, images, resized }) = self.open.take() else {
            return Ok(());
        };
        let (name, _) = shard_names(&self.job.settings.prefix, self.number);
        let failed = |e| Folder::failed(&draft, e);
        let (members, bytes, sha256) = tarball.finish().map_err(failed)?;
        let index = index_of(members)?;
        let unreadable = std::mem::take(&mut self.unreadable);
        let entry = ShardEntry { name, images, bytes, sha256 };
        let record = Record { entry, resized, next, unreadable };
        self.number += 1;
        // If nobody takes it, the error is told by who should have.
        let stopped = |_| Error::Data("writing the shards was stopped".into());
        self.send.send(Closed { draft, index, record }).map_err(stopped)
    }
}

/// The text of a shard's index.
pub(super) fn index_of(members: Vec<Lies>) -> Result<String> {
    let members =
        members.into_iter().map(|Lies { name, offset, size }| IndexedMember { name, offset, size });
    let index = ShardIndex { members: members.collect() };
    index.write().map_err(|error| Error::Data(error.to_string()))
}

/// Writes the lists and the summary, and removes what is of no use any more.
fn finish(
    pictures: &Pictures,
    folder: &Folder,
    begun: Begun,
    corrupt: &CorruptFiles,
    records: &[Record],
) -> Result<Summary> {
    let classes = pictures.classes().unwrap_or_default();
    if !classes.is_empty() {
        let lines: String = classes.iter().map(|class| one_line(class) + "\n").collect();
        folder.write(CLASSES, lines.as_bytes())?;
    }
    if !corrupt.is_empty() {
        let line = |(name, why): (String, String)| format!("{}\t{why}\n", one_line(&name));
        let lines: String = corrupt.report().into_iter().map(line).collect();
        folder.write(UNREADABLE, lines.as_bytes())?;
    }
    let summary = Summary::of(begun, classes.len(), corrupt.len(), records);
    folder.write(SUMMARY, &json(&summary))?;
    folder.folder(WORK)?.remove_all()?;
    Ok(summary)
}
