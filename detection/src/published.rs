//! Detectors in folders for the hub: `model.safetensors`, and in `config.json` what must be known to
//! build the detector again.

use std::path::Path;

use anyhow::{Context, Result};
use backbone::weights::write_safetensors;
use data::write_file;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::detector::Detector;
use crate::modeling::weights::state_dict;
use crate::train::Class;

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// What tells such a `config.json` from those of other libraries.
const FORMAT: &str = "spark-backbone detector";

/// What the program must know of a detector.
#[derive(Debug, Serialize, Deserialize)]
pub struct Published {
    format: String,
    /// The detector and its backbone, for people.
    architecture: String,
    /// Its settings, as TOML.
    #[serde(rename = "settings")]
    text: String,
    /// What it tells apart, where that is known.
    pub classes: Option<Vec<Class>>,
}

impl Published {
    /// Of a detector with these settings.
    pub fn new(detector: &Detector, settings: &Table, classes: Option<Vec<Class>>) -> Result<Self> {
        let text = toml::to_string(settings).context("the settings cannot be written")?;
        let architecture = detector.model.config().name();
        Ok(Self { format: FORMAT.into(), architecture, text, classes })
    }

    /// Writes the files into `folder`.
    ///
    /// # Errors
    /// Values that are not finite, files that cannot be written.
    pub fn write(&self, folder: &Path, detector: &Detector) -> Result<()> {
        let tensors = state_dict(&detector.store, detector.model.config())?;
        let rule = "it finds nothing, and is not exported";
        backbone::weights::check_finite("the detector", &tensors, rule)?;
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        write_safetensors(folder.join(WEIGHTS), &tensors, &metadata)?;
        let json = format!("{}\n", serde_json::to_string_pretty(self)?);
        Ok(write_file(&folder.join(CONFIG), json.as_bytes())?)
    }

    /// What the folder `path` says; none if it is no such folder.
    ///
    /// # Errors
    /// A `config.json` that is one of these and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let config = path.join(CONFIG);
        if !config.is_file() {
            return Ok(None);
        }
        let bytes =
            std::fs::read(&config).with_context(|| format!("cannot read {}", config.display()))?;
        let json: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if json["format"] != FORMAT {
            return Ok(None);
        }
        let published = serde_json::from_value(json);
        published.map(Some).with_context(|| format!("{} is damaged", config.display()))
    }

    /// The detector's settings.
    ///
    /// # Errors
    /// They are no TOML.
    pub fn settings(&self) -> Result<Table> {
        self.text.parse().with_context(|| format!("the settings in {CONFIG} are no TOML"))
    }
}
