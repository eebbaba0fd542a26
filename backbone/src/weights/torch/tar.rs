//! Checkpoints from before PyTorch 0.1.10: a tar archive of pickles and tables.
//! Reference: PyTorch `torch/serialization.py`, `legacy_load`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use super::legacy::{check_little_endian, part};
use super::rebuild::{Rebuild, Storage, View};
use crate::weights::element::Element;
use crate::weights::pickle::{Id, Pickle};
use crate::weights::walk::Storages;

/// A checkpoint in memory.
pub(crate) struct Tar {
    /// The archive's members by name.
    members: HashMap<String, Vec<u8>>,
    /// Each storage's bytes in the member `storages`, and its type.
    storages: HashMap<String, (Range<usize>, Element)>,
}

impl Tar {
    /// Unpacks the archive and reads the table of storages.
    ///
    /// # Errors
    /// A sentence that says what is damaged.
    pub(crate) fn open(bytes: &[u8]) -> Result<Self, String> {
        let mut members = HashMap::new();
        let mut archive = ::tar::Archive::new(bytes);
        for entry in archive.entries().map_err(|e| e.to_string())? {
            let mut entry = entry.map_err(|e| e.to_string())?;
            let name = entry.path().map_err(|e| e.to_string())?.to_string_lossy().into_owned();
            let name = name.trim_start_matches("./");
            if matches!(name, "sys_info" | "storages" | "tensors" | "pickle") {
                let mut content = Vec::new();
                // A sparse member may claim more than the archive has.
                let limit = bytes.len() as u64;
                entry.by_ref().take(limit).read_to_end(&mut content).map_err(|e| e.to_string())?;
                members.insert(name.to_owned(), content);
            }
        }
        if let Some(system) = members.get("sys_info") {
            check_little_endian(&Pickle::parse(system)?)?;
        }
        let storages = storages(member(&members, "storages")?)?;
        Ok(Self { members, storages })
    }

    /// The object that was saved, and the tensors it has names for.
    ///
    /// # Errors
    /// A sentence that says what is damaged.
    pub(crate) fn pickle(&self) -> Result<(Pickle<'_>, Rebuild), String> {
        let tensors = tensors(member(&self.members, "tensors")?, &self.storages)?;
        let pickle = Pickle::parse(member(&self.members, "pickle")?)?;
        Ok((pickle, Rebuild::with_tensors(tensors)))
    }
}

impl Storages for Tar {
    fn bytes(&self, key: &str) -> Result<Cow<'_, [u8]>, String> {
        let (range, _) =
            self.storages.get(key).ok_or_else(|| format!("storage {key:?} is not there"))?;
        Ok(Cow::Borrowed(&member(&self.members, "storages")?[range.clone()]))
    }
}

fn member<'a>(members: &'a HashMap<String, Vec<u8>>, name: &str) -> Result<&'a [u8], String> {
    Ok(members.get(name).ok_or_else(|| format!("its member {name:?} is missing"))?)
}

/// A table's bytes, read from the front.
struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Table<'a> {
    fn pickle(&mut self) -> Result<Pickle<'a>, String> {
        let pickle = Pickle::parse(&self.bytes[self.at..])?;
        self.at += pickle.length;
        Ok(pickle)
    }

    fn count(&mut self) -> Result<i64, String> {
        let pickle = self.pickle()?;
        pickle.int(pickle.root).ok_or_else(|| "a table without its length".into())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let taken = self.bytes[self.at..].first_chunk::<N>().ok_or("a table ends early")?;
        self.at += N;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<i64, String> {
        self.take::<8>().map(i64::from_le_bytes)
    }
}

/// The fields of a table's entry.
fn fields<const N: usize>(pickle: &Pickle, id: Id) -> Result<[Id; N], String> {
    let fields = pickle.sequence(id).and_then(|fields| fields.try_into().ok());
    fields.ok_or_else(|| format!("an entry of a table has not {N} fields"))
}

fn name(pickle: &Pickle, id: Id) -> Result<String, String> {
    pickle.key_name(id).ok_or_else(|| "an entry of a table has no name".into())
}

/// The table of storages: name, place and class, count of elements, their bytes;
/// then those that are parts of others.
fn storages(bytes: &[u8]) -> Result<HashMap<String, (Range<usize>, Element)>, String> {
    let mut table = Table { bytes, at: 0 };
    let mut found: HashMap<String, (Range<usize>, Element)> = HashMap::new();
    for _ in 0..table.count()? {
        let entry = table.pickle()?;
        let [key, _location, class] = fields(&entry, entry.root)?;
        let element = entry.global(class).and_then(|(_, name)| Element::of_torch(name));
        let element = element.ok_or("a storage of a type that is not known")?;
        let count = table.number()?;
        let range = part(&(table.at..bytes.len()), 0, count, element.width());
        let range = range.ok_or("it ends within a storage")?;
        table.at = range.end;
        found.insert(name(&entry, key)?, (range, element));
    }
    let parts = table.pickle()?;
    for &entry in parts.sequence(parts.root).unwrap_or_default() {
        let [key, whole, offset, size] = fields(&parts, entry)?;
        let of = found.get(&name(&parts, whole)?).and_then(|(range, element)| {
            let (offset, size) = (parts.int(offset)?, parts.int(size)?);
            Some((part(range, offset, size, element.width())?, *element))
        });
        found.insert(name(&parts, key)?, of.ok_or("a storage is no part of another")?);
    }
    Ok(found)
}

/// The table of tensors: name, storage and class, then dimensions, sizes, strides
/// and the first element.
fn tensors(
    bytes: &[u8],
    storages: &HashMap<String, (Range<usize>, Element)>,
) -> Result<HashMap<String, View>, String> {
    let mut table = Table { bytes, at: 0 };
    let mut found = HashMap::new();
    for _ in 0..table.count()? {
        let entry = table.pickle()?;
        let [key, storage, _class] = fields(&entry, entry.root)?;
        let storage = name(&entry, storage)?;
        let (_, element) =
            storages.get(&storage).ok_or_else(|| format!("storage {storage:?} is not there"))?;
        // The number of dimensions was once written as 8 bytes.
        let dimensions = i32::from_le_bytes(table.take()?);
        table.take::<4>()?;
        let mut numbers = || (0..dimensions).map(|_| table.number()).collect::<Result<Vec<_>, _>>();
        let (shape, strides) = (numbers()?, numbers()?);
        let offset = table.number()?;
        let storage = Storage::Named(storage);
        let view = View { storage, element: *element, offset, shape, strides };
        found.insert(name(&entry, key)?, view);
    }
    Ok(found)
}
