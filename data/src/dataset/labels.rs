//! Labels that lie beside images in shards: WebDataset's `.cls` and `.json` members.
//!
//! Files of one sample have the same name up to the first dot after the last slash. A `.cls` member
//! holds the number of a class, or its name; a `.json` member an object whose `label`, `cls` or
//! `class` is one or the other.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::path::Path;

use crate::names::{python_order, quoted, readable_bytes};
use crate::{Error, Result};

/// Longest member that is read for its label, in bytes.
const MOST: u64 = 1 << 20;
/// Keys of a `.json` member that may hold the label, the first that is there counts.
const KEYS: [&str; 3] = ["label", "cls", "class"];

/// The name of a member's sample: its own up to the first dot after the last slash.
pub(super) fn sample(name: &[u8]) -> &[u8] {
    &name[..parts(name)]
}

fn parts(name: &[u8]) -> usize {
    let start = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    name[start..].iter().position(|&b| b == b'.').map_or(name.len(), |dot| start + dot)
}

/// The label in a member of the archive at `path`; none if it holds none.
///
/// # Errors
/// [`Error::Data`] for a member that should hold one and can't be read as such.
pub(super) fn of_member(
    path: &Path,
    name: &[u8],
    size: u64,
    content: &mut impl Read,
) -> Result<Option<Vec<u8>>> {
    let is_json = match &name[parts(name)..] {
        b".cls" => false,
        b".json" => true,
        _ => return Ok(None),
    };
    let shown = || format!("{}:{}", path.display(), readable_bytes(name));
    if size > MOST {
        // Annotations of another kind, larger than any label.
        return Ok(None);
    }
    let mut bytes = Vec::new();
    content.read_to_end(&mut bytes).map_err(|e| super::remote::failed(&shown(), e))?;
    if is_json {
        return of_json(&bytes).map_err(|problem| Error::Data(format!("{}: {problem}", shown())));
    }
    let label = bytes.trim_ascii().to_vec();
    if label.is_empty() || std::str::from_utf8(&label).is_err() {
        let rule = "it holds no label; a .cls member is the number of a class, or its name";
        return Err(Error::Data(format!("{}: {rule}", shown())));
    }
    Ok(Some(label))
}

fn of_json(bytes: &[u8]) -> std::result::Result<Option<Vec<u8>>, String> {
    use serde_json::Value;
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("no JSON: {e}"))?;
    let Some((key, label)) = KEYS.iter().find_map(|key| Some((key, value.get(key)?))) else {
        return Ok(None);
    };
    match label {
        Value::String(name) if !name.trim().is_empty() => Ok(Some(name.trim().into())),
        Value::Number(number) if number.is_u64() => Ok(Some(number.to_string().into())),
        other => Err(format!(
            "\"{key}\" is {other}, but a label is the number of a class (from 0) or its name"
        )),
    }
}

/// The classes of labels.
pub(super) struct Labelling {
    /// The classes' names by number.
    pub classes: Vec<String>,
    /// The number of each label as it is written.
    pub numbers: HashMap<Vec<u8>, u32>,
}

impl Labelling {
    /// Of all labels of the data set `shown`. `known` are the classes, if they are: a training
    /// set's, or those that a file beside the shards names.
    ///
    /// # Errors
    /// [`Error::Data`] for numbers among names, labels that are no known class, and a single
    /// class.
    pub(super) fn of(
        shown: &str,
        labels: &BTreeSet<&[u8]>,
        known: Option<Vec<String>>,
    ) -> Result<Self> {
        let refused = |problem: String| Error::Data(format!("{shown}: {problem}"));
        let number = |label: &[u8]| std::str::from_utf8(label).ok()?.parse::<u32>().ok();
        let text = |label: &[u8]| readable_bytes(label);
        let named = known.as_ref().and_then(|known| {
            let numbers: HashMap<&str, u32> = known.iter().map(String::as_str).zip(0..).collect();
            labels.iter().map(|l| Some((l.to_vec(), *numbers.get(&*text(l))?))).collect()
        });
        let numbers: Vec<(Vec<u8>, Option<u32>)> =
            labels.iter().map(|label| (label.to_vec(), number(label))).collect();
        let are_numbers = numbers.iter().all(|(_, number)| number.is_some());
        if !are_numbers
            && let Some((odd, _)) = numbers.iter().find(|(_, n)| n.is_some())
            && known.is_none()
        {
            let (odd, name) = (text(odd), numbers.iter().find(|(_, n)| n.is_none()));
            let name = name.map_or(String::new(), |(name, _)| text(name));
            return Err(refused(format!(
                "labels are numbers as well as names ({odd}, {}); they must be of one kind",
                quoted(&name)
            )));
        }
        let labelling = match (known, named) {
            (Some(classes), Some(numbers)) => Labelling { classes, numbers },
            (Some(classes), None) => {
                let numbers = Self::numbered(numbers, classes.len()).map_err(|odd| {
                    refused(format!(
                        "the label {} is none of the {} known classes, neither by name nor by \
                         number",
                        quoted(&odd),
                        classes.len()
                    ))
                })?;
                Labelling { classes, numbers }
            }
            (None, _) if are_numbers => {
                /// More classes than any data set has.
                const MOST: u32 = 10_000_000;
                let count = numbers.iter().filter_map(|(_, n)| *n).max().unwrap_or(0);
                if count >= MOST {
                    return Err(refused(format!(
                        "the label {count} is a number, but there are at most {MOST} classes"
                    )));
                }
                let classes: Vec<String> = (0..=count).map(|number| number.to_string()).collect();
                let numbers = Self::numbered(numbers, classes.len()).unwrap_or_default();
                Labelling { classes, numbers }
            }
            (None, _) => {
                let mut labels: Vec<Vec<u8>> = numbers.into_iter().map(|(l, _)| l).collect();
                labels.sort_by_cached_key(|label| python_order(text(label)));
                let classes = labels.iter().map(|label| text(label)).collect();
                Labelling { classes, numbers: labels.into_iter().zip(0..).collect() }
            }
        };
        if labelling.classes.len() < 2 {
            return Err(refused("all images have one label; at least two are needed".into()));
        }
        Ok(labelling)
    }

