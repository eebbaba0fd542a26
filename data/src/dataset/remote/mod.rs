//! Data sets whose files are objects in a store.

mod archive;
mod list;
mod scan;

use std::path::{Path, PathBuf};

use storage::{Bytes, Location, Object, Pending, Reader, Settings, Storage};

pub(super) use self::archive::ObjectArchive;
pub(super) use self::list::{Objects, list};
pub(super) use self::scan::scan_all;
use super::stamp::Stamp;
use super::wire::{Reader as From, Writer};
use crate::files::MAX_BYTES;
use crate::{Error, Result};

/// Bytes of a tar header, which stands before a member's content.
const HEADER: u64 = 512;

/// How objects in stores are read.
#[derive(Debug, Clone, Default)]
pub struct StorageOptions {
    /// A folder that keeps what was read, and how many bytes it may hold; none: nothing is kept.
    pub cache: Option<(PathBuf, u64)>,
    /// How patient whoever asks the store is.
    pub settings: Settings,
}

/// The location that `path` is, if it is one and no file.
///
/// # Errors
/// [`Error::Storage`] for one of an unknown kind.
pub(super) fn location(path: &Path) -> Result<Option<Location>> {
    match path.to_str().filter(|text| Location::is_one(text)) {
        Some(text) => Ok(Some(Location::parse(text)?)),
        None => Ok(None),
    }
}

/// Where the objects of a data set lie, and what reads them.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub reader: Reader,
    /// What names are relative to.
    pub base: Location,
}

impl Remote {
    /// For objects relative to `base`.
    pub(super) fn open(base: Location, options: &StorageOptions) -> Result<Self> {
        let storage = Storage::new(options.settings.clone())?;
        let cache = options.cache.as_ref().map(|(folder, size)| (folder.as_path(), *size));
        Ok(Remote { reader: Reader::new(storage, cache)?, base })
    }
}

/// The objects of an opened data set.
#[derive(Debug)]
pub(super) struct Opened {
    pub remote: Remote,
    /// The shards, by number.
    pub shards: Vec<Object>,
    /// The images that are objects of their own, by number, and their names.
    pub files: Objects,
}

/// The bytes of an image, on their way.
pub struct Fetch {
    pending: Pending<Bytes>,
    /// The size of the member whose header comes along.
    member: Option<u64>,
    /// How many come, in bytes.
    size: u64,
}

impl Opened {
    /// Begins to read a member of a shard, with the header before it.
    pub(super) fn member(&self, shard: u32, offset: u64, size: u64) -> Fetch {
        let object = &self.shards[shard as usize];
        let start = offset.saturating_sub(HEADER);
        let pending = self.remote.reader.start_read(object, start..offset.saturating_add(size));
        Fetch { pending, member: Some(size), size }
    }

    /// Begins to read the image `number`, called `name`.
    ///
    /// # Errors
    /// [`Error::Image`] for one that is too large.
    pub(super) fn file(&self, number: u32, name: &Path) -> Result<Fetch> {
        let object = self.files.object(number as usize, name, &self.remote.base)?;
        if self.files.is_gone(number as usize) {
            return Err(Error::image(object.location.to_string(), "there is no such object"));
        }
        if object.size > MAX_BYTES {
            let problem = format!("{} bytes long; at most {MAX_BYTES} are read", object.size);
            return Err(Error::image(object.location.to_string(), problem));
        }
        let pending = self.remote.reader.start_read(&object, 0..object.size);
        Ok(Fetch { pending, member: None, size: object.size })
    }
}

impl Fetch {
    /// Size of the image's file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The bytes, once they are there.
    ///
    /// # Errors
    /// [`Error::Storage`]; [`Error::Image`] where no member of that size lies there.
    pub(super) fn wait(self, name: impl Fn() -> PathBuf) -> Result<Vec<u8>> {
        let Fetch { pending, member, .. } = self;
        let bytes = pending.wait()?;
        let Some(size) = member else { return Ok(bytes.into()) };
        let is_there = bytes
            .split_first_chunk::<{ HEADER as usize }>()
            .is_some_and(|(header, _)| is_header_of(header, size));
        if !is_there {
            return Err(Error::image(
                name(),
                "no member of that size lies where the shard's index says; make the index (.idx) \
                 again, or remove it",
            ));
        }
        Ok(bytes[HEADER as usize..].to_vec())
    }
}

/// Whether a member of `size` bytes follows this header.
pub(super) fn is_header_of(header: &[u8; HEADER as usize], size: u64) -> bool {
    let header = tar::Header::from_byte_slice(header);
    // The sum of the header with the sum's own bytes as spaces.
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum();
    let is_whole = header.cksum().is_ok_and(|stored| stored == sum + 8 * u32::from(b' '));
    is_whole && header.entry_size().is_ok_and(|length| length == size)
}

impl Stamp {
    /// Of an object: its version takes the place of the times.
    pub(super) fn of_object(object: &Object) -> Self {
        // FNV-1a: it is kept in files, which another release of Rust must understand.
        let hash = object.version().bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Stamp::of_version(hash, object.size)
    }
}

impl Objects {
    pub(super) fn write(&self, to: &mut Writer) {
        to.count(self.sizes.len());
        for (size, modified) in self.sizes.iter().zip(&self.modified) {
            to.number(*size);
            to.number(*modified);
        }
        self.etags.write(to);
    }

    pub(super) fn read(from: &mut From) -> Option<Self> {
        let pairs = from.many(|from| Some((from.number()?, from.number()?)))?;
        let (sizes, modified) = pairs.into_iter().unzip();
        Some(Objects { sizes, modified, etags: super::names::Names::read(from)? })
    }
}
