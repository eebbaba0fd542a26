//! Where a run begins, and what it takes over from an earlier one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::checkpoint::{self, CheckpointDir, CheckpointFile, write_file};
use crate::optim::Optimizer;
use crate::run_dir::{LAST_CHECKPOINT, RunDir};
use crate::settings::differences;
use crate::{Error, Result};

/// Where a run begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At step 0, in a new folder or, if told so, in place of an old run.
    New {
        /// Delete the run that the folder holds.
        overwrite: bool,
    },
    /// Where the last checkpoint in the run's folder left off.
    Resume,
    /// Where this checkpoint left off, in a new folder.
    From(PathBuf),
}

impl Start {
    /// The checkpoint that the run in `output` goes on from, if there is one; says so
    /// when a run to be continued has none yet.
    pub fn checkpoint(&self, output: &Path) -> Option<PathBuf> {
        match self {
            Start::New { .. } => None,
            Start::From(path) => Some(path.clone()),
            Start::Resume => {
                let last = Some(output.join(LAST_CHECKPOINT)).filter(|path| path.exists());
                if last.is_none() {
                    eprintln!("no checkpoint yet: beginning at step 0");
                }
                last
            }
        }
    }
}

/// Makes or takes over the run's folder and writes its settings there.
///
/// # Errors
/// Those of [`RunDir::create`] and [`CheckpointDir::open`]; [`Error::Data`] for settings that
/// TOML cannot hold.
pub fn open_run<C: Serialize>(
    output: &Path,
    start: &Start,
    config: &C,
) -> Result<(RunDir, CheckpointDir)> {
    let overwrite = *start == Start::New { overwrite: true };
    let run = RunDir::create(output, overwrite, *start == Start::Resume)?;
    let checkpoints = CheckpointDir::open(&run.checkpoints())?;
    let text = toml::to_string_pretty(config)
        .map_err(|error| Error::Data(format!("these settings cannot be saved: {error}")))?;
    write_file(&run.config(), text.as_bytes())?;
    Ok((run, checkpoints))
}

/// The form of a saved state, which every version of it has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// The state in a checkpoint, of the form `version`.
///
/// # Errors
/// [`Error::Checkpoint`] for another version or another program's checkpoint.
pub fn saved_state<S: DeserializeOwned>(file: &CheckpointFile, version: u32) -> Result<S> {
    let found: Versioned = file.state()?;
    if found.version != version {
        let problem = format!(
            "is a checkpoint of version {}, but this program continues version {version}",
            found.version
        );
        return Err(Error::checkpoint(file.path(), problem));
    }
    file.state()
}

/// Takes model and optimizer from a checkpoint, and tells which settings have changed since.
///
/// # Errors
/// [`Error::Checkpoint`] when they do not fit; the model may then have been restored.
pub fn restore_run<C: Serialize>(
    file: &CheckpointFile,
    model: &BTreeMap<String, Tensor>,
    optimizer: &mut dyn Optimizer,
    (saved, current): (&C, &C),
) -> Result<()> {
    checkpoint::restore(file.path(), &file.section("model")?, model)?;
    optimizer.load_state(&file.section("optimizer")?).map_err(|error| {
        let problem = format!("its optimizer's state does not fit these settings: {error}");
        Error::checkpoint(file.path(), problem)
    })?;
    let mut changed = differences(saved, current);
    changed.retain(|line| !line.starts_with("output:") && !line.starts_with("name:"));
    if !changed.is_empty() {
        eprintln!("continuing with changed settings:\n  {}", changed.join("\n  "));
    }
    Ok(())
}
