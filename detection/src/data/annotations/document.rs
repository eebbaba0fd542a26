//! The lists of records in a file of COCO's format, a block of records at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Records that a thread reads together.
const BLOCK: usize = 1024;

/// A list of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    /// The whole file, where that is a list.
    Root,
    Images,
    Annotations,
    Categories,
}

/// What takes the records.
pub(crate) trait Sink {
    /// Records that were read.
    type Block: Send;

    /// A list begins. It may have begun before: of two lists of one name the last counts, as in
    /// Python.
    fn begin(&mut self, list: List);
    /// Reads records of a list, as JSON, of which the first is at place `first`; on any thread.
    fn read(list: List, first: usize, records: &[&RawValue]) -> Self::Block;
    /// The next records of a list.
    fn take(&mut self, list: List, block: Self::Block);
}

/// Hands the records of `text` to `sink` and leaves out all else. While one thread finds where
/// records begin and end, others read them.
///
/// # Errors
/// Text that is no JSON, or a list that is none.
pub(crate) fn walk(text: &str, sink: &mut impl Sink) -> serde_json::Result<()> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.deserialize_any(Root(sink))?;
    deserializer.end()
}

struct Root<'s, S>(&'s mut S);

impl<'de, S: Sink> Visitor<'de> for Root<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object or a list")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Key(key)) = map.next_key()? {
            let list = match &*key {
                "images" => List::Images,
                "annotations" => List::Annotations,
                "categories" => List::Categories,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            map.next_value_seed(Records(list, &mut *self.0))?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Records(List::Root, self.0).visit_seq(seq)
    }
}

struct Records<'s, S>(List, &'s mut S);

impl<'de, S: Sink> DeserializeSeed<'de> for Records<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Sink> Visitor<'de> for Records<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "a list of {}", format!("{:?}", self.0).to_lowercase())
    }

    /// `null` for an empty list.
    fn visit_unit<E>(self) -> Result<(), E> {
        self.1.begin(self.0);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self(list, sink) = self;
        sink.begin(list);
        let blocks = Mutex::new(BTreeMap::new());
        rayon::in_place_scope(|scope| {
            for first in (0..).step_by(BLOCK) {
                let mut records: Vec<&RawValue> = Vec::new();
                while records.len() < BLOCK {
                    let Some(record) = seq.next_element()? else { break };
                    records.push(record);
                }
                let is_last = records.len() < BLOCK;
                let blocks = &blocks;
                scope.spawn(move |_| {
                    let block = S::read(list, first, &records);
                    blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(first, block);
                });
                if is_last {
                    break;
                }
            }
            Ok(())
        })?;
        let blocks = blocks.into_inner().unwrap_or_else(PoisonError::into_inner);
        blocks.into_values().for_each(|block| sink.take(list, block));
        Ok(())
    }
}

/// The fields of a record, each as its JSON.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Of a record; none of what is no object.
    pub(crate) fn of(record: &'a RawValue) -> Option<Self> {
        Self::parse(record.get())
    }

    /// Of an object as text.
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The JSON of a field, the last of that name, as in Python; none if there is none.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.get())
    }

    /// As [`Fields::get`], but none if it is null.
    pub(crate) fn given(&self, name: &str) -> Option<&'a str> {
        self.get(name).filter(|value| *value != "null")
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| &**key)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl<'de> Visitor<'de> for Of {
            type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Key(key), value)) = map.next_entry()? {
                    fields.push((key, value));
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Of).map(Self)
    }
}
