//! The images of a folder, a list or tar shards, by number.
//!
//! Opening reads names only: a folder's entries, a list's lines, a shard's headers. Nothing
//! is looked into before it is read, so broken files surface in [`Dataset::read`] or
//! [`Dataset::image`]. Names and places lie in two flat arrays, about 60 bytes an image.
//!
//! Even names take long where there are millions, so what was found is kept for the next time,
//! and where several processes read one data set ([`Dataset::open_among`]) one lists for all.

mod archive;
mod braces;
mod cache;
mod classes;
mod compression;
mod evidence;
mod index;
mod kind;
mod labelled;
mod labels;
mod listing;
mod names;
mod parallel;
mod remote;
mod shard;
mod shards;
mod stamp;
mod walk;
mod wire;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use self::cache::Cache;
pub(crate) use self::kind::is_image_name;
pub use self::labelled::LabelledDataset;
use self::listing::Request;
use self::names::Names;
use self::remote::Opened;
pub use self::remote::{Fetch, StorageOptions};
use self::shard::{Flaw, Wanted};
use super::decode::{ImageFile, decode, decode_deep};
use super::image::Image;
use super::peers::{Alone, Peers};
use crate::files::{MAX_BYTES, read_file};
use crate::names::readable;
use crate::{Error, Result};

/// Extensions of pictures, in any case.
const PICTURES: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];
/// The extension of arrays, in any case.
const ARRAY: &str = "npy";

/// What to look for in a data set, and how.
#[derive(Debug, Clone)]
pub struct DatasetOptions {
    /// Channels every image is decoded to: 1 (luma), 3 (RGB) or 4 (RGBA) for pictures, any
    /// number for `.npy` arrays and multi-band TIFF.
    pub channels: usize,
    /// Whether pictures of more than 8 bits keep them: see [`decode_deep`].
    pub deep: bool,
    /// List anew instead of trusting the cached listing.
    pub relist: bool,
    /// With tar shards: of n processes that read the data together, number r takes the shards r,
    /// r + n, … in the order of their names, and reads nothing of the others. Its data set is
    /// those shards' images.
    pub own_shards: bool,
    /// The folder that keeps the listings of folders of 10 000 files or more, and the members of
    /// shards that have 1000 or more, for the next time; none: nothing is kept.
    ///
    /// What was kept is taken only while all folders, and all shards, have the times and sizes
    /// they had; folders that changed within two seconds of being listed aren't kept. That needs
    /// a disk whose clock is as this machine's: [`DatasetOptions::relist`] where it is far off.
    pub listings: Option<PathBuf>,
    /// Whether [`Dataset::file`]'s random crops may be decoded at a fraction of the file's size
    /// where that is much larger than the crop's target: see [`ImageFile`].
    pub reduced_decode: bool,
    /// How objects in stores are read.
    pub storage: StorageOptions,
}

impl Default for DatasetOptions {
    /// RGB, every process all images, reduced where possible; listings are kept in `spark-backbone/listings` in
    /// `$XDG_CACHE_HOME` or `~/.cache`.
    fn default() -> Self {
        let listings = cache::listings_in(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
        DatasetOptions {
            channels: 3,
            deep: false,
            relist: false,
            own_shards: false,
            listings,
            reduced_decode: true,
            storage: StorageOptions::default(),
        }
    }
}

impl DatasetOptions {
    /// The default for images of so many channels.
    pub fn with_channels(channels: usize) -> Self {
        DatasetOptions { channels, ..Default::default() }
    }
}

/// An index of images, sorted by path; those of a list or shard in their own order.
#[derive(Debug)]
pub struct Dataset {
    /// What names are relative to.
    base: PathBuf,
    channels: usize,
    deep: bool,
    reduced_decode: bool,
    names: Names,
    places: Vec<Place>,
    /// Tar shards, relative to `base`.
    shards: Vec<PathBuf>,
    /// What compressed ones were unpacked to.
    unpacked: Unpacked,
    /// The objects, where the data lies in a store.
    remote: Option<Opened>,
    others: usize,
    /// Images of the process that has most.
    most: usize,
    /// Images of all processes, each once.
    total: usize,
}

/// Where an image's bytes lie.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the file of its name.
    File,
    /// In the object of its name.
    Object { number: u32 },
    /// In a tar shard.
    Member { shard: u32, offset: u64, size: u64 },
    /// In the file that a compressed tar shard was unpacked to.
    Unpacked { shard: u32, offset: u64, size: u64 },
    /// In a tar shard, but not to be read.
    Missing { shard: u32, flaw: Flaw },
}

