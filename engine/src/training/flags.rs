//! Flags of every `train` command.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backbone::weights;
use clap::Args;
use toml::Table;

use super::auto::{self, DataOf, Prepare};
use super::state::is_first_version;
use super::{Preset, ResumeMode, Task, open_checkpoint, saved_settings};
use crate::checkpoint::CheckpointFile;
use crate::distributed::{LISTING, ProcessGroup, USUAL_WAIT};
use crate::remote::working_folder;
use crate::run_dir::{
    CONFIG_FILE, LAST_CHECKPOINT, display_path, has_lost_checkpoint, resolve_checkpoint, run_owner,
};
use crate::run_storage::StoredRun;
use crate::settings::{
    Given, RunSettings, Settings, TrainSettings, from_layers, merged, read_table,
};
use crate::{Error, Result};

/// The setting that names the model.
const MODEL: &str = "model";
/// The command that pretrains: its runs are what the others begin with.
const PRETRAINING: &str = "pretrain train";
/// The commands that train, and a setting that the runs of each have and of no other.
const COMMANDS: [(&str, &str); 3] = [
    (PRETRAINING, "mask-ratio"),
    ("classify train", "label-smoothing"),
    ("detect train", "keep-empty"),
];

/// Flags of a `train` command: one for each setting of `C`, the presets `P`, and where settings
/// come from and the run begins.
#[derive(Debug, Args)]
pub struct TrainFlags<C: Settings, P: Preset> {
    /// The settings given.
    #[command(flatten)]
    pub settings: Given<C>,
    /// Settings that suit a situation; other flags override them. auto chooses by the data and the
    /// machine, and says what and why
    #[arg(long, value_enum, default_value_t = P::default())]
    preset: P,
    #[command(flatten)]
    run: RunFlags,
}

impl<C: TrainSettings, P: Preset> TrainFlags<C, P> {
    /// Trains what `prepare` makes of the settings, unless these were only to be printed.
    ///
    /// # Errors
    /// Settings that cannot be run, those of [`ProcessGroup::from_env`] and of [`super::Setup::train`].
    pub fn run<T: Task<Settings = C>>(&self, prepare: Prepare<T>) -> anyhow::Result<()> {
        let (config, start, world, data) = self.begin(prepare)?;
        if !self.run.dump_config {
            return prepare(config, &start, &world, data)?.train(&start);
        }
        if world.is_main() {
            let text = toml::to_string_pretty(&config).map_err(|error| {
                Error::data(format!("these settings cannot be printed: {error}"))
            })?;
            print!("{text}");
        }
        Ok(())
    }

    /// Meets the other processes and gives all of them the settings, which rank 0 chooses and
    /// resolves (it alone sees files of an earlier run), and where the run begins in the settings'
    /// `output`. With the data, if it was listed for that: several processes list it together.
    fn begin<T: Task<Settings = C>>(
        &self,
        prepare: Prepare<T>,
    ) -> anyhow::Result<(C, ResumeMode, ProcessGroup, Option<DataOf<T>>)> {
        let world = ProcessGroup::from_env(Duration::from_secs_f64(self.run.dist_timeout))?;
        let mut data = None;
        let settings = || {
            let (config, listed) = self.choose(&world, prepare)?;
            let config = config.resolve()?;
            data = listed.filter(|_| world.is_alone());
            let start = match self.run.dump_config {
                true => ResumeMode::New { overwrite: false },
                false => self.run.start(config.run(), &world)?,
            };
            anyhow::Ok((config, start))
        };
        let patience = if self.preset.is_automatic() { LISTING } else { Duration::ZERO };
        let (config, start) =
            world.with_timeout(patience, || world.broadcast_from_rank0(settings))?;
        Ok((config, start, world, data))
    }

