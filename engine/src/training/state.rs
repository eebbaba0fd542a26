//! What a checkpoint knows besides tensors.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::checkpoint::CheckpointFile;
use crate::optim::GradScaler;
use crate::settings::Settings;
use crate::{Error, Result};

/// What the best checkpoint of a run is chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The lowest mean training loss of an epoch.
    EpochLoss,
    /// The highest score of an evaluation.
    Score,
}

/// The state of a run between two steps, with the settings `C` that it was made with and the
/// task's own part `T`. Random draws need no state: each comes from the seed, the epoch and the
/// sample's number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState<C, T> {
    /// Version of this form.
    pub version: u32,
    /// Optimizer steps made.
    pub step: u64,
    /// Sum of the losses of this epoch's steps so far, and their number.
    pub epoch_loss: (f64, u64),
    /// By the run's [`Criterion`]: the best loss, or score, so far.
    pub best: Option<f64>,
    /// The best score of the averaged weights so far.
    pub best_ema: Option<f64>,
    /// Whether the evaluation that is due after these steps is still to be made: the checkpoint is
    /// saved before it, whatever comes of it.
    pub evaluation_pending: bool,
    /// Loss scaling, with float16.
    pub scaler: Option<GradScaler>,
    /// How many processes made the last steps.
    pub processes: usize,
    /// What the task adds.
    pub task: T,
    /// Settings the run was made with.
    pub config: C,
}

/// The form written here.
const VERSION: u32 = 2;

impl<C, T> RunState<C, T> {
    /// Before the first step.
    pub fn new(config: C, task: T, processes: usize) -> Self {
        Self {
            version: VERSION,
            step: 0,
            epoch_loss: (0.0, 0),
            best: None,
            best_ema: None,
            evaluation_pending: false,
            scaler: None,
            processes,
            task,
            config,
        }
    }

    /// In a new folder there is no best checkpoint yet, whatever the old run had.
    pub fn reset_best(&mut self) {
        (self.best, self.best_ema) = (None, None);
    }

    /// Takes a step's loss into the epoch's mean.
    pub fn count_loss(&mut self, loss: f64) {
        self.epoch_loss.0 += loss;
        self.epoch_loss.1 += 1;
    }

    /// The epoch's mean loss; the next epoch begins. None where no step of it is known.
    pub fn end_epoch(&mut self) -> Option<f64> {
        let (sum, count) = std::mem::take(&mut self.epoch_loss);
        (count > 0).then(|| sum / count as f64)
    }
}

impl Criterion {
    /// Whether `new` is better than the `best` so far; remembers it if so.
    pub fn update_best(self, new: Option<f64>, best: &mut Option<f64>) -> bool {
        let Some(new) = new else { return false };
        let better = best.is_none_or(|best| match self {
            Self::EpochLoss => new < best,
            Self::Score => new > best,
        });
        if better {
            *best = Some(new);
        }
        better
    }
}

impl<C: Settings + DeserializeOwned, T: DeserializeOwned> RunState<C, T> {
    /// The state in a checkpoint; one of an earlier form is brought to this one.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a later form or another program's checkpoint.
    pub fn read(file: &CheckpointFile) -> Result<Self> {
        let mut state: Map<String, Value> = file.state()?;
        match state.get("version").and_then(Value::as_u64) {
            Some(1) => upgrade::<C>(&mut state),
            Some(version) if version == u64::from(VERSION) => {}
            found => {
                let found =
                    found.map_or("no version".into(), |version| format!("version {version}"));
                let problem = format!(
                    "is a checkpoint of {found}, but this program continues versions 1 and \
                     {VERSION}; begin a new run with its weights"
                );
                return Err(Error::checkpoint(file.path(), problem));
            }
        }
        serde_json::from_value(Value::Object(state)).map_err(|error| {
            let problem = format!("its state is not one of this program: {error}");
            Error::checkpoint(file.path(), problem)
        })
    }
}

/// Whether a checkpoint's state has the first form.
///
/// # Errors
/// Those of [`CheckpointFile::state`].
pub(super) fn is_first_version(file: &CheckpointFile) -> Result<bool> {
    let state: Map<String, Value> = file.state()?;
    Ok(state.get("version").and_then(Value::as_u64) == Some(1))
}

