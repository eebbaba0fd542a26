//! The images of a folder, a list or tar shards, by number.
//!
//! Opening reads names only: a folder's entries, a list's lines, a shard's headers. Nothing
//! is looked into before it is read, so broken files surface in [`Dataset::read`] or
//! [`Dataset::image`]. Names and places lie in two flat arrays, about 60 bytes an image.

mod braces;
mod index;
mod labelled;
mod shard;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use self::index::Index;
pub use self::labelled::LabelledDataset;
use super::decode::decode;
use super::image::Image;
use crate::{Error, Result};

/// Extensions of pictures, in any case.
const PICTURES: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];
/// The extension of arrays, in any case.
const ARRAY: &str = "npy";

/// What to look for in a data set.
#[derive(Debug, Clone)]
pub struct DatasetOptions {
    /// Channels every image is decoded to: 1 (luma), 3 (RGB) or 4 (RGBA) for pictures, any
    /// number for `.npy` arrays and multi-band TIFF.
    pub channels: usize,
}

impl Default for DatasetOptions {
    /// RGB.
    fn default() -> Self {
        DatasetOptions { channels: 3 }
    }
}

/// An index of images, sorted by path; those of a list or shard in their own order.
#[derive(Debug)]
pub struct Dataset {
    /// What names are relative to.
    base: PathBuf,
    channels: usize,
    names: Names,
    places: Vec<Place>,
    /// Tar shards, relative to `base`.
    shards: Vec<PathBuf>,
    others: usize,
}

/// Where an image's bytes lie.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// In the file of its name.
    File,
    /// In a tar shard.
    Member { shard: u32, offset: u64, size: u64 },
}

/// Many names in one piece of memory.
#[derive(Debug, Default)]
struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(name);
        self.ends.push(self.bytes.len());
    }

    fn get(&self, index: usize) -> &Path {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Path::new(OsStr::from_bytes(&self.bytes[start..self.ends[index]]))
    }
}

impl Dataset {
    /// Indexes `path`, which is one of
    /// - a folder of images and tar shards at any depth, hidden files left out, symbolic links
    ///   followed;
    /// - a text file of image or shard paths, one a line, relative to the file's folder, lines
    ///   starting with `#` left out;
    /// - a tar shard (WebDataset style), or several as `shards-{000..012}.tar` or `{train,val}.tar`;
    /// - one image.
    ///
    /// Files are taken by their extension, in any case. For 1, 3 or 4 channels: jpg, jpeg, png,
    /// webp, bmp, tif, tiff, or npy where there are none of those; for others: npy, or tif and
    /// tiff where there are none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 channels or a malformed brace pattern, [`Error::Io`] for what
    /// can't be read, [`Error::Data`] for a broken list or shard or when there are no images.
    pub fn open(path: impl AsRef<Path>, options: &DatasetOptions) -> Result<Dataset> {
        let (path, channels) = (path.as_ref(), options.channels);
        if channels == 0 {
            return Err(Error::invalid("channels", channels, "at least 1 is needed"));
        }
        let (base, paths) = match path.to_str() {
            Some(pattern) if pattern.contains('{') && !path.exists() => {
                (common_folder(path), braces::expand(pattern)?)
            }
            _ if path.is_dir() => (path, vec![path.to_owned()]),
            _ => (path.parent().unwrap_or(Path::new("")), vec![path.to_owned()]),
        };
        let mut index = Index::new(base.to_owned(), channels);
        for path in &paths {
            index.add(path)?;
        }
        index.finish(path)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none; [`Dataset::open`] refuses that.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Channels of every decoded image.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Files that were passed over, being no images by their extension.
    pub fn other_files(&self) -> usize {
        self.others
    }

    /// Name of image `index`: its path relative to the data set, or `shard.tar:member`.
    ///
    /// # Panics
    /// When `index` is not below [`Dataset::len`], as are the other accessors.
    pub fn name(&self, index: usize) -> String {
        let name = self.names.get(index).display();
        match self.places[index] {
            Place::File => name.to_string(),
            Place::Member { shard, .. } => {
                format!("{}:{name}", self.shards[shard as usize].display())
            }
        }
    }

    /// The bytes of image `index`'s file.
    ///
    /// # Errors
    /// [`Error::Io`] with the file or shard.
    pub fn read(&self, index: usize) -> Result<Vec<u8>> {
        match self.places[index] {
            Place::File => {
                let path = self.base.join(self.names.get(index));
                std::fs::read(&path).map_err(|e| Error::io(path, e))
            }
            Place::Member { shard, offset, size } => {
                // Opened each time: thousands of shards would exhaust the file descriptors.
                let path = self.base.join(&self.shards[shard as usize]);
                let mut bytes = vec![0; size as usize];
                File::open(&path)
                    .and_then(|file| file.read_exact_at(&mut bytes, offset))
                    .map_err(|e| Error::io(path, e))?;
                Ok(bytes)
            }
        }
    }

    /// Image `index`, decoded.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Image`] with the file, or `shard.tar:member`, and the reason.
    pub fn image(&self, index: usize) -> Result<Image> {
        let bytes = self.read(index)?;
        decode(self.base.join(self.name(index)), &bytes, self.channels)
    }
}

/// The deepest folder that everything a brace pattern names lies in.
fn common_folder(pattern: &Path) -> &Path {
    let is_plain = |part: &&Path| !part.as_os_str().as_bytes().contains(&b'{');
    pattern.ancestors().find(is_plain).unwrap_or(Path::new(""))
}

#[cfg(test)]
mod tests;