/// The file that compressed shards were unpacked to, if there are any.
struct Unpacked(Option<File>);

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "unpacked" } else { "nothing unpacked" })
    }
}

impl Dataset {
    /// Indexes `path`, which is one of
    /// - a folder of images and tar shards at any depth, hidden files left out, symbolic links
    ///   followed;
    /// - a text file of image or shard paths, one a line, relative to the file's folder, lines
    ///   starting with `#` left out;
    /// - a tar shard (WebDataset style), or several as `shards-{000..012}.tar` or `{train,val}.tar`;
    /// - one image;
    /// - any of these in a store: `s3://bucket/photos/` (a prefix, with a slash at its end),
    ///   `s3://bucket/set/shards-{000..012}.tar`, `https://host/list.txt`. What lies below a prefix
    ///   is kept once it is listed, and listed anew with [`DatasetOptions::relist`] alone.
    ///
    /// Files are taken by their extension, in any case. For 1, 3 or 4 channels: jpg, jpeg, png,
    /// webp, bmp, tif, tiff, or npy where there are none of those; for others: npy, or tif and
    /// tiff where there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 channels or a malformed brace pattern, [`Error::Io`] for what
    /// can't be read, [`Error::Data`] for a broken list or shard or when there are no images.
    pub fn open(path: impl AsRef<Path>, options: &DatasetOptions) -> Result<Dataset> {
        Self::open_among(path, options, &Alone)
    }

    /// As [`Dataset::open`], for processes that read one data set together; all of them must call
    /// it, with the same options. The first alone lists folders, and each reads the headers of an
    /// equal part of the shards; all get the same data set, unless each takes
    /// [shards of its own](DatasetOptions::own_shards).
    ///
    /// # Errors
    /// As [`Dataset::open`], and for [shards of its own](DatasetOptions::own_shards)
    /// [`Error::Invalid`] when there are fewer shards than processes, [`Error::Data`] when there
    /// are images outside of shards or a process' shards have none. An error of one process is
    /// one of all, which say whose it is; and those of [`Peers::gather`].
    pub fn open_among(
        path: impl AsRef<Path>,
        options: &DatasetOptions,
        peers: &dyn Peers,
    ) -> Result<Dataset> {
        Self::open_with(path.as_ref(), options, &Cache::of(options), peers)
    }

