//! The pictures that a page can show: those that were named, and what is uploaded.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use data::files::{NamedImage, read_file};
use data::names::readable;
use data::{CropBox, ImageFile, Interpolation, LazyImage as _, claimed_size};

use crate::encode::jpeg;

/// Uploaded pictures that are kept; the page sends an older one again if it is asked for.
const KEPT: usize = 32;
/// Longer side of a thumbnail, in pixels.
const THUMBNAIL: usize = 128;

/// What is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of an uploaded file.
    pub upload: u64,
    /// Pixels of any picture.
    pub pixels: u64,
}

/// A picture's file.
#[derive(Debug)]
pub struct Picture {
    /// Unique in this process.
    pub id: u64,
    /// What it is called.
    pub name: String,
    pixels: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Stored(PathBuf),
    Uploaded(Vec<u8>),
}

impl Picture {
    /// Its file's bytes, and what messages call the file.
    ///
    /// # Errors
    /// It cannot be read, or has more pixels than allowed.
    pub fn read(&self) -> Result<(Vec<u8>, &Path)> {
        let bytes = match &self.content {
            Content::Stored(path) => read_file(path)?,
            Content::Uploaded(bytes) => bytes.clone(),
        };
        check_size(&self.name, &bytes, self.pixels)?;
        Ok((bytes, Path::new(&self.name)))
    }

    /// A small JPEG of it.
    ///
    /// # Errors
    /// It cannot be read, or is no picture of one or three channels.
    pub fn thumbnail(&self) -> Result<Vec<u8>> {
        let (bytes, name) = self.read()?;
        let file = ImageFile::new(name, bytes, 3, true);
        let (height, width) = file.size()?;
        let scale = THUMBNAIL as f64 / height.max(width) as f64;
        let side = |side: usize| ((side as f64 * scale).round() as usize).clamp(1, THUMBNAIL);
        let whole = CropBox { top: 0, left: 0, height, width };
        let small =
            file.resized_crop(whole, (side(height), side(width)), Interpolation::Bilinear)?;
        jpeg(&small)
    }
}

fn check_size(name: &str, bytes: &[u8], limit: u64) -> Result<()> {
    let (width, height) = claimed_size(name, bytes)?;
    ensure!(
        width.saturating_mul(height) <= limit,
        "{name} has {width}×{height} pixels, but at most {} megapixels are taken; --max-megapixels \
         allows more",
        limit / 1_000_000
    );
    Ok(())
}

/// All of them.
#[derive(Debug)]
pub struct Pictures {
    limits: Limits,
    stored: Vec<Arc<Picture>>,
    uploaded: Mutex<Uploaded>,
}

#[derive(Debug)]
struct Uploaded {
    next: u64,
    pictures: VecDeque<Arc<Picture>>,
}

impl Pictures {
    /// Those of `files`; `first` is the number of the first to be uploaded, and lies above theirs.
    pub fn new(files: Vec<NamedImage>, first: u64, limits: Limits) -> Self {
        let stored = (0..).zip(files).map(|(id, file)| {
            let (name, content) = (readable(&file.name), Content::Stored(file.path));
            Arc::new(Picture { id, name, pixels: limits.pixels, content })
        });
        let stored: Vec<Arc<Picture>> = stored.collect();
        let next = first.max(stored.len() as u64);
        let uploaded = Mutex::new(Uploaded { next, pictures: VecDeque::new() });
        Self { limits, stored, uploaded }
    }

    /// What is refused.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Those that were named.
    pub fn stored(&self) -> &[Arc<Picture>] {
        &self.stored
    }

    /// The picture of this number; none if it was never there, or is there no more.
    pub fn get(&self, id: u64) -> Option<Arc<Picture>> {
        let stored = usize::try_from(id).ok().and_then(|at| self.stored.get(at));
        let found = stored.cloned();
        found.or_else(|| {
            let uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
            uploaded.pictures.iter().find(|picture| picture.id == id).cloned()
        })
    }

    /// Keeps a file that was uploaded as `name`.
    ///
    /// # Errors
    /// It is no picture, or larger than allowed.
    pub fn add(&self, name: &str, bytes: Vec<u8>) -> Result<Arc<Picture>> {
        check_size(name, &bytes, self.limits.pixels)?;
        let mut uploaded = self.uploaded.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, name) = (uploaded.next, name.to_owned());
        uploaded.next += 1;
        let content = Content::Uploaded(bytes);
        let picture = Arc::new(Picture { id, name, pixels: self.limits.pixels, content });
        uploaded.pictures.push_back(picture.clone());
        while uploaded.pictures.len() > KEPT {
            uploaded.pictures.pop_front();
        }
        Ok(picture)
    }
}
