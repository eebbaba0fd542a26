//! Pieces of objects, kept on this machine's disk.
//!
//! Objects are kept in blocks, a file each, whose names come from the object's location, its
//! version and the block's number. A file is written under another name and renamed, and holds
//! what it is of and checksums: what is found is whole and of that very version, whoever wrote it
//! and however that ended. Processes share the folder by that, and by a lock on the count of its
//! bytes.

mod block;
mod room;

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use self::block::Key;
use self::room::Room;
use crate::storage::Core;
use crate::{Error, Object, Result};

/// Bytes of a block: a request's worth, for which the way there and back matters little.
pub(crate) const BLOCK: u64 = 2 << 20;
/// The least that a cache may hold.
const LEAST: u64 = 32 * BLOCK;

/// A folder that keeps blocks of objects.
pub(crate) struct Cache {
    folder: PathBuf,
    room: Arc<Room>,
    /// Blocks that are being fetched, so that one process fetches each once.
    fetching: Mutex<HashMap<PathBuf, Weak<tokio::sync::Mutex<()>>>>,
}

impl Cache {
    /// At most `size` bytes in `folder`, which is made if it is not there.
    pub(crate) fn open(folder: &Path, size: u64) -> Result<Self> {
        if size < LEAST {
            let rule = format!("a cache needs at least {} MB", LEAST / 1_000_000);
            return Err(Error::invalid("size of the cache", format!("{size} bytes"), rule));
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let room = Arc::new(Room::open(folder, size).map_err(Error::io(folder))?);
        Ok(Cache { folder: folder.to_owned(), room, fetching: Mutex::default() })
    }

    /// Bytes `range` of `object`, from the blocks that are kept, which are fetched if need be.
    pub(crate) async fn read(
        &self,
        core: &Core,
        object: &Object,
        range: Range<u64>,
    ) -> Result<Bytes> {
        if range.is_empty() || range.end > object.size {
            return core.read(object, range).await;
        }
        let mut pieces = Vec::new();
        for number in range.start / BLOCK..=(range.end - 1) / BLOCK {
            let block = number * BLOCK..object.size.min((number + 1) * BLOCK);
            let wanted = range.start.max(block.start)..range.end.min(block.end);
            match self.piece(core, object, number, block, wanted).await? {
                Some(piece) => pieces.push(piece),
                // There is no room for more: no more is read than is asked for.
                None => return core.read(object, range).await,
            }
        }
        match <[Bytes; 1]>::try_from(pieces) {
            Ok([only]) => Ok(only),
            Err(pieces) => Ok(pieces.concat().into()),
        }
    }

    /// What is `wanted` of a block; none if it is not kept, and can't be.
    async fn piece(
        &self,
        core: &Core,
        object: &Object,
        number: u64,
        block: Range<u64>,
        wanted: Range<u64>,
    ) -> Result<Option<Bytes>> {
        let key = Arc::new(Key::new(object, number));
        let path = self.folder.join(key.path());
        let within = (wanted.start - block.start) as usize..(wanted.end - block.start) as usize;
        let look = || {
            let (key, path, within) = (Arc::clone(&key), path.clone(), within.clone());
            async move { spawn_blocking(move || key.load(&path, within)).await.ok().flatten() }
        };
        if let Some(piece) = look().await {
            return Ok(Some(piece.into()));
        }
        if self.room.is_full() {
            return Ok(None);
        }
        let fetching = self.fetching(&path);
        let _fetching = fetching.lock().await;
        if let Some(piece) = look().await {
            return Ok(Some(piece.into()));
        }
        let bytes = core.read(object, block).await?;
        let (kept, room) = (bytes.clone(), Arc::clone(&self.room));
        let stored = spawn_blocking(move || {
            if room.take(key.length(kept.len()))? {
                key.store(&path, &kept)?;
            }
            std::io::Result::Ok(())
        });
        if let Ok(Err(error)) = stored.await {
            self.room.give_up(&self.folder, &error);
        }
        Ok(Some(bytes.slice(within)))
    }

    /// The lock of whoever fetches the block at `path`.
    fn fetching(&self, path: &Path) -> Arc<tokio::sync::Mutex<()>> {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = fetching.get(path).and_then(Weak::upgrade) {
            return lock;
        }
        fetching.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        fetching.insert(path.to_owned(), Arc::downgrade(&lock));
        lock
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("folder", &self.folder).finish_non_exhaustive()
    }
}
