//! Flags of every `train` command.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::{Start, open_checkpoint};
use crate::distributed::World;
use crate::run_dir::{CONFIG_FILE, LAST_CHECKPOINT, has_lost_checkpoint, job_of, shown};
use crate::settings::read_table;
use crate::{Error, Result};

/// Where settings come from besides flags of their own, and where the run begins.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// TOML file with settings, keys named like the flags; flags override it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the resulting settings as TOML and stop.
    #[arg(long)]
    pub dump_config: bool,
    /// Continue the run in --output, or from this checkpoint in a new folder.
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, alias = "resume_from", alias = "resume-from")]
    #[allow(clippy::option_option)]
    pub resume: Option<Option<PathBuf>>,
    /// Delete the run that --output holds and begin anew.
    #[arg(long, conflicts_with = "resume")]
    pub overwrite: bool,
    /// Seconds that several processes wait for one of them before they all stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    pub dist_timeout: f64,
}

/// A time that can be waited.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is no number of seconds between 0.1 and 1000000")),
    }
}

/// The settings in a checkpoint's state.
#[derive(Deserialize)]
struct Saved {
    config: Table,
}

impl RunFlags {
    /// Meets the other processes and gives all of them the settings that rank 0 makes of `resolve`
    /// (it alone sees files of an earlier run), and where the run begins in the settings' `output`;
    /// none if the settings were only to be printed.
    ///
    /// # Errors
    /// Those of [`World::from_env`] and of `resolve`.
    pub fn begin<C, E>(
        &self,
        resolve: impl FnOnce() -> std::result::Result<C, E>,
        output: fn(&C) -> &Path,
    ) -> std::result::Result<Option<(C, Start, World)>, E>
    where
        C: Serialize + DeserializeOwned,
        E: From<Error> + Display,
    {
        let world = World::from_env(Duration::from_secs_f64(self.dist_timeout))?;
        let (config, start) = world.share(|| {
            let config = resolve()?;
            let start = self.start(output(&config), &world);
            Ok::<_, E>((config, start))
        })?;
        if !self.dump_config {
            return Ok(Some((config, start, world)));
        }
        if world.is_main() {
            let text = toml::to_string_pretty(&config).map_err(|error| {
                Error::Data(format!("these settings cannot be printed: {error}"))
            })?;
            print!("{text}");
        }
        Ok(None)
    }

    /// Where the run in `output` begins. A launch that was restarted goes on with its own run,
    /// whatever its flags were at first; one that had no checkpoint yet begins again.
    fn start(&self, output: &Path, world: &World) -> Start {
        let owner = job_of(output);
        let restarted = world.launch().is_some_and(|launch| launch.owns(owner.as_deref()));
        if restarted {
            eprintln!("restarted: going on with {}", shown(output));
            // Of one that is lost nothing is deleted either: that is refused later.
            if output.join(LAST_CHECKPOINT).exists() || has_lost_checkpoint(output) {
                return Start::Resume;
            }
        }
        let overwrite = self.overwrite || restarted;
        match &self.resume {
            None => Start::New { overwrite },
            Some(None) => Start::Resume,
            Some(Some(checkpoint)) => {
                Start::From { checkpoint: checkpoint.clone(), overwrite: restarted }
            }
        }
    }

    /// The layers of the run's settings above its defaults, lowest first: the preset, (when
    /// continuing) the run's own, the file's, the flags'.
    ///
    /// # Errors
    /// A file or checkpoint that cannot be read.
    pub fn config_layers(&self, preset: Table, flags: Table) -> Result<[Table; 4]> {
        let file = self.config.as_deref().map(read_table).transpose()?.unwrap_or_default();
        let output = flags.get("output").or(file.get("output")).and_then(toml::Value::as_str);
        let saved = match (&self.resume, output) {
            (Some(Some(checkpoint)), _) => settings_of(checkpoint)?,
            (Some(None), Some(output)) => {
                let output = Path::new(output);
                match (output.join(CONFIG_FILE), output.join(LAST_CHECKPOINT)) {
                    (saved, _) if saved.exists() => read_table(&saved)?,
                    (_, last) if last.exists() => settings_of(&last)?,
                    _ => Table::new(),
                }
            }
            _ => Table::new(),
        };
        Ok([preset, saved, file, flags])
    }
}

/// The settings a checkpoint was made with, less its folder.
fn settings_of(checkpoint: &Path) -> Result<Table> {
    let Saved { mut config } = open_checkpoint(checkpoint)?.state()?;
    config.remove("output");
    config.remove("name");
    Ok(config)
}
