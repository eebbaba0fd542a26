//! Checkpoints of PyTorch 0.1.10 to 1.5: pickles one after the other, then the
//! storages. Reference: PyTorch `torch/serialization.py`, `_legacy_load`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::rebuild::Named;
use crate::weights::element::Element;
use crate::weights::pickle::{Node, Pickle};
use crate::weights::walk::Storages;

/// A checkpoint in memory.
pub(crate) struct Legacy<'a> {
    bytes: &'a [u8],
    /// The object that was saved.
    pub(crate) pickle: Pickle<'a>,
    /// Each storage's bytes, by its name.
    storages: HashMap<String, Range<usize>>,
}

impl<'a> Legacy<'a> {
    /// Reads all but the numbers.
    ///
    /// # Errors
    /// A sentence that says what is damaged.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let mut at = 0;
        let mut next = |what: &str| -> Result<Pickle<'a>, String> {
            let pickle = Pickle::parse(&bytes[at..])
                .map_err(|problem| format!("its {what} is damaged: {problem}"))?;
            at += pickle.length;
            Ok(pickle)
        };
        next("magic number")?;
        let version = next("version")?;
        if version.int(version.root) != Some(1001) {
            return Err("it is of a version other than 1001".into());
        }
        let system = next("description of the machine")?;
        check_little_endian(&system)?;
        let pickle = next("pickle")?;
        let keys = next("list of storages")?;
        let storages = storages(bytes, at, &pickle, &keys)?;
        Ok(Legacy { bytes, pickle, storages })
    }

    /// The bytes of a checkpoint that is a single storage, as pickling one makes.
    ///
    /// # Errors
    /// A sentence that says what is damaged.
    pub(crate) fn storage_of(bytes: &[u8]) -> Result<(Vec<u8>, Element), String> {
        let legacy = Legacy::open(bytes)
            .map_err(|problem| format!("has a storage of its own: {problem}"))?;
        let name = match legacy.pickle.node(legacy.pickle.root) {
            Node::Persistent(name) => Named::of(&legacy.pickle, *name),
            _ => None,
        };
        let name = name.ok_or("has a storage of its own that can't be told")?;
        let element = name.element.ok_or("lies in a storage of a type that is not known")?;
        Ok((legacy.bytes(&name.key)?.into_owned(), element))
    }
}

impl Storages for Legacy<'_> {
    fn bytes(&self, key: &str) -> Result<Cow<'_, [u8]>, String> {
        let range =
            self.storages.get(key).ok_or_else(|| format!("storage {key:?} is not there"))?;
        Ok(Cow::Borrowed(&self.bytes[range.clone()]))
    }
}

/// Where each storage lies: a count of elements and their bytes, in the order of
/// `keys`, from `at` on. The types are told where the pickle names them.
fn storages(
    bytes: &[u8],
    mut at: usize,
    pickle: &Pickle,
    keys: &Pickle,
) -> Result<HashMap<String, Range<usize>>, String> {
    let named: Vec<Named> = pickle
        .nodes()
        .iter()
        .filter_map(|node| match node {
            Node::Persistent(name) => Named::of(pickle, *name),
            _ => None,
        })
        .collect();
    let whole = |name: &Named| name.part_of.as_ref().map_or(&name.key, |(whole, ..)| whole).clone();
    let widths: HashMap<String, usize> =
        named.iter().filter_map(|name| Some((whole(name), name.element?.width()))).collect();
    let mut found = HashMap::new();
    let list = keys.sequence(keys.root).ok_or("its list of storages is none")?;
    for &key in list {
        let key = keys.key_name(key).ok_or("a storage without a name")?;
        let width =
            *widths.get(&key).ok_or_else(|| format!("storage {key:?} has no known type"))?;
        let count = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let count = count.map(|count| i64::from_le_bytes(*count));
        let length = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(width));
        let start = at + 8;
        let end = length.and_then(|length| start.checked_add(length));
        let end = end.filter(|&end| end <= bytes.len()).ok_or_else(|| {
            format!("it ends within storage {key:?}, {} of {} were read", found.len(), list.len())
        })?;
        found.insert(key, start..end);
        at = end;
    }
    for name in &named {
        let Some((whole, offset, size)) = &name.part_of else { continue };
        let width = name.element.map_or(1, Element::width);
        let part = found.get(whole).and_then(|range| part(range, *offset, *size, width));
        let part = part.ok_or_else(|| format!("storage {:?} is no part of another", name.key))?;
        found.insert(name.key.clone(), part);
    }
    Ok(found)
}

/// `size` elements from `offset` on of the storage at `range`.
pub(super) fn part(
    range: &Range<usize>,
    offset: i64,
    size: i64,
    width: usize,
) -> Option<Range<usize>> {
    let bytes = |count: i64| usize::try_from(count).ok()?.checked_mul(width);
    let start = range.start.checked_add(bytes(offset)?)?;
    let end = start.checked_add(bytes(size)?)?;
    (end <= range.end).then_some(start..end)
}

/// Refuses what a big-endian machine wrote.
pub(super) fn check_little_endian(system: &Pickle) -> Result<(), String> {
    let items = system.mapping(system.root).unwrap_or_default();
    let little =
        items.iter().find(|(key, _)| system.text(*key).as_deref() == Some("little_endian"));
    match little.and_then(|(_, value)| system.int(*value)) {
        Some(0) => Err("a big-endian machine wrote it; load and save it with torch".into()),
        _ => Ok(()),
    }
}
