//! Settings in layers: defaults, a preset, a file, the command line, each laid over the one
//! before; and the rules that they are held to.

mod define;
mod flags;
mod groups;
mod rules;
mod span;

use std::path::Path;

use serde::Serialize;
use toml::Table;

use crate::{Error, Result, remote};

pub use define::Settings;
#[doc(hidden)]
pub use define::{Held, hold, key, put, take};
pub use flags::Given;
pub use groups::{
    CropSettings, ExecutionSettings, LoadingSettings, OptimSettings, RunSettings, TrainSettings,
};
pub use rules::{
    all_positive, ascending_to, at_least, decay_rate, divides, not_negative, share, within,
};
pub use span::Span;

/// The defaults of `S` with `layers` laid over them, later ones on top; tables within are laid
/// over each other in the same way. A key may be called by an alias of its flag.
///
/// # Errors
/// [`Error::Input`]: a layer has a key that is no setting, or a value of another type.
pub fn from_layers<S: Settings>(layers: impl IntoIterator<Item = Table>) -> Result<S> {
    let mut merged = merged::<S>(layers);
    let settings = S::default().take(&mut merged)?;
    let Some((key, value)) = merged.into_iter().next() else { return Ok(settings) };
    let names = define::names::<S>();
    let nearest = names.keys().max_by(|a, b| {
        let likeness = |name: &str| strsim::jaro_winkler(&key, name);
        likeness(a).total_cmp(&likeness(b))
    });
    let nearest = nearest.map(|name| format!("; the nearest is {name}")).unwrap_or_default();
    Err(Error::invalid(&key, value, format!("there is no such setting{nearest}")))
}

/// `layers` laid over each other, later ones on top, with the names that settings of `S` have now.
pub fn merged<S: Settings>(layers: impl IntoIterator<Item = Table>) -> Table {
    let names = define::names::<S>();
    let mut merged = Table::new();
    for layer in layers {
        let known = |(key, value)| (names.get(&key).cloned().unwrap_or(key), value);
        let mut layer = layer.into_iter().map(known).collect();
        S::rename(&mut layer);
        merge(&mut merged, layer);
    }
    merged
}

