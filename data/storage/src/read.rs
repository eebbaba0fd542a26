//! Looking at objects, reading and listing them.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path as FilePath;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStoreExt};

use crate::retry::Failure;
use crate::storage::Core;
use crate::{Error, Location, Pending, Result, Scheme, Storage};

/// Bytes that one request reads of a large object: as many as take longer than the way there and
/// back, few enough to be had again.
const PART: u64 = 8 << 20;
/// Requests for parts of one object at a time.
const AT_A_TIME: usize = 4;

/// An object as it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Where it lies.
    pub location: Location,
    /// In bytes.
    pub size: u64,
    /// What the store calls this content, if it says; another content has another.
    pub etag: Option<String>,
    /// When it was written.
    pub modified: SystemTime,
}

impl Object {
    fn new(location: Location, meta: &ObjectMeta) -> Self {
        let nanos = meta.last_modified.timestamp_nanos_opt().and_then(|n| u64::try_from(n).ok());
        let modified = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos.unwrap_or(0));
        Object { location, size: meta.size, etag: meta.e_tag.clone(), modified }
    }

    /// What tells this content from another of the same name: the ETag, or where the store has
    /// none the time and size.
    pub fn version(&self) -> String {
        let since = self.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.etag.clone().unwrap_or_else(|| format!("{}-{}", since.as_nanos(), self.size))
    }

    /// What differs between this object and what was read as it, if anything does.
    fn difference(&self, read: &ObjectMeta) -> Option<String> {
        let other = Object::new(self.location.clone(), read);
        if self.version() == other.version() && self.size == other.size {
            return None;
        }
        Some(format!(
            "it has changed: it had {} bytes and version {}, and now has {} bytes and version {}",
            self.size,
            self.version(),
            other.size,
            other.version(),
        ))
    }

    /// The condition that the store itself is to check. A weak tag matches nothing by HTTP's
    /// rules, and web servers differ.
    fn condition(&self) -> Option<String> {
        let is_strong = |tag: &String| !tag.starts_with("W/");
        self.etag.clone().filter(is_strong).filter(|_| self.location.scheme() != Scheme::Http)
    }
}

impl Storage {
    /// Looks at an object.
    ///
    /// # Errors
    /// [`Error::NotFound`] and the others.
    pub fn head(&self, at: &Location) -> Result<Object> {
        self.start_head(at).wait()
    }

    /// Begins to look at an object.
    pub fn start_head(&self, at: &Location) -> Pending<Object> {
        let location = at.clone();
        self.start(at, |core| async move { core.head(&location).await })
    }

    /// Whether there is such an object.
    ///
    /// # Errors
    /// When that can't be told.
    pub fn exists(&self, at: &Location) -> Result<bool> {
        match self.head(at) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes of an object that was looked at.
    ///
    /// # Errors
    /// [`Error::Changed`] when it is another one by now, [`Error::Invalid`] for a range beyond its
    /// end, and the others.
    pub fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes> {
        self.start_read(object, range).wait()
    }

    /// Begins to read bytes of an object that was looked at.
    pub fn start_read(&self, object: &Object, range: Range<u64>) -> Pending<Bytes> {
        let read = object.clone();
        self.start(&object.location, |core| async move { core.read(&read, range).await })
    }

    /// An object whole, in memory.
    ///
    /// # Errors
    /// As [`Storage::read`].
    pub fn read_all(&self, at: &Location) -> Result<(Object, Bytes)> {
        let location = at.clone();
        let read = self.start(at, |core| async move {
            let object = core.head(&location).await?;
            let parts = core.parts(&object, |_, part| async { Ok(part) }).await?;
            let whole = match <[Bytes; 1]>::try_from(parts) {
                Ok([whole]) => whole,
                Err(parts) => parts.concat().into(),
            };
            Ok((object, whole))
        });
        read.wait()
    }

    /// Copies an object that was looked at into a file, which is made or cut first; `done` is told
    /// of bytes as they come. Of a failed copy a part may be left.
    ///
    /// # Errors
    /// As [`Storage::read`], and [`Error::Io`] for the file.
    pub fn copy_to_file(
        &self,
        object: &Object,
        path: &FilePath,
        done: impl Fn(u64) + Send + Sync + 'static,
    ) -> Result<()> {
        let file = File::create(path).map_err(Error::io(path))?;
        let (copied, path) = (object.clone(), path.to_owned());
        let copy = self.start(&object.location, |core| async move {
            let write = |from: u64, part: Bytes| {
                let written = file.write_all_at(&part, from).map_err(Error::io(&path));
                done(part.len() as u64);
                async { written }
            };
            core.parts(&copied, write).await?;
            Ok(())
        });
        copy.wait()
    }

    /// The objects below `at`, at any depth, in the order of the store; `found` is told how many
    /// there are so far.
    ///
    /// # Errors
    /// Any; a prefix without objects is an empty list.
    pub fn list(
        &self,
        at: &Location,
        found: impl Fn(usize) + Send + Sync + 'static,
    ) -> Result<Vec<Object>> {
        let location = at.clone();
        self.start(at, |core| async move { core.list(&location, found).await }).wait()
    }
}

impl Core {
    async fn head(&self, at: &Location) -> Result<Object> {
        let look = |store: crate::connect::Store| async move {
            Ok(Object::new(at.clone(), &store.objects.head(at.path()).await?))
        };
        self.tried(at, "looking at it", look).await
    }

