//! Checkpoints since PyTorch 1.6: a zip archive with `data.pkl` and one member a
//! storage. Reference: PyTorch `torch/serialization.py`, `_load`.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::{ZipArchive, ZipReadOptions};

use crate::weights::walk::{Storages, budget};
use crate::weights::zip_file::open_zip;
use crate::{Error, Result};

type Outcome<T> = std::result::Result<T, String>;

/// An archive on disk.
pub(crate) struct Archive {
    zip: RefCell<ZipArchive<BufReader<File>>>,
    /// What stands before `data.pkl` and the storages: the archive's folder.
    folder: String,
    big_endian: bool,
    size: usize,
}

impl Archive {
    /// Opens it and looks for the pickle.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Format`] that says what it is if no checkpoint.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::io(path, source);
        let file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len() as usize;
        let zip = open_zip(BufReader::new(file)).map_err(|e| {
            Error::format(path, format!("a damaged zip archive, perhaps cut short: {e}"))
        })?;
        let folder = folder_of(&zip).map_err(|problem| Error::format(path, problem))?;
        let mut archive = Self { zip: RefCell::new(zip), folder, big_endian: false, size };
        let order = archive.member("byteorder").unwrap_or_default();
        archive.big_endian = order.starts_with(b"big");
        Ok(archive)
    }

    /// The file's size in bytes.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The pickle's bytes.
    ///
    /// # Errors
    /// A sentence that says what is damaged.
    pub(crate) fn pickle(&self) -> Outcome<Vec<u8>> {
        self.member("data.pkl")
    }

    /// The bytes of a member, of no more than the file accounts for.
    fn member(&self, name: &str) -> Outcome<Vec<u8>> {
        let name = format!("{}{name}", self.folder);
        let mut zip = self.zip.borrow_mut();
        let damaged = |e: &dyn std::fmt::Display| format!("its member {name:?}: {e}");
        let index = zip.index_for_name(&name).ok_or_else(|| damaged(&"it is missing"))?;
        // torch.save may leave checksums out: all of them are then 0.
        let unchecked = zip.by_index_raw(index).map_err(|e| damaged(&e))?.crc32() == 0;
        let options = ZipReadOptions::new().ignore_crc32(unchecked);
        let entry = zip.by_index_with_options(index, options).map_err(|e| damaged(&e))?;
        let most = budget(self.size);
        if entry.size() > most as u64 {
            return Err(format!(
                "its member {name:?} takes more memory than the file accounts for"
            ));
        }
        let mut bytes = Vec::new();
        entry.take(most as u64).read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        Ok(bytes)
    }
}

impl Storages for Archive {
    fn bytes(&self, key: &str) -> Outcome<Cow<'_, [u8]>> {
        self.member(&format!("data/{key}")).map(Cow::Owned)
    }

    fn big_endian(&self) -> bool {
        self.big_endian
    }
}

/// What stands before `data.pkl`, or what the archive is if it has none.
fn folder_of(archive: &ZipArchive<BufReader<File>>) -> Outcome<String> {
    let names = || archive.file_names().flatten();
    let has = |end: &str| names().any(|name| name.ends_with(end));
    if has("constants.pkl") {
        return Err("a TorchScript archive; save its weights with \
                    torch.save(torch.jit.load(FILE).state_dict(), …)"
            .into());
    }
    let folders = names().filter_map(|name| Some(name.strip_suffix("data.pkl")?.to_owned()));
    let folder = folders.filter(|folder| folder.is_empty() || folder.ends_with('/'));
    if let Some(folder) = folder.min_by_key(String::len) {
        return Ok(folder);
    }
    Err(if has(".npy") {
        "a numpy archive (.npz)"
    } else {
        "a zip archive, but no PyTorch checkpoint: it has no data.pkl. Unpack it first"
    }
    .into())
}
