//! Where a run begins, and what it takes over from an earlier one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use words::counted;

use super::{CheckpointTensors, RunPlan, RunState, StateOf, Task, Trainer};
use data::write_file;

use crate::checkpoint::{self, CheckpointDir, CheckpointFile, CheckpointTags, beside};
use crate::distributed::ProcessGroup;
use crate::run_dir::{
    LAST_CHECKPOINT, RunDir, display_path, has_lost_checkpoint, resolve_checkpoint,
};
use crate::run_storage::{Mirror, StoredRun};
use crate::settings::{RunSettings, TrainSettings as _, differences};
use crate::{Error, Result};

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResumeMode {
    /// At step 0, in a new folder or, if told so, in place of an old run.
    New {
        /// Delete the run that the folder holds.
        overwrite: bool,
    },
    /// Where the last checkpoint in the run's folder left off.
    Resume,
    /// Where a checkpoint left off, in a new folder.
    From {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Delete the run that the folder holds.
        overwrite: bool,
    },
}

impl ResumeMode {
    /// Whether a run that the folder holds is to be deleted.
    pub fn overwrites(&self) -> bool {
        matches!(self, Self::New { overwrite: true } | Self::From { overwrite: true, .. })
    }

    /// The checkpoint that the run in `output` goes on from, if there is one; says so
    /// when a run to be continued has saved none yet.
    ///
    /// # Errors
    /// [`Error::Input`] when it is gone or damaged: which others there are, and how to go on from
    /// them. Nothing is changed then.
    pub fn open(&self, output: &Path) -> Result<Option<CheckpointFile>> {
        let found = self.find(output)?;
        if found.is_none() && *self == ResumeMode::Resume {
            eprintln!("no checkpoint yet: beginning at step 0");
        }
        Ok(found)
    }

    /// The same without a word.
    ///
    /// # Errors
    /// As [`ResumeMode::open`].
    pub fn find(&self, output: &Path) -> Result<Option<CheckpointFile>> {
        match self {
            ResumeMode::New { .. } => Ok(None),
            ResumeMode::From { checkpoint, .. } => open_checkpoint(checkpoint).map(Some),
            ResumeMode::Resume if has_lost_checkpoint(output) => {
                let last = output.join(LAST_CHECKPOINT);
                Err(Error::data(format!("{} is gone; {}", display_path(&last), ways_on(&last))))
            }
            ResumeMode::Resume => {
                let last = output.join(LAST_CHECKPOINT);
                match last.symlink_metadata() {
                    Ok(_) => open_checkpoint(&last).map(Some),
                    Err(_) => Ok(None),
                }
            }
        }
    }
}

/// The checkpoint `path`, or the last one of the run in the folder `path`.
///
/// # Errors
/// [`Error::Input`] when it is gone or damaged, with the ways to go on.
pub fn open_checkpoint(path: &Path) -> Result<CheckpointFile> {
    let path = resolve_checkpoint(path)?;
    CheckpointFile::open(&path).map_err(|error| Error::data(format!("{error}; {}", ways_on(&path))))
}

/// How to go on without the checkpoint `lost`.
fn ways_on(lost: &Path) -> String {
    beside(lost).unwrap_or_else(|| {
        "no other whole checkpoint is beside it: --overwrite in place of --resume deletes the run \
         and begins anew, another --output leaves it as it is"
            .into()
    })
}

/// Makes or takes over the folder of the run that `settings` name and writes its settings there, on
/// rank 0 of `world`; of a run in object storage the folder that it works in.
///
/// # Errors
/// Those of [`RunDir::create`] and [`CheckpointDir::open`]; [`Error::Input`] for settings that
/// TOML cannot hold; [`Error::Storage`].
pub fn open_run<C: Serialize>(
    world: &ProcessGroup,
    settings: &RunSettings,
    start: &ResumeMode,
    config: &C,
) -> Result<RunWriter> {
    let opened = world.is_main().then(|| -> Result<_> {
        let folder = settings.folder()?;
        let is_new = *start != ResumeMode::Resume;
        let stored = StoredRun::new(&settings.output, &folder)?;
        if let Some(stored) = stored.as_ref().filter(|_| is_new) {
            stored.make_room(start.overwrites())?;
        }
        let (run, checkpoints) = open_folder(&folder, start, config)?;
        if let Some(launch) = world.launch() {
            launch.job.as_deref().map_or(Ok(()), |job| run.set_owner(job))?;
        }
        let mirror = stored.map(|stored| stored.claim(&run, is_new)).transpose()?;
        Ok(Main { run, checkpoints, mirror: mirror.map(Arc::new) })
    });
    let main = world.all_ok(opened.transpose())?;
    Ok(RunWriter { world: world.clone(), main })
}

