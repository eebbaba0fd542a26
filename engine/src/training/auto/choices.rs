//! Settings that are chosen, each with its reason.

use std::fmt;
use std::marker::PhantomData;

use serde::Serialize;
use toml::{Table, Value};

use crate::settings::{Settings, from_layers, merge, put};
use crate::{Error, Result};

/// What a run is told, and what is chosen besides. What is given stays.
#[derive(Debug, Clone)]
pub struct Choices<C> {
    given: Table,
    chosen: Table,
    rows: Vec<Row>,
    settings: PhantomData<C>,
}

/// A line of the table that a person reads.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    setting: String,
    value: String,
    why: String,
}

/// Letters of a value that the table has room for.
const WIDEST: usize = 24;

impl<C: Settings> Choices<C> {
    /// Nothing is chosen yet; `given` has the settings' own names, not aliases
    /// ([`merged`](crate::settings::merged)).
    pub fn new(given: Table) -> Self {
        Self { given, chosen: Table::new(), rows: Vec::new(), settings: PhantomData }
    }

    /// Whether a setting is given, or one within a table: `model.anchors`.
    pub fn is_given(&self, path: &str) -> bool {
        let mut table = Some(&self.given);
        let mut parts = path.split('.').peekable();
        while let (Some(part), Some(here)) = (parts.next(), table) {
            let Some(value) = here.get(part) else { return false };
            if parts.peek().is_none() {
                return true;
            }
            table = value.as_table();
        }
        false
    }

    /// Whether all of these are given, so that nothing is left to choose.
    pub fn are_given(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| self.is_given(path))
    }

    /// Gives the setting at `path` a value, unless it is given; whether it did.
    ///
    /// # Errors
    /// [`Error::Input`] for a value that TOML cannot hold.
    pub fn choose(
        &mut self,
        path: &str,
        value: impl Serialize,
        why: impl Into<String>,
    ) -> Result<bool> {
        let Some(value) = self.put(path, value)? else { return Ok(false) };
        let value: String = value.trim_matches('"').chars().take(WIDEST).collect();
        self.rows.retain(|row| row.setting != path);
        self.rows.push(Row { setting: path.into(), value, why: why.into() });
        Ok(true)
    }

    /// The same for one that follows from others, and is not shown.
    ///
    /// # Errors
    /// As [`Choices::choose`].
    pub fn follow(&mut self, path: &str, value: impl Serialize) -> Result<()> {
        self.put(path, value).map(|_| ())
    }

    /// Lays `layer`, a preset's, below everything that is chosen; nothing of it is shown.
    pub fn base(&mut self, layer: Table) {
        let above = std::mem::replace(&mut self.chosen, layer);
        merge(&mut self.chosen, above);
    }

    fn put(&mut self, path: &str, value: impl Serialize) -> Result<Option<String>> {
        if self.is_given(path) {
            return Ok(None);
        }
        let mut parts: Vec<&str> = path.split('.').collect();
        let last = parts.pop().unwrap_or_default();
        let mut layer = Table::new();
        put(&mut layer, last, &value);
        let value = layer.get(last).map(Value::to_string);
        let value = value.ok_or_else(|| Error::data(format!("no value for {path}")))?;
        for part in parts.into_iter().rev() {
            layer = Table::from_iter([(part.to_owned(), Value::Table(layer))]);
        }
        merge(&mut self.chosen, layer);
        Ok(Some(value))
    }

    /// The settings as far as they are chosen; defaults below.
    ///
    /// # Errors
    /// [`Error::Input`] for a value of another type than its setting.
    pub fn settings(&self) -> Result<C> {
        from_layers(self.layers())
    }

    /// The same with `over` laid over everything, what is given too.
    ///
    /// # Errors
    /// As [`Choices::settings`].
    pub fn settings_with(&self, over: Table) -> Result<C> {
        from_layers(self.layers().into_iter().chain([over]))
    }

    /// What is chosen, with what is given over it.
    pub fn layers(&self) -> [Table; 2] {
        [self.chosen.clone(), self.given.clone()]
    }

    /// Whether there is anything to show.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

/// A line for each choice: setting, value, reason.
impl<C> fmt::Display for Choices<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |of: fn(&Row) -> &String| {
            self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0)
        };
        let (settings, values) = (widest(|row| &row.setting), widest(|row| &row.value));
        for (number, Row { setting, value, why }) in self.rows.iter().enumerate() {
            let end = if number + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "  {setting:<settings$}  {value:<values$}  {why}{end}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::OptimSettings;

    fn choices(given: &str) -> Choices<OptimSettings> {
        Choices::new(given.parse().unwrap())
    }

    #[test]
    fn what_is_given_stays_and_is_not_shown() {
        let mut choices = choices("epochs = 3");
        assert!(!choices.choose("epochs", 800, "few images").unwrap());
        assert!(choices.choose("batch-size", 32, "few images").unwrap());
        choices.follow("base-lr", 0.5).unwrap();
        let settings = choices.settings().unwrap();
        assert_eq!((settings.epochs, settings.batch_size, settings.base_lr), (3, 32, 0.5));
        assert_eq!(choices.to_string(), "  batch-size  32  few images");
    }

    #[test]
    fn a_later_choice_and_a_preset_below() {
        let mut choices = choices("");
        choices.choose("batch-size", 64, "to begin with").unwrap();
        choices.choose("epochs", 5, "why not").unwrap();
        choices.choose("batch-size", 8, "memory").unwrap();
        choices.base("batch-size = 1\nbeta1 = 0.5".parse().unwrap());
        let settings = choices.settings().unwrap();
        assert_eq!((settings.batch_size, settings.beta1), (8, 0.5));
        assert_eq!(choices.to_string(), "  epochs      5  why not\n  batch-size  8  memory");
    }

    #[test]
    fn tables_within_are_known_by_their_path() {
        let mut choices = choices("[model.anchors]\nsizes = [[8.0]]\n[model.roi]\nscore = 1");
        assert!(choices.is_given("model.anchors.sizes") && choices.is_given("model.roi"));
        assert!(!choices.is_given("model.rpn") && !choices.is_given("model.anchors.sizes.x"));
        assert!(choices.are_given(&["model", "model.roi.score"]));
        choices.follow("model.roi.canonical-size", 56.0).unwrap();
        choices.follow("model.anchors.sizes", 1).unwrap();
        let [chosen, _] = choices.layers();
        assert_eq!(chosen, "[model.roi]\ncanonical-size = 56.0".parse().unwrap());
    }
}