/// `upper` over `lower`, key by key and table by table.
pub fn merge(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => merge(below, above),
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// The settings in the TOML file at `path`, fetched if that is in object storage.
///
/// # Errors
/// [`Error::Input`] when it cannot be read or is no TOML; [`Error::Storage`].
pub fn read_table(path: &Path) -> Result<Table> {
    let shown = path.display();
    let local = match remote::is_url(path) {
        true => remote::local(path)?,
        false => path.into(),
    };
    let text = std::fs::read_to_string(&local)
        .map_err(|e| Error::data(format!("cannot read settings from {shown}: {e}")))?;
    text.parse().map_err(|e| Error::data(format!("{shown} is not valid TOML: {e}")))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_laid_over_each_other_key_by_key() {
        let mut lower: Table = "a = 1\n[t]\nx = 1\ny = [1, 2]".parse().unwrap();
        merge(&mut lower, "b = 2\n[t]\ny = [3]".parse().unwrap());
        assert_eq!(lower, "a = 1\nb = 2\n[t]\nx = 1\ny = [3]".parse().unwrap());
    }

    #[test]
    fn what_differs_is_told_by_name() {
        let table = |text: &str| text.parse::<Table>().unwrap();
        let told = differences(&table("a = 1\nb = 2\nc = 3"), &table("a = 1\nb = 4\nd = 5"));
        assert_eq!(told, ["b: 2 → 4", "c: 3 → none", "d: none → 5"]);
    }

    #[derive(Debug, Clone, Copy, PartialEq, clap::ValueEnum, Serialize, serde::Deserialize)]
    #[serde(rename_all = "kebab-case")]
    pub enum Colour {
        Red,
        DarkBlue,
    }

    crate::settings! {
        /// Of a group.
        #[command(next_help_heading = "Shared")]
        pub struct Shared {
            /// How many.
            #[arg(value_name = "N", alias = "how_many")]
            count: usize = 1, at_least(1);
            /// Whether.
            switch: bool = true;
        }
    }

    crate::settings! {
        /// Everything.
        pub struct All {
            ..shared: Shared = Shared { count: 7, ..Shared::default() };

            /// Where.
            path: std::path::PathBuf;
            /// Which colour.
            colour: Colour = Colour::DarkBlue;
            /// How wide.
            #[arg(value_name = "MIN,MAX")]
            width: Span = Span::new(0.5, 1.0), ascending_to(1.0);
            /// When; never if not given.
            #[arg(value_delimiter = ',')]
            when: Vec<u64> = vec![3, 4];
            /// A share, if any.
            share: Option<f64>, share;
            /// How far.
            #[arg(value_delimiter = ',')]
            far: Vec<f32> = vec![0.485, 3e9];
            @
            /// Not a flag.
            inner: Table = Table::from_iter([("deep".to_owned(), 1.into())]);
        }
    }

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        settings: Given<All>,
        /// Under no heading.
        #[arg(long)]
        behind: bool,
    }

    fn given(flags: &[&str]) -> Table {
        use clap::Parser as _;
        let cli = Cli::try_parse_from([&["program"], flags].concat()).unwrap();
        assert!(!cli.behind);
        cli.settings.table
    }

    fn layered(text: &str) -> Result<All> {
        from_layers([text.parse::<Table>().unwrap()])
    }

    #[test]
    fn only_flags_that_were_given_are_a_layer() {
        assert!(given(&[]).is_empty());
        let flags = ["--how_many", "7", "--switch", "--when", "5,6", "--width", "0.1,0.2"];
        let table = "count = 7\nswitch = true\nwhen = [5, 6]\nwidth = [0.1, 0.2]";
        assert_eq!(given(&flags), table.parse().unwrap());
        assert_eq!(given(&["--switch", "false", "--path", "x"])["switch"].as_bool(), Some(false));
    }

    #[test]
    fn help_shows_the_true_defaults() {
        use clap::CommandFactory as _;
        let help = Cli::command().render_long_help().to_string();
        for part in
            ["[default: 7]", "[default: dark-blue]", "[default: 0.5,1.0]", "[default: true]"]
        {
            assert!(help.contains(part), "{part}: {help}");
        }
        assert!(help.contains("Shared:") && !help.contains("[default: -]"), "{help}");
        assert!(!help.contains("--inner"), "{help}");
        let place = |part: &str| help.find(part).unwrap_or_else(|| panic!("no {part}: {help}"));
        let (own, group, behind) = (place("--path"), place("Shared:"), place("--behind"));
        assert!(own < group && behind < group && group < place("--count"), "{help}");
    }

    #[test]
    fn layers_make_settings_and_settings_a_table() {
        let all = layered("how-many = 3\nshare = 0.5\n[inner]\ndeep = 2").unwrap();
        assert_eq!((all.shared.count, all.share, all.colour), (3, Some(0.5), Colour::DarkBlue));
        assert_eq!(all.inner["deep"].as_integer(), Some(2));
        let text = toml::to_string(&all).unwrap();
        assert!(text.contains("far = [0.485, 3000000000.0]"), "{text}");
        assert_eq!(toml::from_str::<All>(&text).unwrap(), all);
        let json = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<All>(&json).unwrap(), all);
    }

    #[test]
    fn what_is_no_setting_or_of_another_type_is_told() {
        let told = |text: &str| layered(text).unwrap_err().to_string();
        assert_eq!(
            told("coun = 3"),
            "coun is 3, but there is no such setting; the nearest is count"
        );
        assert_eq!(told("count = \"x\""), "count is \"x\", but usize is expected");
        let long = told(&format!("count = \"{}\"", "ä".repeat(300)));
        assert_eq!(long, format!("count is \"{}…, but usize is expected", "ä".repeat(59)));
        assert!(told("colour = \"pink\"").contains("but `red` or `dark-blue` is expected"));
    }

    #[test]
    fn each_setting_is_held_to_its_rule() {
        let broken = |text: &str| layered(text).unwrap().check_each().unwrap_err().to_string();
        assert_eq!(broken("count = 0"), "count is 0, but it must be at least 1");
        assert_eq!(broken("share = 2.0"), "share is 2, but it must be in [0, 1]");
        let rule = "it must ascend from above 0 to at most 1";
        assert_eq!(broken("width = [0.5, 0.1]"), format!("width is 0.5–0.1, but {rule}"));
        assert!(layered("").unwrap().check_each().is_ok());
    }
}
