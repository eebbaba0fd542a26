//! Which class a folder's images have.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::Path;

use words::counted;

use crate::names::{composed, quoted, readable};
use crate::{Error, Result};

/// Class folders and their classes.
#[derive(Debug)]
pub(super) struct Classes {
    /// By number.
    pub names: Vec<String>,
    /// The class of each folder.
    pub numbers: HashMap<OsString, u32>,
    /// What is worth a look, in sentences.
    pub notes: Vec<String>,
}

impl Classes {
    /// Of the folders `found` in `folder`: each a class of its own, or one of the `known` classes
    /// of its name.
    ///
    /// # Errors
    /// [`Error::Data`] when there are too few folders, or one that is no known class.
    pub(super) fn of(folder: &Path, found: &[OsString], known: Option<&[String]>) -> Result<Self> {
        match (found, known) {
            ([], _) => Err(problem_with(
                folder,
                "no class folders in it; images are read from one folder a class, such as \
                 train/cat/1.jpg",
            )),
            ([only], None) => {
                let only = quoted(&readable(only));
                let problem = format!("only one class folder, {only}; at least two are needed");
                Err(problem_with(folder, &problem))
            }
            (_, None) => Ok(Self::new(folder, found)),
            (_, Some(known)) => Self::among(folder, found, known),
        }
    }

    fn new(folder: &Path, found: &[OsString]) -> Self {
        let names: Vec<String> = found.iter().map(readable).collect();
        let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        names.iter().for_each(|name| alike.entry(blurred(name)).or_default().push(name));
        let notes = alike.into_values().filter(|names| names.len() > 1).map(|names| {
            let count = names.len();
            let names = listed(names.into_iter().map(spelt));
            note(folder, &format!(
                "the class folders {names} differ in nothing but case, spaces or Unicode normal \
                 form: they are {count} classes"
            ))
        });
        let notes = notes.collect();
        let numbers = found.iter().cloned().zip(0..).collect();
        Classes { names, numbers, notes }
    }

    fn among(folder: &Path, found: &[OsString], known: &[String]) -> Result<Self> {
        let lookup = Lookup::new(known);
        let (mut numbers, mut notes, mut unknown) = (HashMap::new(), Vec::new(), Vec::new());
        for found in found {
            let name = readable(found);
            let Some(number) = lookup.number(&name) else {
                unknown.push(name);
                continue;
            };
            let class = &known[number as usize];
            if *class != name {
                let (name, class) = (spelt(&name), spelt(class));
                notes.push(note(folder, &format!(
                    "the class folder {name} is taken for the class {class}: the same letters in \
                     another Unicode normal form"
                )));
            }
            numbers.insert(found.clone(), number);
        }
        let is_found = |&number: &u32| numbers.values().any(|&found| found == number);
        let missing: Vec<&String> =
            (0u32..).zip(known).filter(|(number, _)| !is_found(number)).map(|(_, n)| n).collect();
        if !unknown.is_empty() {
            return Err(foreign(folder, &unknown, known, &missing));
        }
        if !missing.is_empty() {
            let (count, all) = (missing.len(), known.len());
            let names = listed(missing.into_iter().map(|name| quoted(name)));
            notes.push(note(
                folder,
                &format!("no folder for {count} of the {all} classes: {names}"),
            ));
        }
        Ok(Classes { names: known.to_vec(), numbers, notes })
    }
}

/// Classes by name, exactly or else in the same Unicode normal form.
struct Lookup<'a> {
    exact: HashMap<&'a str, u32>,
    /// None where several have the same.
    composed: HashMap<String, Option<u32>>,
}

impl<'a> Lookup<'a> {
    fn new(names: &'a [String]) -> Self {
        let mut normal: HashMap<String, Option<u32>> = HashMap::new();
        for (name, number) in names.iter().zip(0..) {
            normal.entry(composed(name)).and_modify(|n| *n = None).or_insert(Some(number));
        }
        Lookup { exact: names.iter().map(String::as_str).zip(0..).collect(), composed: normal }
    }

    fn number(&self, name: &str) -> Option<u32> {
        let normal = || self.composed.get(&composed(name)).copied().flatten();
        self.exact.get(name).copied().or_else(normal)
    }
}

/// That the folders `unknown` are none of the `known` classes, of which `missing` have no folder.
fn foreign(folder: &Path, unknown: &[String], known: &[String], missing: &[&String]) -> Error {
    let meant = |name: &String| {
        let class = missing.iter().find(|class| blurred(class) == blurred(name));
        let hint = class.map(|class| format!(" (the class is {})", spelt(class)));
        format!("{}{}", spelt(name), hint.unwrap_or_default())
    };
    let names = listed(unknown.iter().map(meant));
    let (unknowns, all) = (counted(unknown.len(), "class folder"), known.len());
    let mut problem =
        format!("{unknowns} with the name of none of the {all} known classes: {names}");
    if !missing.is_empty() {
        let missing = listed(missing.iter().map(|name| quoted(name)));
        problem += &format!("; known classes that have no folder there: {missing}");
    }
    problem_with(folder, &problem)
}

/// What is left of a name when case, spaces and normal form are taken off.
fn blurred(name: &str) -> String {
    composed(name).to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A name in quotes; where it is not ASCII with its code points, which tell what looks the same.
fn spelt(name: &str) -> String {
    let escaped: String = name
        .chars()
        .map(|c| if c.is_ascii() { c.to_string() } else { c.escape_unicode().to_string() })
        .collect();
    match name.is_ascii() {
        true => quoted(name),
        false => format!("{} ({escaped})", quoted(name)),
    }
}

/// The first few of `names`.
pub(super) fn listed(names: impl Iterator<Item = String>) -> String {
    const LISTED: usize = 5;
    let names: Vec<String> = names.take(LISTED + 1).collect();
    let more = if names.len() > LISTED { ", …" } else { "" };
    format!("{}{more}", names[..names.len().min(LISTED)].join(", "))
}

fn note(folder: &Path, text: &str) -> String {
    format!("{}: {text}", folder.display())
}

pub(super) fn problem_with(folder: &Path, problem: &str) -> Error {
    Error::Data(format!("{}: {problem}", folder.display()))
}
