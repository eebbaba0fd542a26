//! Settings in layers: defaults, a preset, a file, the command line, each laid
//! over the one before; and the rules that they are held to.

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Table;

use crate::{Error, Result};

/// The defaults of `T` with `layers` laid over them, later ones on top; tables
/// within are laid over each other in the same way.
///
/// # Errors
/// [`Error::Data`]: a layer has a key that is no setting, or a value of another
/// type.
pub fn from_layers<T: DeserializeOwned>(layers: impl IntoIterator<Item = Table>) -> Result<T> {
    let mut merged = Table::new();
    for layer in layers {
        lay_over(&mut merged, layer);
    }
    merged
        .try_into()
        .map_err(|e| Error::Data(format!("these settings do not make a configuration: {e}")))
}

/// `upper` over `lower`, key by key and table by table.
pub fn lay_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// The settings in the TOML file at `path`.
///
/// # Errors
/// [`Error::Data`] when it cannot be read or is no TOML.
pub fn read_table(path: &Path) -> Result<Table> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::Data(format!("cannot read settings from {shown}: {e}")))?;
    text.parse().map_err(|e| Error::Data(format!("{shown} is not valid TOML: {e}")))
}

/// Settings that differ, as `name: old → new`.
pub fn differences<T: Serialize>(old: &T, new: &T) -> Vec<String> {
    let table = |config: &T| Table::try_from(config).unwrap_or_default();
    let (old, new) = (table(old), table(new));
    let text = |value: Option<&toml::Value>| value.map_or("none".into(), |v| v.to_string());
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| old.get(*name) != new.get(*name))
        .map(|name| format!("{name}: {} → {}", text(old.get(name)), text(new.get(name))))
        .collect()
}

/// Refuses a value below `least`.
///
/// # Errors
/// [`Error::Invalid`].
pub fn at_least<T: PartialOrd + Display>(name: &str, value: T, least: T) -> Result<()> {
    match value >= least {
        true => Ok(()),
        false => Err(Error::invalid(name, value, format!("it must be at least {least}"))),
    }
}

/// Refuses a value that is not `inside` the `range`, which the message names.
///
/// # Errors
/// [`Error::Invalid`].
pub fn within(name: &str, value: f64, inside: bool, range: &str) -> Result<()> {
    match inside {
        true => Ok(()),
        false => Err(Error::invalid(name, value, format!("it must be in {range}"))),
    }
}

/// Refuses a value that is negative or no number.
///
/// # Errors
/// [`Error::Invalid`].
pub fn not_negative(name: &str, value: f64) -> Result<()> {
    within(name, value, value >= 0.0 && value.is_finite(), "[0, ∞)")
}

/// Refuses a `part` that the `whole` is no multiple of.
///
/// # Errors
/// [`Error::Invalid`].
pub fn divides(part_name: &str, part: usize, whole_name: &str, whole: usize) -> Result<()> {
    match whole.is_multiple_of(part) {
        true => Ok(()),
        false => {
            Err(Error::invalid(part_name, part, format!("it must divide {whole_name} {whole}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_laid_over_each_other_key_by_key() {
        let mut lower: Table = "a = 1\n[t]\nx = 1\ny = [1, 2]".parse().unwrap();
        lay_over(&mut lower, "b = 2\n[t]\ny = [3]".parse().unwrap());
        assert_eq!(lower, "a = 1\nb = 2\n[t]\nx = 1\ny = [3]".parse().unwrap());
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let table = |text: &str| text.parse::<Table>().unwrap();
        let told = differences(&table("a = 1\nb = 2\nc = 3"), &table("a = 1\nb = 4\nd = 5"));
        assert_eq!(told, ["b: 2 → 4", "c: 3 → none", "d: none → 5"]);
    }
}