/// The files of a run: rank 0 has them and writes; all processes call.
pub struct RunWriter {
    world: ProcessGroup,
    main: Option<Main>,
}

/// What rank 0 has of a run's files.
struct Main {
    run: RunDir,
    checkpoints: CheckpointDir,
    /// Of a run in object storage.
    mirror: Option<Arc<Mirror>>,
}

impl RunWriter {
    /// The run's folder, on rank 0.
    pub fn folder(&self) -> Option<&RunDir> {
        self.main.as_ref().map(|main| &main.run)
    }

    /// The run's checkpoints, on rank 0.
    pub fn checkpoints(&self) -> Option<&CheckpointDir> {
        self.main.as_ref().map(|main| &main.checkpoints)
    }

    /// What keeps a run's copy in object storage, on rank 0 of such a run.
    pub(super) fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.main.as_ref()?.mirror.as_ref()
    }

    /// Writes a checkpoint, as [`CheckpointDir::save`], and keeps the `keep` newest of finished
    /// epochs. All processes wait until it is on disk; to object storage it is uploaded meanwhile.
    ///
    /// # Errors
    /// [`Error::Input`], or a model or averages that are not finite: the checkpoints before are then
    /// as they were. On the other processes [`Error::Elsewhere`].
    pub fn save(
        &self,
        names: CheckpointTags,
        sections: &CheckpointTensors,
        state: &impl Serialize,
        keep: usize,
    ) -> Result<()> {
        let saved = match &self.main {
            None => Ok(()),
            Some(Main { run, checkpoints, .. }) => sections
                .check_finite()
                .and_then(|()| checkpoints.save(names, &sections.named(), state))
                .and_then(|_| run.note_saved())
                .and_then(|()| checkpoints.prune(keep))
                .map_err(|error| Error::data(format!("cannot save a checkpoint: {error}"))),
        };
        let uploading = || self.mirror().map_or(Ok(()), |mirror| mirror.save(keep));
        self.world.all_ok(saved.and_then(|()| uploading()))
    }
}

fn open_folder<C: Serialize>(
    output: &Path,
    start: &ResumeMode,
    config: &C,
) -> Result<(RunDir, CheckpointDir)> {
    let run = RunDir::create(output, start.overwrites(), *start == ResumeMode::Resume)?;
    let checkpoints = CheckpointDir::open(&run.checkpoints())?;
    let text = toml::to_string_pretty(config)
        .map_err(|error| Error::data(format!("these settings cannot be saved: {error}")))?;
    write_file(&run.config(), text.as_bytes())?;
    Ok((run, checkpoints))
}

/// A run that begins or goes on.
pub struct Run<T: Task> {
    /// What differs from other programs.
    pub task: T,
    /// What is trained.
    pub trainer: Trainer,
    /// Where the run stands.
    pub state: StateOf<T>,
    /// Where it writes.
    pub files: RunWriter,
    /// How long it is.
    pub plan: RunPlan,
}

impl<T: Task> Run<T> {
    /// Loads what a checkpoint holds, or what the task has of weight files; rank 0 alone reads, all
    /// processes get it. `own` is the task's part of a new run's state, the numbers are the steps
    /// of an epoch and of the whole run. Opens the run's folder once all of it is there.
    ///
    /// # Errors
    /// A checkpoint that is gone, damaged or of another run; weights that do not fit; those of
    /// [`open_run`].
    pub fn begin(
        task: T,
        mut trainer: Trainer,
        start: &ResumeMode,
        own: T::State,
        (steps_per_epoch, total_steps): (u64, u64),
    ) -> anyhow::Result<Self> {
        let world = trainer.world.clone();
        let mut state = RunState::new(task.settings().clone(), own, world.size());
        let loaded = match world.is_main() {
            true => load_initial_state(&task, &mut trainer, start, &mut state),
            false => Ok(()),
        };
        world.all_ok(loaded)?;
        if !world.is_alone() {
            broadcast_initial_state(&mut trainer, &mut state)?;
        }
        if let Some(scaler) = &mut trainer.scaler {
            *scaler = state.scaler.clone().unwrap_or_default();
        }
        let settings = task.settings().run();
        let files = open_run(&world, settings, start, &state.config)?;
        let plan = RunPlan {
            steps_per_epoch,
            total_steps,
            done: state.step,
            continued: *start == ResumeMode::Resume,
            log_steps: settings.log_steps,
        };
        Ok(Self { task, trainer, state, files, plan })
    }

