//! The zip file that an archive is: its entries by name, read within a budget.

use std::collections::BTreeMap;
use std::io::{Read, Seek};

use zip::{ZipArchive, ZipReadOptions};

use crate::weights::walk::budget;
use crate::weights::zip_file::open_zip;

type Outcome<T> = std::result::Result<T, String>;

/// What each archive has, beside its folder's name.
pub(super) const FORMAT: &str = "archive_format";
/// What `torch.export.save` wrote before 2.8 had, without a folder.
const OLD_PROGRAM: &str = "serialized_exported_program.json";

/// An archive's entries.
pub(crate) struct Container<R> {
    zip: ZipArchive<R>,
    /// By name less the folder that all are in, in the file's order.
    names: Vec<String>,
    places: BTreeMap<String, usize>,
    /// Bytes that may still be unpacked.
    left: usize,
}

impl<R: Read + Seek> Container<R> {
    /// Looks at the entries of a file of `size` bytes.
    ///
    /// # Errors
    /// A sentence: what is wrong with it.
    pub(crate) fn open(reader: R, size: usize) -> Outcome<Self> {
        let mut zip = open_zip(reader)
            .map_err(|e| format!("a damaged zip archive, perhaps cut short: {e}"))?;
        if zip.has_duplicate_names() {
            return Err("two of its entries have the same name".into());
        }
        let overlap = zip.has_overlapping_entries();
        if overlap.map_err(|e| format!("a damaged zip archive: {e}"))? {
            return Err("its entries lie over each other".into());
        }
        if zip.index_for_name_raw(OLD_PROGRAM.as_bytes()).is_some() {
            return Err("PyTorch before 2.8 wrote it, with its weights as a pickle, and pickles \
                        are not read; export the network again with PyTorch 2.9 or later"
                .into());
        }
        let mut container =
            Self { zip, names: Vec::new(), places: BTreeMap::new(), left: budget(size) };
        container.list()?;
        Ok(container)
    }

    /// Takes in the names of the files in the archive's folder. It need not be the only one: some
    /// programs that pack zip files add their own.
    fn list(&mut self) -> Outcome<()> {
        let names = self.zip.file_names_raw();
        let mut folders = names.filter_map(|name| name.strip_suffix(FORMAT.as_bytes()));
        let folder = folders.find(|folder| folder.iter().filter(|&&b| b == b'/').count() == 1);
        let folder = folder.map(|folder| String::from_utf8_lossy(folder).into_owned());
        let folder = folder.ok_or_else(|| format!("its entry {FORMAT:?} is missing"))?;
        for place in 0..self.zip.len() {
            let name = self.zip.name_for_index(place).and_then(Result::ok);
            let name = name.ok_or("the name of an entry can't be read")?;
            let parts = name.strip_suffix('/').unwrap_or(&name).split('/');
            if name.contains(['\\', '\0'])
                || parts.into_iter().any(|p| matches!(p, "" | "." | ".."))
            {
                return Err(format!("its entry {name:?} lies outside its folder"));
            }
            let file = name.strip_prefix(folder.as_str()).filter(|file| !file.is_empty());
            if let Some(file) = file.filter(|file| !file.ends_with('/')) {
                self.names.push(file.to_owned());
                self.places.insert(file.to_owned(), place);
            }
        }
        Ok(())
    }

    /// The names of all entries.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there is such an entry.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// An entry's bytes.
    ///
    /// # Errors
    /// A sentence: it is missing, damaged, or takes more memory than the file accounts for.
    pub(crate) fn read(&mut self, name: &str) -> Outcome<Vec<u8>> {
        let damaged = |e: &dyn std::fmt::Display| format!("its entry {name:?}: {e}");
        let place = *self.places.get(name).ok_or_else(|| damaged(&"it is missing"))?;
        // A writer of PyTorch's may leave checksums out: all of them are then 0.
        let unchecked = self.zip.by_index_raw(place).map_err(|e| damaged(&e))?.crc32() == 0;
        let options = ZipReadOptions::new().ignore_crc32(unchecked);
        let entry = self.zip.by_index_with_options(place, options).map_err(|e| damaged(&e))?;
        if entry.size() > self.left as u64 {
            return Err(damaged(&"it takes more memory than the file accounts for"));
        }
        let declared = entry.size();
        let mut bytes = Vec::new();
        entry.take(declared + 1).read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
        if bytes.len() as u64 != declared {
            return Err(damaged(&format!("it says to have {declared} bytes, and has others")));
        }
        self.left -= bytes.len();
        Ok(bytes)
    }

    /// An entry's text, less white space around it.
    ///
    /// # Errors
    /// As [`Container::read`], or it is no text.
    pub(crate) fn text(&mut self, name: &str) -> Outcome<String> {
        let text = String::from_utf8(self.read(name)?);
        text.map(|text| text.trim().to_owned())
            .map_err(|_| format!("its entry {name:?} is no text"))
    }
}

/// Whether a zip file with entries of these names is an exported program, of any release.
pub(crate) fn is_program<'n>(mut names: impl Iterator<Item = &'n [u8]>) -> bool {
    names.any(|name| {
        let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        base == FORMAT.as_bytes() || name == OLD_PROGRAM.as_bytes()
    })
}
