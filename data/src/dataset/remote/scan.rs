//! What shards in a store hold.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage::{Object, ShardIndex};

use super::super::archive::{Archive, Format};
use super::super::kind::is_hidden;
use super::super::parallel::on_threads;
use super::super::shard::{Content, Member, Scanned, Wanted, scan};
use super::super::stamp::Stamp;
use super::{HEADER, ObjectArchive, Remote, is_header_of};
use crate::{Error, Result};

/// Shards at a time: each is some answers of the store, one after another.
const AT_A_TIME: usize = 32;
/// How often it is told how far it is: where there are no indexes, it takes its time.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// Longest index that is read, in bytes.
const MOST_INDEX: u64 = 1 << 30;

/// What each of `shards` holds.
///
/// # Errors
/// Of the first that can't be read or is no tar archive.
pub(in super::super) fn scan_all(
    remote: &Remote,
    shards: &[Object],
    wanted: Wanted,
) -> Result<Vec<Scanned>> {
    let told = Mutex::new((0, Instant::now()));
    let one = |shard: &Object| {
        let scanned = of_shard(remote, shard, wanted);
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        told.0 += 1;
        if told.1.elapsed() >= TELL_EVERY {
            told.1 = Instant::now();
            let (done, all) = (told.0, shards.len());
            tracing::warn!("{}: what shards hold is read, {done} of {all}", remote.base);
        }
        scanned
    };
    on_threads(AT_A_TIME, shards, one).into_iter().collect()
}

/// By the index beside the shard, or by its headers: then all of it is read.
fn of_shard(remote: &Remote, shard: &Object, wanted: Wanted) -> Result<Scanned> {
    // Labels are in members, of which an index knows the places alone.
    if wanted == Wanted::Places
        && let Some(scanned) = of_index(remote, shard)?
    {
        return Ok(scanned);
    }
    let shown = shard.location.to_string();
    let objects = ObjectArchive::new(remote.reader.clone(), shard.clone());
    let mut start = [0; 512];
    let read = objects.read_at(&mut start, 0).map_err(|e| failed(&shown, e))?;
    let format = Format::of(&start[..read]);
    format.refuse_packed(Path::new(&shown))?;
    if let Format::Compressed(by) = format {
        return Err(Error::Data(format!(
            "{shown}: compressed by {}, and members of a compressed archive in a store can't be \
             read alone; unpack it once (`{} < IN > OUT.tar`) and store that",
            by.name(),
            by.command(),
        )));
    }
    let archive = Archive::of_object(objects, shard.size, Stamp::of_object(shard));
    scan(Path::new(&shown), &archive, wanted)
}

/// What a reader of an archive says: of the store, if the reading failed, or of the archive.
pub(in super::super) fn failed(shown: &str, error: io::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<storage::Error>() {
            return error.clone().into();
        }
        // The source of such an error is that of what is in it.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    Error::Data(format!("{shown}: not a readable tar archive: {error}"))
}

/// Whether a header can be that of the member `name`; a longer name than it has room for stands
/// before it.
fn may_be_called(header: &[u8; HEADER as usize], name: &[u8]) -> bool {
    const ROOM: usize = 100;
    name.len() >= ROOM || tar::Header::from_byte_slice(header).path_bytes().as_ref() == name
}

/// What the index beside `shard` says; none if there is none that can be used.
fn of_index(remote: &Remote, shard: &Object) -> Result<Option<Scanned>> {
    let storage = remote.reader.storage();
    let name = ShardIndex::name_for(shard.location.file_name());
    let at = shard.location.parent().join(&name)?;
    let index = match storage.head(&at) {
        Ok(object) if object.size <= MOST_INDEX => storage.read_all(&at)?.1,
        Ok(_) => return Ok(None),
        // Whoever may read shards may not be allowed to learn what else is there.
        Err(storage::Error::NotFound { .. } | storage::Error::Denied { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = String::from_utf8_lossy(&index);
    let index = match ShardIndex::parse(&at, &text, shard.size) {
        Ok(index) => index,
        Err(error) => {
            tracing::warn!("{error}; the shard is read instead");
            return Ok(None);
        }
    };
    if let Some(last) = index.members.last() {
        let header = remote.reader.read(shard, last.offset - HEADER..last.offset)?;
        let is_there = header.first_chunk().is_some_and(|header| {
            is_header_of(header, last.size) && may_be_called(header, last.name.as_bytes())
        });
        if !is_there {
            tracing::warn!(
                "{at}: its last member, {}, does not lie where it says; the shard is read instead: \
                 make the index again",
                last.name,
            );
            return Ok(None);
        }
    }
    let members = index.members.into_iter().map(|member| Member {
        name: member.name.into_bytes(),
        content: Content::At { offset: member.offset, size: member.size },
    });
    let members = members.filter(|member| !is_hidden(&member.name)).collect();
    let stamp = Stamp::of_object(shard);
    Ok(Some(Scanned { stamp, compressed: false, members, texts: Vec::new() }))
}
