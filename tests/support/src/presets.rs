//! Settings of the programs' presets.

use std::fmt::Debug;

use engine::settings::{Settings, from_layers};
use engine::training::Preset;
use serde::Serialize;

use super::program::{Workplace, read};
use super::promises::words;

/// The settings of a preset with paths, and `more` over them.
pub fn of_preset<S: Settings>(preset: &impl Preset, more: &str) -> engine::Result<S> {
    let layers = [preset.toml(), "data = \"d\"\noutput = \"o\"", more];
    from_layers(layers.map(|layer| layer.parse().unwrap()))
}

impl Workplace {
    /// The recipe `preset` is what it was before settings were chosen: every setting that `before`
    /// has; settings that came since may be besides.
    #[track_caller]
    pub fn keeps_recipe(&self, preset: &str, before: &str) {
        let dump = format!("train --preset {preset} --data d --output o --dump-config");
        let dumped = self.run(&words(&dump)).succeeded().out;
        let [before, dumped] = [before, &dumped].map(|text| text.parse::<toml::Table>().unwrap());
        for (key, value) in &before {
            assert_eq!(dumped.get(key), Some(value), "{key}");
        }
    }

    /// The run `run` was begun with settings that were chosen: it goes on with these for more
    /// epochs. What it says.
    #[track_caller]
    pub fn keeps_what_was_chosen(&self, [from, to]: [u64; 2]) -> String {
        let settings = || String::from_utf8(read(self.path("run/config.toml"))).unwrap();
        let chosen = settings();
        let resume = format!("train --output run --resume --epochs {to}");
        let said = self.run(&words(&resume)).succeeded().err;
        assert!(!said.contains("what you give stays"), "{said}");
        let [from, to] = [from, to].map(|epochs| format!("\nepochs = {epochs}\n"));
        assert_eq!(settings(), chosen.replace(&from, &to));
        said
    }
}

/// Each preset resolves to settings that are the same once written and read, and resolve to
/// themselves.
pub fn presets_survive_a_file<P: Preset, S, E: Debug>(resolve: impl Fn(S) -> Result<S, E>)
where
    S: Settings + Serialize + PartialEq + Debug,
{
    for preset in P::value_variants() {
        let settings = resolve(of_preset(preset, "").unwrap()).unwrap();
        let text = toml::to_string_pretty(&settings).unwrap();
        let again: S = from_layers([text.parse().unwrap()]).unwrap();
        assert_eq!(again, settings, "{text}");
        assert_eq!(resolve(again).unwrap(), settings);
    }
}
