//! Settings under a name, and the command that lists them.

use clap::{Args, ValueEnum};
use toml::Table;

use crate::{Error, Result};

/// The preset whose settings are chosen: see [`auto`](super::auto).
const AUTO: &str = "auto";

/// A program's settings that suit a situation.
pub trait Preset: ValueEnum + Default + Send + Sync + 'static {
    /// Those that differ from the defaults, as TOML.
    fn toml(&self) -> &'static str;

    /// Whether what is not given is chosen by the data and the machine.
    fn is_automatic(&self) -> bool {
        self.to_possible_value().is_some_and(|value| value.get_name() == AUTO)
    }

    /// The same as a layer.
    ///
    /// # Errors
    /// [`Error::Input`] for a preset that is no TOML.
    fn table(&self) -> Result<Table> {
        self.toml().parse().map_err(|error| Error::data(format!("a preset is no TOML: {error}")))
    }
}

/// Declares the presets of a program, each with its name, which is also that of its file in the
/// crate's `presets`.
#[macro_export]
macro_rules! presets {
    ($( $(#[$meta:meta])* $preset:ident = $name:literal, )*) => {
        /// Settings that belong together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, ::clap::ValueEnum, Default)]
        pub enum Preset {
            $( $(#[$meta])* #[value(name = $name)] $preset, )*
        }

        impl $crate::training::Preset for Preset {
            fn toml(&self) -> &'static str {
                match self {
                    $( Self::$preset => include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/presets/", $name, ".toml"
                    )), )*
                }
            }
        }
    };
}

/// How `program` is asked for its presets: the end of that command's help.
pub fn presets_examples(program: &str) -> String {
    format!(
        "\
Examples:
  {program} presets

  # The settings of one, as a file to change and to give to --config
  {program} presets small-data > mine.toml"
    )
}

/// Flags of a program's `presets` command.
#[derive(Debug, Args)]
pub struct PresetsArgs<P: Preset> {
    /// Print this one's settings (those that differ from the defaults) as TOML.
    #[arg(value_enum)]
    preset: Option<P>,
}

impl<P: Preset> PresetsArgs<P> {
    /// Prints the list of presets, or one's settings.
    pub fn run(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let Some(preset) = &self.preset else {
            let values = P::value_variants().iter().filter_map(P::to_possible_value);
            let line = |value: clap::builder::PossibleValue| {
                let help = value.get_help().map(ToString::to_string).unwrap_or_default();
                format!("{:<28} {help}\n", value.get_name())
            };
            return values.map(line).collect();
        };
        preset.toml().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, Default, ValueEnum)]
    enum Two {
        /// The first.
        #[default]
        One,
        /// The other.
        Other,
    }

    impl Preset for Two {
        fn toml(&self) -> &'static str {
            match self {
                Two::One => "epochs = 1\n",
                Two::Other => "",
            }
        }
    }

    #[test]
    fn a_list_or_one() {
        let list = PresetsArgs::<Two> { preset: None }.text();
        assert_eq!(list.lines().count(), 2);
        assert!(list.lines().nth(1).is_some_and(|line| line.starts_with("other ")), "{list}");
        assert!(list.contains("The first"), "{list}");
        assert_eq!(PresetsArgs { preset: Some(Two::One) }.text(), "epochs = 1\n");
    }
}