    /// The batch, how it is divided, and the steps, as a person is told.
    pub fn describe_batch(&self) -> String {
        let Self { trainer, plan, .. } = self;
        let parts = describe_batch_split(trainer);
        let (steps, total) = (plan.steps_per_epoch, plan.total_steps);
        let steps = counted(steps, "step");
        format!("{}{parts}: {steps} an epoch, {total} in all", trainer.batch_size)
    }
}

fn load_initial_state<T: Task>(
    task: &T,
    trainer: &mut Trainer,
    start: &ResumeMode,
    state: &mut StateOf<T>,
) -> anyhow::Result<()> {
    let Some(file) = start.open(&task.settings().run().folder()?)? else {
        task.load_initial_weights(state)?;
        trainer.restart_averages();
        return Ok(());
    };
    let saved = StateOf::<T>::read(&file)?;
    let world_size = trainer.world.size();
    task.resume(file.path(), &saved, state)?;
    restore(&file, trainer, &saved.config, &state.config)?;
    if saved.processes != world_size {
        warn_world_size_changed(trainer, saved.processes);
        task.warn_world_size_changed();
    }
    let fresh = state.clone();
    *state = RunState {
        version: fresh.version,
        config: fresh.config,
        processes: fresh.processes,
        task: fresh.task,
        ..saved
    };
    if matches!(start, ResumeMode::From { .. }) {
        state.reset_best();
    }
    Ok(())
}

/// Takes model, optimizer and averages from a checkpoint, and tells which settings have changed
/// since.
fn restore<C: Serialize>(
    file: &CheckpointFile,
    trainer: &mut Trainer,
    saved: &C,
    current: &C,
) -> Result<()> {
    checkpoint::restore(file.path(), &file.section("model")?, &trainer.variables)?;
    trainer.optimizer.load_state(&file.section("optimizer")?).map_err(|error| {
        let problem = format!("its optimizer's state does not fit these settings: {error}");
        Error::checkpoint(file.path(), problem)
    })?;
    if let Some(ema) = &trainer.ema {
        if !file.sections().contains("ema") {
            let problem = "does not fit these settings: it has no averaged weights; continue \
                           with --ema 0";
            return Err(Error::checkpoint(file.path(), problem));
        }
        checkpoint::restore(file.path(), &file.section("ema")?, ema.averages())?;
    }
    let mut changed = differences(saved, current);
    let places = ["output:", "name:", "work-dir:"];
    changed.retain(|line| !places.iter().any(|place| line.starts_with(place)));
    if !changed.is_empty() {
        eprintln!("continuing with changed settings:\n  {}", changed.join("\n  "));
    }
    Ok(())
}

/// Gives all processes rank 0's model, averages and state and, where steps were made, its
/// optimizer's state.
fn broadcast_initial_state<C, T>(trainer: &mut Trainer, state: &mut RunState<C, T>) -> Result<()>
where
    C: Serialize + DeserializeOwned + Clone,
    T: Serialize + DeserializeOwned + Clone,
{
    let world = trainer.world.clone();
    *state = world.broadcast_from_rank0(|| Ok::<_, Error>(state.clone()))?;
    world.broadcast(&trainer.variables)?;
    if state.step > 0 {
        let of_optimizer = trainer.optimizer.state();
        world.broadcast(&of_optimizer)?;
        if !world.is_main() {
            trainer.optimizer.load_state(&of_optimizer)?;
        }
    }
    trainer.ema.as_ref().map_or(Ok(()), |ema| world.broadcast(ema.averages()))
}

/// Says what changes when a run that `saved` processes began goes on with another number.
fn warn_world_size_changed(trainer: &Trainer, saved: usize) {
    let norms = if trainer.sync_bn {
        "batch norms still see the whole batch"
    } else {
        "without --sync-bn batch norms now see another number of images"
    };
    let (size, batch) = (trainer.world.size(), trainer.batch_size);
    eprintln!(
        "continuing on {} what {} began: {} of each batch of {batch} on each in place of {}. \
         Batches, augmentation, masks and learning rates stay the same and {norms}; sums are \
         rounded in another order",
        counted(size, "process"),
        counted(saved, "process"),
        counted(batch / size, "image"),
        batch / saved.max(1),
    );
}

/// How a batch is divided, as an addition to its size: " on 4 processes in 2 parts of 32".
fn describe_batch_split(trainer: &Trainer) -> String {
    let part = trainer.micro_batch_size;
    let size = trainer.world.size();
    match (size, trainer.batch_size / (size * part)) {
        (1, 1) => String::new(),
        (1, parts) => format!(" in {parts} parts of {part}"),
        (size, 1) => format!(" on {size} processes, {part} on each"),
        (size, parts) => format!(" on {size} processes in {parts} parts of {part}"),
    }
}
