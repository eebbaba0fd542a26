//! Settings of the programs' presets.

use std::fmt::Debug;

use engine::settings::{Settings, from_layers};
use engine::training::Preset;
use serde::Serialize;

/// The settings of a preset with paths, and `more` over them.
pub fn of_preset<S: Settings>(preset: &impl Preset, more: &str) -> engine::Result<S> {
    let layers = [preset.toml(), "data = \"d\"\noutput = \"o\"", more];
    from_layers(layers.map(|layer| layer.parse().unwrap()))
}

/// Every setting that `before` has is the same in `dumped`; settings that came since may be
/// besides.
#[track_caller]
pub fn assert_settings_of_before(before: &str, dumped: &str) {
    let [before, dumped]: [toml::Table; 2] = [before, dumped].map(|text| text.parse().unwrap());
    for (key, value) in &before {
        assert_eq!(dumped.get(key), Some(value), "{key}");
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