    /// The settings, of which a new run of the preset `auto` chooses what is not given. One that
    /// goes on has its own. With the data, if it was listed for that.
    fn choose<T: Task<Settings = C>>(
        &self,
        world: &ProcessGroup,
        prepare: Prepare<T>,
    ) -> anyhow::Result<(C, Option<DataOf<T>>)> {
        let layers = self.run.layers::<C>(&self.preset, &self.settings, world, T::COMMAND)?;
        if !self.preset.is_automatic() || layers.continues {
            return Ok((from_layers(layers.all())?, None));
        }
        let (choices, data) = auto::choose(merged::<C>(layers.all()), world, prepare)?;
        Ok((choices.settings()?, data))
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
        let restarted = is_restarted(&folder, stored.as_ref(), world)?;
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
    /// which the run starts from. A run of another `command` is refused.
    fn layers<C: TrainSettings>(
        &self,
        preset: &impl Preset,
        flags: &Given<C>,
        world: &ProcessGroup,
        command: &str,
    ) -> Result<Layers> {
        let automatic = preset.is_automatic();
        let preset = preset.table()?;
        let flags = flags.table.clone();
        let file = self.config.as_deref().map(read_table).transpose()?.unwrap_or_default();
        let given = |name: &str| flags.get(name).or(file.get(name)).and_then(toml::Value::as_str);
        // The folder that the run works in, and its place in object storage.
        let place = |output: &Path| -> Result<_> {
            let work = Path::new(given("work-dir").unwrap_or_default());
            let folder = working_folder(output, work)?;
            let stored = StoredRun::new(output, &folder)?;
            Ok((folder, stored))
        };
        let mut saved = match (&self.resume, given("output").map(Path::new)) {
            (Some(Some(checkpoint)), _) => {
                let mut settings = saved_settings::<C>(&open_checkpoint(checkpoint)?)?;
                settings.remove("output");
                settings.remove("name");
                settings
            }
            (Some(None), Some(output)) => {
                let (folder, stored) = place(output)?;
                stored.map_or(Ok(()), |stored| stored.pull())?;
                own_settings::<C>(&folder)?
            }
            // A launch that was restarted has chosen already.
            (None, Some(output)) if automatic && world.launch().is_some() => {
                let (folder, stored) = place(output)?;
                match is_restarted(&folder, stored.as_ref(), world)? {
                    true => {
                        stored.map_or(Ok(()), |stored| stored.pull())?;
                        own_settings::<C>(&folder)?
                    }
                    false => Table::new(),
                }
            }
            _ => Table::new(),
        };
        let from = self.resume.clone().flatten();
        let run = from.clone().unwrap_or_else(|| given("output").unwrap_or_default().into());
        check_command(&saved, command, &run, from.is_some())?;
        // Another machine may have no such folder.
        saved.remove("work-dir");
        let continues = !saved.is_empty();
        let layers = Layers { told: Table::new(), preset, saved, file, flags, continues };
        let named = layers.all().iter().any(|layer| layer.contains_key(MODEL));
        if self.resume.is_some() || named {
            return Ok(layers);
        }
        let settings: C = from_layers(layers.all())?;
        let told = settings.starting_weights().map(model_of).transpose()?.flatten();
        Ok(Layers { told: told.unwrap_or_default(), ..layers })
    }
}

/// Refuses the settings that another command than `command` has `saved` of the run in the folder
/// `run`, or of the checkpoint.
fn check_command(saved: &Table, command: &str, run: &Path, is_checkpoint: bool) -> Result<()> {
    let has = |(_, setting): &&(&str, &str)| saved.contains_key(*setting);
    let Some((owner, _)) = COMMANDS.iter().find(has).filter(|(owner, _)| *owner != command) else {
        return Ok(());
    };
    let run = display_path(run);
    let (what, goes_on) = match is_checkpoint {
        true => ("checkpoint", format!("--output NEW --resume {run}")),
        false => ("run", format!("--output {run} --resume")),
    };
    let weights = match *owner == PRETRAINING {
        true => format!("; `{command} --backbone-weights {run}` begins one with its weights"),
        false => String::new(),
    };
    Err(Error::data(format!(
        "{run} is a {what} of `{owner}`, and this is `{command}`: `{owner} {goes_on}` goes on with it, \
         and a run of `{command}` needs a folder of its own{weights}"
    )))
}

/// Settings from several places.
struct Layers {
    /// The model, as the weights tell it that a run starts from.
    told: Table,
    preset: Table,
    /// Those of the run that goes on.
    saved: Table,
    file: Table,
    flags: Table,
    /// Whether there is a run that goes on.
    continues: bool,
}

impl Layers {
    /// The lowest first.
    fn all(&self) -> [Table; 5] {
        [&self.told, &self.preset, &self.saved, &self.file, &self.flags].map(Table::clone)
    }
}

/// Whether the run in `folder`, or the one `stored` for it, is this launch's own, which was
/// restarted.
fn is_restarted(folder: &Path, stored: Option<&StoredRun>, world: &ProcessGroup) -> Result<bool> {
    let Some(launch) = world.launch() else { return Ok(false) };
    let owner = match stored {
        None => run_owner(folder),
        Some(stored) => stored.owner()?,
    };
    Ok(launch.owns(owner.as_deref()))
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