    fn open_with(
        path: &Path,
        options: &DatasetOptions,
        cache: &Cache,
        peers: &dyn Peers,
    ) -> Result<Dataset> {
        let indexed = index::open(Request::Any(path), options, cache, peers, Wanted::Places)?;
        Ok(indexed.dataset)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none; [`Dataset::open`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Number of images of the process that has most, where each has
    /// [shards of its own](DatasetOptions::own_shards); else [`Dataset::len`].
    pub fn most_samples(&self) -> usize {
        self.most
    }

    /// Number of images of all processes together, each once; [`Dataset::len`] unless each has
    /// [shards of its own](DatasetOptions::own_shards).
    pub fn total_samples(&self) -> usize {
        self.total
    }

    /// Channels of every decoded image.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Files that were passed over, being no images by their extension.
    pub fn other_files(&self) -> usize {
        self.others
    }

    /// Name of image `index`: its path relative to the data set, or `shard.tar:member`, as
    /// [`readable`] writes it.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`], as are the other accessors.
    pub fn name(&self, index: usize) -> String {
        let name = readable(self.names.get(index));
        match self.places[index] {
            Place::File | Place::Object { .. } => name,
            Place::Missing { shard, flaw: Flaw::Gone } => readable(&self.shards[shard as usize]),
            Place::Member { shard, .. }
            | Place::Unpacked { shard, .. }
            | Place::Missing { shard, .. } => {
                format!("{}:{name}", readable(&self.shards[shard as usize]))
            }
        }
    }

    /// Name of image `index` in its shard, if it lies in one; else [`Dataset::name`].
    pub(crate) fn own_name(&self, index: usize) -> String {
        readable(self.names.get(index))
    }

    /// The bytes of image `index`'s file.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or shard; [`Error::Image`] for a pipe or the like, for more than
    /// [`MAX_BYTES`], and for a member that its archive has not.
    pub fn read(&self, index: usize) -> Result<Vec<u8>> {
        if let Some(fetch) = self.fetch(index) {
            return fetch?.wait(|| self.base.join(self.name(index)));
        }
        let refused = |problem: &str| Error::image(self.base.join(self.name(index)), problem);
        match self.places[index] {
            Place::File | Place::Object { .. } => read_file(&self.base.join(self.names.get(index))),
            Place::Missing { flaw, .. } => Err(refused(flaw.problem())),
            Place::Member { size, .. } | Place::Unpacked { size, .. } if size > MAX_BYTES => {
                Err(refused(&format!("{size} bytes long; at most {MAX_BYTES} are read")))
            }
            Place::Member { shard, offset, size } => {
                // Opened each time: thousands of shards would exhaust the file descriptors.
                let path = self.base.join(&self.shards[shard as usize]);
                let bytes = File::open(&path).and_then(|file| piece(&file, offset, size));
                bytes.map_err(|e| Error::io(path, e))
            }
            Place::Unpacked { shard, offset, size } => {
                let path = self.base.join(&self.shards[shard as usize]);
                let file = self.unpacked.0.as_ref().ok_or(io::ErrorKind::NotFound.into());
                let bytes = file.and_then(|file| piece(file, offset, size));
                bytes.map_err(|e| Error::io(path, e))
            }
        }
    }

    /// Begins to read image `index`, if it lies in a store: [`Dataset::file_of`] takes what comes.
    /// Elsewhere, and for one that can't be read, there is nothing to begin.
    pub fn begin(&self, index: usize) -> Option<Fetch> {
        self.fetch(index)?.ok()
    }

    /// The bytes of an image in a store, on their way.
    fn fetch(&self, index: usize) -> Option<Result<Fetch>> {
        let remote = self.remote.as_ref()?;
        match self.places[index] {
            Place::Object { number } => Some(remote.file(number, self.names.get(index))),
            Place::Member { shard, offset, size } if size <= MAX_BYTES => {
                Some(Ok(remote.member(shard, offset, size)))
            }
            _ => None,
        }
    }

    /// Whether images lie in a store, from which they are best [begun](Dataset::begin) ahead.
    pub fn is_remote(&self) -> bool {
        self.remote.is_some()
    }

    /// What goes wrong at the moment in the store and is being tried again, in a sentence.
    pub fn trouble(&self) -> Option<String> {
        self.remote.as_ref()?.remote.reader.storage().trouble()
    }

    /// Image `index`, decoded in full.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Image`] with the file, or `shard.tar:member`, and the reason.
    pub fn image(&self, index: usize) -> Result<Image> {
        let bytes = self.read(index)?;
        let path = self.base.join(self.name(index));
        let read = if self.deep { decode_deep } else { decode };
        read(path, &bytes, self.channels)
    }

    /// Image `index`, to be decoded as far as it is needed.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or shard.
    pub fn file(&self, index: usize) -> Result<ImageFile> {
        Ok(self.file_with(index, self.read(index)?))
    }

    /// As [`Dataset::file`], of what [`Dataset::begin`] began for this image.
    ///
    /// # Errors
    /// As [`Dataset::file`].
    pub fn file_of(&self, index: usize, begun: Fetch) -> Result<ImageFile> {
        let bytes = begun.wait(|| self.base.join(self.name(index)))?;
        Ok(self.file_with(index, bytes))
    }

    fn file_with(&self, index: usize, bytes: Vec<u8>) -> ImageFile {
        let path = self.base.join(self.name(index));
        ImageFile::new(path, bytes, self.channels, self.reduced_decode).deep(self.deep)
    }
}

fn piece(file: &File, offset: u64, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
