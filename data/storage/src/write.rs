//! Writing and removing objects: whole or not at all.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::{ObjectStoreExt, PutPayload};

use crate::connect::Store;
use crate::retry::Failure;
use crate::storage::Core;
use crate::{Error, Location, Result, Storage};

/// Largest object that is written by one request, and least size of a part of a larger one.
const PART: u64 = 16 << 20;
/// Most parts that an object may have, with room below S3's 10 000.
const MOST_PARTS: u64 = 9_000;
/// Parts of one object on their way at a time.
const AT_A_TIME: usize = 4;

/// What is to be written.
#[derive(Clone)]
enum Content {
    Bytes(Bytes),
    File { file: Arc<File>, path: Arc<FilePath>, size: u64 },
}

impl Storage {
    /// Writes an object, replacing one of that name. It is there whole, once this returns, or not
    /// at all: large ones are written in parts and put together by the store.
    ///
    /// # Errors
    /// Any; what was there before is there still.
    pub fn put(&self, at: &Location, bytes: impl Into<Bytes>) -> Result<()> {
        self.write(at, Content::Bytes(bytes.into()), |_| {})
    }

    /// As [`Storage::put`], of a file's content, which must not change meanwhile; `done` is told
    /// of bytes as they are written.
    ///
    /// # Errors
    /// As [`Storage::put`], and [`Error::Io`] for the file.
    pub fn put_file(
        &self,
        at: &Location,
        path: &FilePath,
        done: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<()> {
        let file = File::open(path).map_err(Error::io(path))?;
        let size = file.metadata().map_err(Error::io(path))?.len();
        self.write(at, Content::File { file: Arc::new(file), path: path.into(), size }, done)
    }

    /// Removes an object; it is no error if there is none.
    ///
    /// # Errors
    /// Any other.
    pub fn delete(&self, at: &Location) -> Result<()> {
        let location = at.clone();
        let delete = self.start(at, |core| async move {
            let at = &location;
            let once = |store: Store| async move { Ok(store.objects.delete(at.path()).await?) };
            match core.tried(at, "removing it", once).await {
                Err(error) if error.is_not_found() => Ok(()),
                other => other,
            }
        });
        delete.wait()
    }

    fn write(
        &self,
        at: &Location,
        content: Content,
        done: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<()> {
        let location = at.clone();
        let written =
            self.start(at, |core| async move { core.write(&location, &content, &done).await });
        written.wait()
    }
}

impl Core {
    async fn write(
        &self,
        at: &Location,
        content: &Content,
        done: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        if at.key().is_empty() {
            let rule = "it names no object: a name must follow the bucket's";
            return Err(Error::invalid("location", at, rule));
        }
        let size = content.size();
        let store = self.store(at)?;
        match store.parts {
            Some(parts) if size > PART => self.write_parts(at, content, parts, done).await,
            // A web server takes files in one piece.
            _ => {
                let whole = content.part(0, size).await?;
                let once = |store: Store| {
                    let whole = PutPayload::from(whole.clone());
                    async move { Ok(store.objects.put(at.path(), whole).await.map(drop)?) }
                };
                self.tried(at, "writing it", once).await?;
                done(size);
                Ok(())
            }
        }
    }

    async fn write_parts(
        &self,
        at: &Location,
        content: &Content,
        parts: Arc<dyn MultipartStore>,
        done: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<()> {
        let parts = &parts;
        let before = self.content_at(at).await?;
        let begin = |_: Store| async move { Ok(parts.create_multipart(at.path()).await?) };
        let id = &self.tried(at, "beginning to write it", begin).await?;
        let size = content.size();
        let length = PART.max(size.div_ceil(MOST_PARTS));
        let pieces =
            (0..size).step_by(length as usize).enumerate().map(|(number, from)| async move {
                let bytes = content.part(from, size.min(from + length)).await?;
                let count = bytes.len() as u64;
                let what = format!("writing part {} of {}", number + 1, size.div_ceil(length));
                let once = |_: Store| {
                    let payload = PutPayload::from(bytes.clone());
                    async move { Ok(parts.put_part(at.path(), id, number, payload).await?) }
                };
                let part = self.tried(at, &what, once).await?;
                done(count);
                Ok(part)
            });
        let written: Result<Vec<PartId>> =
            stream::iter(pieces).buffered(AT_A_TIME).try_collect().await;
        let ended = match written {
            Ok(ids) => self.complete(at, (size, before), parts, id, ids).await,
            Err(error) => Err(error),
        };
        if ended.is_err() {
            // The first error is the one to tell of.
            let abort = |_: Store| async move { Ok(parts.abort_multipart(at.path(), id).await?) };
            if let Err(error) = self.tried(at, "giving up its parts", abort).await {
                tracing::warn!("{error}; its parts stay in the store until it removes them");
            }
        }
        ended
    }

    /// The size and ETag of what lies at `at` now, if anything does.
    async fn content_at(&self, at: &Location) -> Result<Option<(u64, Option<String>)>> {
        let look = |store: Store| async move {
            let meta = store.objects.head(at.path()).await?;
            Ok((meta.size, meta.e_tag))
        };
        match self.tried(at, "looking at what is there", look).await {
            Ok(content) => Ok(Some(content)),
            // Who may write may not be allowed to read.
            Err(Error::NotFound { .. } | Error::Denied { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the store put the parts together, `size` bytes in place of what was there `before`.
    async fn complete(
        &self,
        at: &Location,
        (size, before): (u64, Option<(u64, Option<String>)>),
        parts: &Arc<dyn MultipartStore>,
        id: &String,
        ids: Vec<PartId>,
    ) -> Result<()> {
        let ids = &ids;
        let tries = &AtomicU32::new(0);
        let once = |_: Store| async move {
            tries.fetch_add(1, Ordering::Relaxed);
            let completed = parts.complete_multipart(at.path(), id, ids.clone()).await;
            completed.map(drop).map_err(Failure::Store)
        };
        let Err(error) = self.tried(at, "putting its parts together", once).await else {
            return Ok(());
        };
        // A try whose answer was lost may have done it, or be at it still; stores then say that
        // there are no such parts, each in its way.
        let end = Instant::now() + self.settings.limit;
        while tries.load(Ordering::Relaxed) > 1 && Instant::now() < end {
            match self.content_at(at).await {
                Ok(now @ Some((length, _))) if length == size && now != before => return Ok(()),
                _ => tokio::time::sleep(Duration::from_secs(1).min(self.settings.limit / 4)).await,
            }
        }
        Err(error)
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }

    /// Bytes `from..to` of it.
    async fn part(&self, from: u64, to: u64) -> Result<Bytes> {
        match self.clone() {
            Content::Bytes(bytes) => Ok(bytes.slice(from as usize..to as usize)),
            Content::File { file, path, .. } => {
                let failed = Error::io(&path);
                let read = tokio::task::spawn_blocking(move || {
                    let mut bytes = vec![0; (to - from) as usize];
                    file.read_exact_at(&mut bytes, from).map(|()| bytes)
                });
                let read = read.await.unwrap_or_else(|e| Err(std::io::Error::other(e)));
                read.map(Bytes::from).map_err(failed)
            }
        }
    }
}