    /// Labels that are numbers below `count`; the first that isn't.
    fn numbered(
        labels: Vec<(Vec<u8>, Option<u32>)>,
        count: usize,
    ) -> std::result::Result<HashMap<Vec<u8>, u32>, String> {
        let number = |(label, number): (Vec<u8>, Option<u32>)| match number {
            Some(number) if (number as usize) < count => Ok((label, number)),
            _ => Err(readable_bytes(&label)),
        };
        labels.into_iter().map(number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, content: &str) -> Result<Option<String>> {
        let read = of_member(
            Path::new("a.tar"),
            name.as_bytes(),
            content.len() as u64,
            &mut content.as_bytes(),
        )?;
        Ok(read.map(|label| String::from_utf8(label).unwrap()))
    }

    #[test]
    fn labels_are_read_in_both_forms() {
        assert_eq!(label("x/a.cls", "12\n").unwrap().as_deref(), Some("12"));
        assert_eq!(label("a.json", r#"{"label": 3, "cls": "no"}"#).unwrap().as_deref(), Some("3"));
        assert_eq!(label("a.json", r#"{"class": "cat"}"#).unwrap().as_deref(), Some("cat"));
        assert_eq!(label("a.json", r#"{"caption": "a cat"}"#).unwrap(), None);
        assert_eq!(label("a.jpg", "1").unwrap(), None);
        assert_eq!(label("a.seg.cls", "1").unwrap(), None);
        assert_eq!(sample(b"x.y/a.seg.png"), b"x.y/a");
        for (name, content, said) in [
            ("a.cls", " ", "a.tar:a.cls: it holds no label"),
            ("a.json", "{", "a.tar:a.json: no JSON"),
            ("a.json", r#"{"label": -1}"#, "\"label\" is -1"),
            ("a.json", r#"{"label": 1.5}"#, "\"label\" is 1.5"),
        ] {
            let message = label(name, content).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    fn of(labels: &[&str], known: Option<&[&str]>) -> Result<Labelling> {
        let labels = labels.iter().map(|label| label.as_bytes()).collect();
        let known = known.map(|known| known.iter().map(|&name| name.to_owned()).collect());
        Labelling::of("set", &labels, known)
    }

    #[test]
    fn classes_follow_from_labels() {
        let numbers = of(&["0", "10", "2"], None).unwrap();
        assert_eq!((numbers.classes.len(), numbers.numbers[&b"10"[..]]), (11, 10));
        let names = of(&["cat", "Dog", "ant"], None).unwrap();
        assert_eq!(names.classes, ["Dog", "ant", "cat"]);
        assert_eq!(names.numbers[&b"cat"[..]], 2);
        let known = Some(&["ant", "bee", "cow"][..]);
        assert_eq!(of(&["cow"], known).unwrap().numbers[&b"cow"[..]], 2);
        assert_eq!(of(&["1"], known).unwrap().numbers[&b"1"[..]], 1);
        for (labels, known, said) in [
            (&["1", "cat"][..], None, "numbers as well as names"),
            (&["3"], known, "the label \"3\" is none of the 3 known classes"),
            (&["dog"], known, "\"dog\" is none"),
            (&["cat"], None, "one label"),
        ] {
            let message = of(labels, known).map(drop).unwrap_err().to_string();
            assert!(message.starts_with("set: ") && message.contains(said), "{message}");
        }
    }
}
