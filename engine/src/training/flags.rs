//! Flags of every `train` command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backbone::weights;
use clap::Args;
use toml::Table;

use super::state::is_first_version;
use super::{Preset, ResumeMode, Setup, Task, open_checkpoint, saved_settings};
use crate::checkpoint::CheckpointFile;
use crate::distributed::{ProcessGroup, USUAL_WAIT};
use crate::remote::working_folder;
use crate::run_dir::{
    CONFIG_FILE, LAST_CHECKPOINT, display_path, has_lost_checkpoint, resolve_checkpoint, run_owner,
};
use crate::run_storage::StoredRun;
use crate::settings::{Given, RunSettings, Settings, TrainSettings, from_layers, read_table};
use crate::{Error, Result};

/// The setting that names the model.
const MODEL: &str = "model";

/// Flags of a `train` command: one for each setting of `C`, the presets `P`, and where settings
/// come from and the run begins.
#[derive(Debug, Args)]
pub struct TrainFlags<C: Settings, P: Preset> {
    /// The settings given.
    #[command(flatten)]
    pub settings: Given<C>,
    /// Settings that suit a situation; other flags override them
    #[arg(long, value_enum, default_value_t = P::default())]
    preset: P,
    #[command(flatten)]
    run: RunFlags,
}

impl<C: TrainSettings, P: Preset> TrainFlags<C, P> {
    /// Trains what `prepare` makes of the settings, unless these were only to be printed.
    ///
    /// # Errors
    /// Settings that cannot be run, those of [`ProcessGroup::from_env`] and of [`Setup::train`].
    pub fn run<T: Task<Settings = C>>(
        &self,
        prepare: fn(C, &ResumeMode, &ProcessGroup) -> anyhow::Result<Setup<T>>,
    ) -> anyhow::Result<()> {
        let (config, start, world) = self.begin()?;
        if !self.run.dump_config {
            return prepare(config, &start, &world)?.train(&start);
        }
        if world.is_main() {
            let text = toml::to_string_pretty(&config).map_err(|error| {
                Error::data(format!("these settings cannot be printed: {error}"))
            })?;
            print!("{text}");
        }
        Ok(())
    }

    /// Meets the other processes and gives all of them the settings, which rank 0 resolves (it
    /// alone sees files of an earlier run), and where the run begins in the settings' `output`.
    fn begin(&self) -> anyhow::Result<(C, ResumeMode, ProcessGroup)> {
        let world = ProcessGroup::from_env(Duration::from_secs_f64(self.run.dist_timeout))?;
        let (config, start) = world.broadcast_from_rank0(|| {
            let config = self.run.settings(&self.preset, &self.settings)?.resolve()?;
            let start = match self.run.dump_config {
                true => ResumeMode::New { overwrite: false },
                false => self.run.start(config.run(), &world)?,
            };
            anyhow::Ok((config, start))
        })?;
        Ok((config, start, world))
    }
}

/// Where settings come from besides flags of their own, and where the run begins.
#[derive(Debug, Args)]
struct RunFlags {
    /// TOML file with settings, keys named like the flags, also s3://bucket/key; flags override it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the resulting settings as TOML and stop.
    #[arg(long)]
    dump_config: bool,
    /// Continue the run in --output, or from this checkpoint in a new folder.
    #[arg(long, value_name = "CHECKPOINT", num_args = 0..=1, alias = "resume_from", alias = "resume-from")]
    #[allow(clippy::option_option)]
    resume: Option<Option<PathBuf>>,
    /// Delete the run that --output holds and begin anew.
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
    /// Seconds that several processes wait for one of them before they all stop; of images in
    /// object storage none is waited for longer.
    #[arg(long, value_name = "SECONDS", default_value_t = USUAL_WAIT, value_parser = seconds)]
    dist_timeout: f64,
}

/// A time that can be waited.
fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=1e6).contains(&seconds) => Ok(seconds),
        _ => Err(format!("{text:?} is no number of seconds between 0.1 and 1000000")),
    }
}