    pub(crate) async fn read(&self, object: &Object, range: Range<u64>) -> Result<Bytes> {
        if range.end > object.size || range.start > range.end {
            let rule = format!("{} has {} bytes", object.location, object.size);
            return Err(Error::invalid("range", format!("{range:?}"), rule));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let what = format!("reading bytes {}..{}", range.start, range.end);
        let read = |store: crate::connect::Store| {
            let range = range.clone();
            async move {
                let options = GetOptions {
                    range: Some(GetRange::Bounded(range.clone())),
                    if_match: object.condition(),
                    ..GetOptions::default()
                };
                let at = &object.location;
                let answer = store.objects.get_opts(at.path(), options).await?;
                if let Some(problem) = object.difference(&answer.meta) {
                    return Err(Failure::Final(Error::Changed { at: at.clone(), problem }));
                }
                let bytes = answer.bytes().await?;
                let wanted = range.end - range.start;
                match bytes.len() as u64 == wanted {
                    true => Ok(bytes),
                    false => Err(Failure::Wrong(format!("{} of {wanted} bytes came", bytes.len()))),
                }
            }
        };
        self.tried(&object.location, &what, read).await
    }

    /// What `each` makes of the object's parts, in their order; it is told their first byte.
    async fn parts<T, W: Future<Output = Result<T>>>(
        &self,
        object: &Object,
        each: impl Fn(u64, Bytes) -> W,
    ) -> Result<Vec<T>> {
        let each = &each;
        let starts = (0..object.size).step_by(PART as usize);
        let parts = starts.map(|from| async move {
            let bytes = self.read(object, from..object.size.min(from + PART)).await?;
            each(from, bytes).await
        });
        stream::iter(parts).buffered(AT_A_TIME).try_collect().await
    }

    async fn list(
        &self,
        at: &Location,
        found: impl Fn(usize) + Send + Sync,
    ) -> Result<Vec<Object>> {
        let objects = Mutex::new(Vec::<Object>::new());
        let lock = || objects.lock().unwrap_or_else(PoisonError::into_inner);
        let (lock, found) = (&lock, &found);
        let list = |store: crate::connect::Store| async move {
            // A web server has its own order, so that one begins anew.
            if at.scheme() == Scheme::Http {
                lock().clear();
            }
            let last = lock().last().map(|object| object.location.path().clone());
            let prefix = Some(at.path()).filter(|path| !path.as_ref().is_empty());
            let mut listed = match &last {
                Some(last) => store.objects.list_with_offset(prefix, last),
                None => store.objects.list(prefix),
            };
            while let Some(meta) = listed.next().await {
                let meta = meta?;
                let object = Object::new(at.beside(meta.location.clone()), &meta);
                let mut objects = lock();
                objects.push(object);
                if objects.len() % 1000 == 0 {
                    found(objects.len());
                }
            }
            Ok(())
        };
        // Each try goes on where the last ended; one that brought something may be followed by as
        // many as the first.
        let mut known = 0;
        loop {
            match self.tried(at, "listing it", list).await {
                Ok(()) => break,
                Err(Error::Unavailable { .. }) if lock().len() > known => known = lock().len(),
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut *lock()))
    }
}
