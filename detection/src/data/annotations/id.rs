//! Ids of images, categories and annotations, of whatever type a file has them.

use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An id as it stands in a file. They sort as Python sorts them: numbers by size, texts by their
/// characters; numbers before texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Id {
    /// A number below 0.
    Negative(i128),
    /// Any other number; a float that is whole counts as one.
    Number(u128),
    /// A text.
    Text(String),
}

impl Id {
    /// From its JSON; none of what can be no id: a list, a fraction, null.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        match json.as_bytes().first()? {
            b'"' => {
                let text: String = serde_json::from_str(json).ok()?;
                (!text.is_empty()).then_some(Self::Text(text))
            }
            b'-' | b'0'..=b'9' => Self::of_number(json),
            _ => None,
        }
    }

    fn of_signed(number: i128) -> Self {
        u128::try_from(number).map_or(Self::Negative(number), Self::Number)
    }

    fn of_number(digits: &str) -> Option<Self> {
        if let Ok(number) = digits.parse() {
            return Some(Self::Number(number));
        }
        if let Ok(number) = digits.parse::<i128>() {
            return Some(Self::of_signed(number));
        }
        let number: f64 = digits.parse().ok()?;
        // Whole, and within what an i128 holds.
        (number.fract() == 0.0 && number.abs() < 1e38).then(|| Self::of_signed(number as i128))
    }

    /// As a number, where the number or the text is one of 64 bits.
    fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => u64::try_from(*number).ok(),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Negative(_) => None,
        }
    }

    /// The number of a text, the text of a number.
    fn of_other_type(&self) -> Option<Self> {
        match self {
            Self::Text(text) => Self::of_number(text.trim()),
            number => Some(Self::Text(number.to_string())),
        }
    }

    /// As checkpoints keep it: a number that needs more than 64 bits as a text.
    pub(crate) fn within_64_bits(&self) -> Self {
        match self {
            Self::Text(_) => self.clone(),
            Self::Number(number) if u64::try_from(*number).is_ok() => self.clone(),
            Self::Negative(number) if i64::try_from(*number).is_ok() => self.clone(),
            large => Self::Text(large.to_string()),
        }
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl PartialEq<u64> for Id {
    fn eq(&self, number: &u64) -> bool {
        matches!(self, Self::Number(own) if *own == u128::from(*number))
    }
}

/// Texts in quotes.
impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Negative(number) => write!(f, "{number}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Number(number) => match u64::try_from(*number) {
                Ok(number) => serializer.serialize_u64(number),
                Err(_) => serializer.serialize_u128(*number),
            },
            Self::Negative(number) => match i64::try_from(*number) {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => serializer.serialize_i128(*number),
            },
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Of;
        impl Visitor<'_> for Of {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an id: a whole number or a text")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Id, E> {
                Ok(Id::from(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Id, E> {
                Ok(Id::of_signed(number.into()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                Ok(Id::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(Of)
    }
}

/// The ids of one kind in a file, numbered for use inside.
///
/// Where all are numbers of 64 bits, each stands for itself. Otherwise they are numbered from 1
/// in their order, so that classes and images keep it.
#[derive(Debug, Clone, Default)]
pub(crate) struct IdTable(Option<Vec<Id>>);

impl IdTable {
    pub(crate) fn of(ids: impl Iterator<Item = Id> + Clone) -> Self {
        let plain = |id: Id| matches!(id, Id::Number(number) if u64::try_from(number).is_ok());
        if ids.clone().all(plain) {
            return Self(None);
        }
        let mut ids: Vec<Id> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        Self(Some(ids))
    }

    /// The number of `id`, and whether it is one of another type: the text "7" for 7, or 7 for
    /// the text. None of what the file has not, or may not have.
    pub(crate) fn find(&self, id: &Id) -> Option<(u64, bool)> {
        let Some(ids) = &self.0 else {
            return Some((id.as_u64()?, matches!(id, Id::Text(_))));
        };
        let place = |id: &Id| ids.binary_search(id).ok().map(|place| place as u64 + 1);
        let other = || Some((place(&id.of_other_type()?)?, true));
        place(id).map(|number| (number, false)).or_else(other)
    }

    /// The id that is numbered so.
    pub(crate) fn original(&self, number: u64) -> Id {
        let ids = self.0.as_ref();
        let id = ids.and_then(|ids| ids.get((number as usize).checked_sub(1)?));
        id.cloned().unwrap_or(Id::from(number))
    }
}

/// All ids of an annotation file.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    pub(crate) images: IdTable,
    pub(crate) categories: IdTable,
    /// By number from 1, where they are not all different numbers of 64 bits.
    pub(crate) annotations: Option<Vec<Option<Id>>>,
}

impl Ids {
    /// The id of the annotation numbered so, for a message.
    pub(crate) fn annotation(&self, number: u64) -> String {
        let Some(ids) = &self.annotations else { return format!("annotation {number}") };
        match ids.get((number as usize).wrapping_sub(1)) {
            Some(Some(id)) => format!("annotation {id}"),
            _ => format!("annotation without id ({number})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_every_type_are_read_and_written_as_they_were() {
        let cases = [
            ("7", Some("7")),
            ("7.0", Some("7")),
            ("-7", Some("-7")),
            ("-0", Some("0")),
            ("1e3", Some("1000")),
            ("\"7\"", Some("\"7\"")),
            ("\"a.png\"", Some("\"a.png\"")),
            ("18446744073709551616", Some("18446744073709551616")),
            (
                "340282366920938463463374607431768211455",
                Some("340282366920938463463374607431768211455"),
            ),
            (
                "-170141183460469231731687303715884105728",
                Some("-170141183460469231731687303715884105728"),
            ),
            ("7.5", None),
            ("1e40", None),
            ("\"\"", None),
            ("null", None),
            ("true", None),
            ("[7]", None),
        ];
        for (json, expected) in cases {
            let id = Id::parse(json);
            let written = id.as_ref().map(|id| serde_json::to_string(id).unwrap());
            assert_eq!(written.as_deref(), expected, "{json}");
            if let Some(id) = id.filter(|id| id.within_64_bits() == *id) {
                let json = serde_json::to_string(&id).unwrap();
                assert_eq!(serde_json::from_str::<Id>(&json).unwrap(), id);
            }
        }
    }

    #[test]
    fn numbers_stand_for_themselves_and_others_are_numbered_in_order() {
        let parse = |json: &[&str]| json.iter().map(|json| Id::parse(json).unwrap()).collect();
        let plain: Vec<Id> = parse(&["9", "3"]);
        let table = IdTable::of(plain.iter().cloned());
        assert_eq!(table.find(&Id::from(9)), Some((9, false)));
        assert_eq!(table.find(&Id::Text("9".into())), Some((9, true)));
        assert_eq!(table.find(&Id::Text("nine".into())), None);
        assert_eq!(table.original(9), 9);

        let mixed: Vec<Id> = parse(&["\"b\"", "9", "\"10\"", "-4", "\"b\""]);
        let table = IdTable::of(mixed.iter().cloned());
        let numbers: Vec<_> = mixed.iter().map(|id| table.find(id).unwrap().0).collect();
        assert_eq!(numbers, [4, 2, 3, 1, 4]);
        for (id, number) in mixed.iter().zip(numbers) {
            assert_eq!(table.original(number), *id);
        }
        assert_eq!(table.find(&Id::from(10)), Some((3, true)));
        assert_eq!(table.find(&Id::Text("-4".into())), Some((1, true)));
        assert_eq!(table.find(&Id::from(1)), None);
    }
}