impl RunFlags {
    /// Where the run in `output` begins. A launch that was restarted goes on with its own run,
    /// whatever its flags were at first; one that had no checkpoint yet begins again.
    ///
    /// # Errors
    /// Those of the run's place in object storage.
    fn start(&self, run: &RunSettings, world: &ProcessGroup) -> Result<ResumeMode> {
        let folder = run.folder()?;
        let stored = StoredRun::new(&run.output, &folder)?;
        let owner = match (world.launch(), &stored) {
            (None, _) => None,
            (Some(_), None) => run_owner(&folder),
            (Some(_), Some(stored)) => stored.owner()?,
        };
        let restarted = world.launch().is_some_and(|launch| launch.owns(owner.as_deref()));
        if restarted {
            eprintln!("restarted: going on with {}", display_path(&run.output));
            stored.as_ref().map_or(Ok(()), StoredRun::pull)?;
            // Of one that is lost nothing is deleted either: that is refused later.
            if folder.join(LAST_CHECKPOINT).exists() || has_lost_checkpoint(&folder) {
                return Ok(ResumeMode::Resume);
            }
        }
        let overwrite = self.overwrite || restarted;
        let start = match &self.resume {
            None => ResumeMode::New { overwrite },
            // Its settings were asked for before: it is here.
            Some(None) => ResumeMode::Resume,
            Some(Some(checkpoint)) => {
                ResumeMode::From { checkpoint: checkpoint.clone(), overwrite: restarted }
            }
        };
        match stored.filter(|_| start != ResumeMode::Resume) {
            Some(stored) => stored.check_new(start.overwrites()).map(|()| start),
            None => Ok(start),
        }
    }

    /// The run's settings: the flags over the file over (when continuing) the run's own settings
    /// over the preset over the defaults; where none of them names the model, that of the weights
    /// which the run starts from.
    ///
    /// # Errors
    /// A file or checkpoint that cannot be read, a key that is no setting.
    fn settings<C: TrainSettings>(&self, preset: &impl Preset, flags: &Given<C>) -> Result<C> {
        let preset = preset.table()?;
        let flags = flags.table.clone();
        let file = self.config.as_deref().map(read_table).transpose()?.unwrap_or_default();
        let given = |name: &str| flags.get(name).or(file.get(name)).and_then(toml::Value::as_str);
        let mut saved = match (&self.resume, given("output").map(Path::new)) {
            (Some(Some(checkpoint)), _) => {
                let mut settings = saved_settings::<C>(&open_checkpoint(checkpoint)?)?;
                settings.remove("output");
                settings.remove("name");
                settings
            }
            (Some(None), Some(output)) => {
                let work = Path::new(given("work-dir").unwrap_or_default());
                let folder = working_folder(output, work)?;
                StoredRun::new(output, &folder)?.map_or(Ok(()), |stored| stored.pull())?;
                own_settings::<C>(&folder)?
            }
            _ => Table::new(),
        };
        // Another machine may have no such folder.
        saved.remove("work-dir");
        let layers = [preset, saved, file, flags];
        if self.resume.is_some() || layers.iter().any(|layer| layer.contains_key(MODEL)) {
            return from_layers(layers);
        }
        let settings: C = from_layers(layers.clone())?;
        match settings.starting_weights().map(model_of).transpose()?.flatten() {
            Some(told) => from_layers([told].into_iter().chain(layers)),
            None => Ok(settings),
        }
    }
}

/// The model that the weights at `path` are of, as a setting; none if it is no registered one.
fn model_of(path: &Path) -> Result<Option<Table>> {
    let file = weights::read(resolve_checkpoint(path)?)?;
    let Ok(model) = file.registered_model() else { return Ok(None) };
    eprintln!("note: the model is {}, as {} tells", model.name, display_path(path));
    Ok(Some(Table::from_iter([(MODEL.to_owned(), model.name.into_owned().into())])))
}

/// The settings of the run in the folder `output`, as it was last started; of a checkpoint of the first
/// version its own, which are brought to the meaning that settings have now.
fn own_settings<C: Settings>(output: &Path) -> Result<Table> {
    let [config, last] = [CONFIG_FILE, LAST_CHECKPOINT].map(|name| output.join(name));
    if !config.exists() {
        return match last.exists() {
            true => saved_settings::<C>(&open_checkpoint(&last)?),
            false => Ok(Table::new()),
        };
    }
    // A damaged checkpoint is refused when it is loaded, with the ways to go on.
    match CheckpointFile::open(&last) {
        Ok(file) if is_first_version(&file)? => saved_settings::<C>(&file),
        _ => read_table(&config),
    }
}
