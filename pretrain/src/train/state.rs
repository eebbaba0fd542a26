//! What a checkpoint knows besides tensors.

use engine::optim::GradScaler;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;

/// The state of a run between two steps. Random draws need no state: each
/// comes from the seed, the epoch and the sample's number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of this form.
    pub version: u32,
    /// Optimizer steps made.
    pub step: u64,
    /// Sum of the losses of this epoch's steps so far, and their number.
    epoch_loss: (f64, u64),
    /// Lowest mean loss of an epoch whose checkpoint was saved.
    pub best_loss: Option<f64>,
    /// Loss scaling, with float16.
    pub scaler: Option<GradScaler>,
    /// How many processes made the last steps.
    #[serde(default = "one")]
    pub processes: usize,
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
    pub fn new(config: TrainConfig, scaler: Option<GradScaler>, processes: usize) -> Self {
        Self {
            version: Self::VERSION,
            step: 0,
            epoch_loss: (0.0, 0),
            best_loss: None,
            scaler,
            processes,
            config,
        }
    }

    /// Takes over where `saved` left off; the settings stay this run's.
    pub fn continue_from(&mut self, saved: Self) {
        let scaler = self.scaler.take().map(|fresh| saved.scaler.clone().unwrap_or(fresh));
        let (config, processes) = (self.config.clone(), self.processes);
        *self = Self { config, scaler, processes, ..saved };
    }

    /// In a new folder there is no best checkpoint yet, whatever the old run had.
    pub fn forget_best(&mut self) {
        self.best_loss = None;
    }

    /// Takes a step's loss into the epoch's mean.
    pub fn count_loss(&mut self, loss: f64) {
        self.epoch_loss.0 += loss;
        self.epoch_loss.1 += 1;
    }

    /// The epoch's mean loss; the next epoch begins.
    pub fn end_epoch(&mut self) -> f64 {
        let (sum, count) = std::mem::take(&mut self.epoch_loss);
        sum / count as f64
    }

    /// Whether `loss` is the lowest so far; remembers it if so.
    pub fn is_best(&mut self, loss: f64) -> bool {
        let best = self.best_loss.is_none_or(|best| loss < best);
        if best {
            self.best_loss = Some(loss);
        }
        best
    }
}
