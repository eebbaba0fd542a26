//! Declaring settings: name, type, default, help, alias and rule stand in one place.

use std::collections::BTreeMap;
use std::fmt::Display;

use clap::{Arg, Command};
use data::names::abbreviated;
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::{Error, Result};

/// Settings of a program: fields, keys of a TOML file and flags at once, declared with
/// [`settings!`](crate::settings!).
pub trait Settings: clap::Args + Default {
    /// The settings by key; one without a value is left out.
    fn to_table(&self) -> Table;

    /// The defaults, with what `table` has of these settings, which is taken out of it.
    ///
    /// # Errors
    /// [`Error::Input`] for a value of another type.
    fn take(self, table: &mut Table) -> Result<Self>;

    /// Holds each setting to its rule.
    ///
    /// # Errors
    /// [`Error::Input`] for the first that breaks it.
    fn check_each(&self) -> Result<()>;

    /// Keys of settings that are no flags.
    fn file_keys() -> Vec<String>;

    /// Brings former names within `layer`, a file or the like, to those of now, before it is laid
    /// over others; aliases of whole keys need no word here.
    fn rename(_layer: &mut Table) {}

    /// Brings the settings in a checkpoint of the first version to the meaning they have now.
    fn upgrade(_config: &mut serde_json::Map<String, serde_json::Value>) {}
}

/// Declares a struct of settings:
///
/// ```
/// use engine::settings;
/// use engine::settings::{LoadingSettings, Settings as _, at_least};
///
/// settings! {
///     /// How long and on what to train.
///     pub struct Training {
///         // A group that programs share, here with another default.
///         ..loading: LoadingSettings = LoadingSettings { max_corrupt: 0.5, ..Default::default() };
///
///         /// Images per optimizer step.
///         #[arg(value_name = "N", alias = "bs")]
///         batch_size: usize = 32, at_least(1);
///         /// Drop-path rate of the last block; the model's own if not given.
///         drop_path: Option<f64>;
///     }
/// }
/// assert_eq!(Training::default().to_table()["batch-size"].as_integer(), Some(32));
/// ```
///
/// The comment is the flag's help, which shows the default too; `#[arg(…)]` is clap's; aliases
/// hold for flags and for keys of files. What follows the comma is the rule, a function of name and
/// value such as [`at_least`](super::at_least); of an `Option` it holds the value, if there is one.
/// A field after `@` is a key of files alone and no flag. `rename = function;` and
/// `upgrade = function;` at the end are [`Settings::rename`] and [`Settings::upgrade`].
#[macro_export]
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( ..$group:ident : $group_type:ty = $group_default:expr; )*
            $(
                $(#[$field_meta:meta])*
                $field:ident : $type:ty $(= $default:expr)? $(, $rule:expr)?;
            )*
            $(
                @
                $(#[$table_meta:meta])*
                $table:ident : $table_type:ty = $table_default:expr;
            )*
            $( rename = $rename:expr; )?
            $( upgrade = $upgrade:expr; )?
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, ::clap::Args)]
        $(#[$meta])*
        pub struct $name {
            $( #[arg(long, required = false)] $(#[$field_meta])* pub $field: $type, )*
            $( #[arg(skip = $table_default)] $(#[$table_meta])* pub $table: $table_type, )*
            // Last: the heading of a group would hold for the flags behind it.
            $(
                #[allow(missing_docs)]
                #[command(flatten)]
                pub $group: $group_type,
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $( $group: $group_default, )*
                    $( $field: $crate::setting_default!($($default)?), )*
                    $( $table: $table_default, )*
                }
            }
        }

        impl $crate::settings::Settings for $name {
            fn to_table(&self) -> ::toml::Table {
                #[allow(unused_mut)]
                let mut table = ::toml::Table::new();
                $( table.extend($crate::settings::Settings::to_table(&self.$group)); )*
                $( $crate::settings::put(&mut table, stringify!($field), &self.$field); )*
                $( $crate::settings::put(&mut table, stringify!($table), &self.$table); )*
                table
            }

            fn take(self, table: &mut ::toml::Table) -> $crate::Result<Self> {
                Ok(Self {
                    $( $group: $crate::settings::Settings::take(self.$group, table)?, )*
                    $( $field: $crate::settings::take(table, stringify!($field), self.$field)?, )*
                    $( $table: $crate::settings::take(table, stringify!($table), self.$table)?, )*
                })
            }

            fn check_each(&self) -> $crate::Result<()> {
                $( $crate::settings::Settings::check_each(&self.$group)?; )*
                $( $( $crate::settings::hold(stringify!($field), &self.$field, $rule)?; )? )*
                Ok(())
            }

            fn file_keys() -> Vec<String> {
                #[allow(unused_mut)]
                let mut keys: Vec<String> =
                    vec![$( $crate::settings::key(stringify!($table)), )*];
                $( keys.extend(<$group_type as $crate::settings::Settings>::file_keys()); )*
                keys
            }

            #[allow(unused_variables)]
            fn rename(layer: &mut ::toml::Table) {
                $( <$group_type as $crate::settings::Settings>::rename(layer); )*
                $( $rename(layer); )?
            }

            $(
                fn upgrade(config: &mut ::serde_json::Map<String, ::serde_json::Value>) {
                    $upgrade(config);
                }
            )?
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, to: S) -> ::std::result::Result<S::Ok, S::Error> {
                $crate::settings::Settings::to_table(self).serialize(to)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(from: D) -> ::std::result::Result<Self, D::Error> {
                let table = ::toml::Table::deserialize(from)?;
                $crate::settings::from_layers([table]).map_err(::serde::de::Error::custom)
            }
        }
    };
}

