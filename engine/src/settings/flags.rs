//! Settings as flags: those that were given, with the true defaults in their help.

use std::marker::PhantomData;

use clap::builder::BoolishValueParser;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use toml::{Table, Value};

use super::define::{key, typed};
use super::{Settings, from_layers};

/// The flags of `S` that were given on the command line; those that were not leave their settings
/// to the layers below. Flatten it into the arguments of a command.
#[derive(Debug, Clone)]
pub struct Given<S> {
    /// The settings given, by key.
    pub table: Table,
    settings: PhantomData<S>,
}

impl<S: Settings> Given<S> {
    /// The settings, where there are no layers below.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for one that breaks its rule.
    pub fn settings(&self) -> crate::Result<S> {
        let settings: S = from_layers([self.table.clone()])?;
        settings.check_each()?;
        Ok(settings)
    }
}

impl<S: Settings> FromArgMatches for Given<S> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut table = S::from_arg_matches(matches)?.to_table();
        table.retain(|key, _| {
            let id = key.replace('-', "_");
            matches!(matches.try_contains_id(&id), Ok(true))
                && matches.value_source(&id) == Some(ValueSource::CommandLine)
        });
        Ok(Self { table, settings: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.table.extend(Self::from_arg_matches(matches)?.table);
        Ok(())
    }
}

impl<S: Settings> Args for Given<S> {
    fn augment_args(command: Command) -> Command {
        // The heading of the last group is not that of the flags behind.
        with_defaults::<S>(S::augment_args(command)).next_help_heading(None::<&str>)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// Tells each flag its default, and lets a switch take `true` or `false`, since a file below it may
/// say either.
fn with_defaults<S: Settings>(mut command: Command) -> Command {
    let defaults = S::default().to_table();
    let own = S::augment_args(Command::new("settings"));
    for id in own.get_arguments().map(|flag| flag.get_id().clone()) {
        let default = defaults.get(&key(id.as_str())).cloned();
        command = command.mut_arg(id, |flag| {
            let flag = match default {
                Some(Value::Boolean(_)) => flag
                    .action(ArgAction::Set)
                    .num_args(0..=1)
                    .default_missing_value("true")
                    .value_parser(BoolishValueParser::new())
                    .value_name("BOOL"),
                _ => flag,
            };
            match default {
                None => flag,
                // Nothing is no default that can be shown, or typed.
                Some(Value::String(text)) if text.is_empty() => {
                    flag.default_value("-").hide_default_value(true)
                }
                Some(Value::Array(values)) if flag.get_value_delimiter().is_some() => {
                    flag.default_values(values.iter().map(typed).collect::<Vec<_>>())
                }
                Some(value) => flag.default_value(typed(&value)),
            }
        });
    }
    command
}
