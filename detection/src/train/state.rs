//! What a checkpoint knows besides tensors.

use engine::optim::GradScaler;
use serde::{Deserialize, Serialize};

use super::config::TrainConfig;
use crate::data::{Category, CocoDataset, Id};

/// A class of the data set that a detector was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its category id.
    pub id: Id,
    /// Its name.
    pub name: String,
}

impl From<&Category> for Class {
    fn from(category: &Category) -> Self {
        Self { id: category.id.within_64_bits(), name: category.name.clone() }
    }
}

/// The state of a run between two steps. Random draws need no state: each comes
/// from the seed, the epoch and the sample's number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of this form.
    pub version: u32,
    /// Optimizer steps made.
    pub step: u64,
    /// Best AP of an evaluation, of masks where there are any, else of boxes.
    pub best: Option<f64>,
    /// Whether the evaluation of this step is still to be made: a run that it ended goes on with
    /// it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub evaluation_due: bool,
    /// Loss scaling, with float16.
    pub scaler: Option<GradScaler>,
    /// How many processes made the last steps.
    #[serde(default = "one")]
    pub processes: usize,
    /// What the detector tells apart, by number.
    pub classes: Vec<Class>,
    /// Settings the run was made with.
    pub config: TrainConfig,
}

/// Of checkpoints from before there could be several.
fn one() -> usize {
    1
}

impl TrainState {
    /// The form written here.
    pub const VERSION: u32 = 1;

    /// Before the first step.
    pub fn new(
        config: TrainConfig,
        dataset: &CocoDataset,
        scaler: Option<GradScaler>,
        processes: usize,
    ) -> Self {
        Self {
            version: Self::VERSION,
            step: 0,
            best: None,
            evaluation_due: false,
            scaler,
            processes,
            classes: dataset.categories().iter().map(Class::from).collect(),
            config,
        }
    }

    /// Takes over where `saved` left off; the settings stay this run's.
    pub fn continue_from(&mut self, saved: Self) {
        let scaler = self.scaler.take().map(|fresh| saved.scaler.clone().unwrap_or(fresh));
        let (config, classes) = (self.config.clone(), self.classes.clone());
        *self = Self { config, classes, scaler, processes: self.processes, ..saved };
    }

    /// In a new folder there is no best checkpoint yet, whatever the old run had.
    pub fn forget_best(&mut self) {
        self.best = None;
    }

    /// Whether `ap` is the best so far; remembers it if so.
    pub fn is_best(&mut self, ap: f64) -> bool {
        let best = self.best.is_none_or(|best| ap > best);
        if best {
            self.best = Some(ap);
        }
        best
    }
}