/// The default of a setting; none is an empty `Option`, text or path.
#[doc(hidden)]
#[macro_export]
macro_rules! setting_default {
    () => {
        ::std::default::Default::default()
    };
    ($default:expr) => {
        $default
    };
}

/// The key of the field `name`: `batch-size` of `batch_size`.
#[doc(hidden)]
pub fn key(name: &str) -> String {
    name.replace('_', "-")
}

/// Adds a setting to `table`, if it has a value.
#[doc(hidden)]
pub fn put<T: Serialize>(table: &mut Table, name: &str, value: &T) {
    // Of all types that settings have only an empty `Option` is no TOML.
    let Ok(value) = Value::try_from(value) else { return };
    // TOML's numbers are float64, where one of float32 has digits that nobody gave it.
    let is_single = std::any::type_name::<T>().contains("f32");
    table.insert(key(name), if is_single { shortest(value) } else { value });
}

/// Numbers of float32 with no more digits than it takes to tell them apart: 0.485, and not
/// 0.48500001430511475.
fn shortest(value: Value) -> Value {
    match value {
        Value::Float(number) => (number as f32).to_string().parse().map_or(value, Value::Float),
        Value::Array(values) => Value::Array(values.into_iter().map(shortest).collect()),
        other => other,
    }
}

/// Takes a setting out of `table`; `default` if it is not there.
#[doc(hidden)]
pub fn take<T: DeserializeOwned>(table: &mut Table, name: &str, default: T) -> Result<T> {
    let key = key(name);
    let Some(value) = table.remove(&key) else { return Ok(default) };
    let given = shown(&value);
    value.try_into().map_err(|error: toml::de::Error| {
        let problem = error.message();
        let rule = match problem.split_once(", expected ") {
            Some((_, expected)) => format!("{expected} is expected"),
            None => problem.to_owned(),
        };
        Error::invalid(key, given, rule)
    })
}

/// A value as messages show it: of a long one the beginning.
fn shown(value: &Value) -> String {
    abbreviated(&value.to_string(), 60).into_owned()
}

/// A setting's value, of which an empty `Option` has none.
#[doc(hidden)]
pub trait Held<T> {
    fn held(&self) -> Option<&T>;
}

impl<T> Held<T> for T {
    fn held(&self) -> Option<&T> {
        Some(self)
    }
}

impl<T> Held<T> for Option<T> {
    fn held(&self) -> Option<&T> {
        self.as_ref()
    }
}

/// Holds a setting to its rule.
#[doc(hidden)]
pub fn hold<F: Held<T>, T>(
    name: &str,
    field: &F,
    rule: impl Fn(&str, &T) -> Result<()>,
) -> Result<()> {
    field.held().map_or(Ok(()), |value| rule(&key(name), value))
}

/// The flags of `S`, as clap knows them.
fn flags_of<S: Settings>() -> Vec<Arg> {
    S::augment_args(Command::new("settings")).get_arguments().cloned().collect()
}

/// Every key of `S`, and what else it may be called, by that name.
pub(super) fn names<S: Settings>() -> BTreeMap<String, String> {
    let mut names: BTreeMap<String, String> =
        S::file_keys().into_iter().map(|name| (name.clone(), name)).collect();
    for flag in flags_of::<S>() {
        let own = key(flag.get_id().as_str());
        for alias in flag.get_all_aliases().unwrap_or_default() {
            names.insert(key(alias), own.clone());
        }
        names.insert(own.clone(), own);
    }
    names
}

/// The text of a default as it is typed on a command line; several of a list that is split.
pub(super) fn typed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(typed).collect::<Vec<_>>().join(","),
        other => plain(other),
    }
}

fn plain(value: &dyn Display) -> String {
    value.to_string()
}
