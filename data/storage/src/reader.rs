//! Reading pieces of many objects, by way of a cache if there is one.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::cache::{BLOCK, Cache};
use crate::{Object, Pending, Result, Storage};

/// Pieces that are fetched at a time: 5,000 a second of a store that answers after 50 ms.
const AT_A_TIME: u32 = 256;
/// Of larger pieces than this there are fewer, so that together they never hold more than 128 MiB.
const SHARE: u64 = 512 << 10;

/// Reads pieces of objects, several at a time.
#[derive(Debug, Clone)]
pub struct Reader {
    storage: Storage,
    cache: Option<Arc<Cache>>,
    permits: Arc<Semaphore>,
}

impl Reader {
    /// A good number of bytes to read at a time of what is read whole; a cache's own.
    pub const PIECE: u64 = BLOCK;

    /// Reads by way of `storage`. With `cache`, a folder and a number of bytes, what was read is
    /// kept there, shared by all processes of this machine, and taken again as long as the object
    /// is the same; without, nothing is written.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) for too small a cache,
    /// [`Error::Io`](crate::Error::Io) for a folder that can't be written.
    pub fn new(storage: Storage, cache: Option<(&Path, u64)>) -> Result<Self> {
        let cache = cache.map(|(folder, size)| Cache::open(folder, size)).transpose()?;
        let permits = Arc::new(Semaphore::new(AT_A_TIME as usize));
        Ok(Reader { storage, cache: cache.map(Arc::new), permits })
    }

    /// What it reads by.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Begins to read bytes of an object; errors are those of [`Storage::read`].
    pub fn start_read(&self, object: &Object, range: Range<u64>) -> Pending<Bytes> {
        let (cache, permits, read) =
            (self.cache.clone(), Arc::clone(&self.permits), object.clone());
        // By way of a cache a whole block may be fetched.
        let least = if cache.is_some() { BLOCK } else { 0 };
        let shares = shares(range.end.saturating_sub(range.start).max(least));
        self.storage.start(&object.location, move |core| async move {
            // Those that wait have not begun, so that the time they may take has not either.
            let _permit = permits.acquire_many(shares).await;
            match cache {
                Some(cache) => cache.read(&core, &read, range).await,
                None => core.read(&read, range).await,
            }
        })
    }

    /// As [`Reader::start_read`], at once.
    ///
    /// # Errors
    /// Those of [`Storage::read`].
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes> {
        self.start_read(object, range).wait()
    }
}

/// How many of [`AT_A_TIME`] a piece counts as.
fn shares(bytes: u64) -> u32 {
    bytes.div_ceil(SHARE).clamp(1, AT_A_TIME.into()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pieces_count_as_several() {
        let counted = [0, 1, SHARE, SHARE + 1, BLOCK, u64::MAX].map(shares);
        assert_eq!(counted, [1, 1, 1, 2, 4, AT_A_TIME]);
    }
}