/// The settings in a checkpoint's state, as a layer.
///
/// # Errors
/// Those of [`CheckpointFile::state`]; [`Error::Checkpoint`] for one without settings.
pub fn saved_settings<C: Settings>(file: &CheckpointFile) -> Result<toml::Table> {
    let mut state: Map<String, Value> = file.state()?;
    if is_first_version(file)? {
        upgrade::<C>(&mut state);
    }
    let config = state.remove("config").unwrap_or_default();
    serde_json::from_value(config).map_err(|error| {
        Error::checkpoint(file.path(), format!("it has no settings of a run: {error}"))
    })
}

/// Brings a state of version 1, which each program wrote in a form of its own, to this one: what
/// all have goes by one name, the rest is the task's.
fn upgrade<C: Settings>(state: &mut Map<String, Value>) {
    let mut old = std::mem::take(state);
    let mut take = |names: &[&str]| names.iter().find_map(|name| old.remove(*name));
    let best = take(&["best_loss", "best"]).unwrap_or_default();
    let best_ema = take(&["best_ema"]).unwrap_or_default();
    let pending = take(&["evaluation_due", "unevaluated"]).unwrap_or(Value::Bool(false));
    let epoch_loss = take(&["epoch_loss"]).unwrap_or_else(|| serde_json::json!([0.0, 0]));
    let processes = take(&["processes"]).unwrap_or_else(|| 1.into());
    let mut config = take(&["config"]).unwrap_or_default();
    if let Value::Object(config) = &mut config {
        C::upgrade(config);
    }
    for (name, value) in [
        ("version", VERSION.into()),
        ("best", best),
        ("best_ema", best_ema),
        ("evaluation_pending", pending),
        ("epoch_loss", epoch_loss),
        ("processes", processes),
        ("config", config),
        ("step", take(&["step"]).unwrap_or_default()),
        ("scaler", take(&["scaler"]).unwrap_or_default()),
    ] {
        state.insert(name.into(), value);
    }
    old.remove("version");
    state.insert("task".into(), Value::Object(old));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;
    use crate::checkpoint::write_checkpoint;
    use crate::settings::LoadingSettings;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Own {
        classes: Vec<String>,
    }

    type State = RunState<LoadingSettings, Own>;

    fn read(state: &Value) -> Result<State> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        write_checkpoint(&path, &[("model", &BTreeMap::new())], state).unwrap();
        State::read(&CheckpointFile::open(&path).unwrap())
    }

    #[test]
    fn a_state_comes_back() {
        let mut state =
            State::new(LoadingSettings::default(), Own { classes: vec!["a".into()] }, 2);
        state.count_loss(0.1);
        state.best = Some(0.3);
        assert_eq!(read(&json!(state)).unwrap(), state);
    }

    #[test]
    fn states_of_the_first_version_are_brought_to_this_one() {
        let config = LoadingSettings { workers: 3, ..LoadingSettings::default() };
        let old = json!({
            "version": 1, "step": 7, "best": 0.5, "unevaluated": true, "scaler": null,
            "processes": 2, "classes": ["a"], "config": config.to_table(),
        });
        let state = read(&old).unwrap();
        assert_eq!((state.step, state.best, state.evaluation_pending), (7, Some(0.5), true));
        assert_eq!(
            (state.task.classes, state.config, state.processes),
            (vec!["a".into()], config, 2)
        );
    }

    #[test]
    fn another_version_is_refused_with_what_to_do() {
        let message = read(&json!({ "version": 9 })).unwrap_err().to_string();
        assert!(message.contains("version 9") && message.contains("new run"), "{message}");
    }

    #[test]
    fn the_criterion_says_what_is_better() {
        let mut best = None;
        assert!(Criterion::EpochLoss.update_best(Some(2.0), &mut best));
        assert!(!Criterion::EpochLoss.update_best(Some(3.0), &mut best));
        assert!(Criterion::Score.update_best(Some(3.0), &mut best));
        assert!(!Criterion::Score.update_best(None, &mut best));
        assert_eq!(best, Some(3.0));
    }
}
