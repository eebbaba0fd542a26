//! What a checkpoint knows besides tensors.

use engine::optim::GradScaler;
use serde::{Deserialize, Serialize};

use super::config::TrainConfig;

/// Top-1 accuracies of an evaluation, in 0–1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Of the weights that are learned.
    pub model: f64,
    /// Of their averages, if there are any.
    pub ema: Option<f64>,
}

/// The state of a run between two steps. Random draws need no state: each comes
/// from the seed, the step or the epoch, and the sample's number.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Version of this form.
    pub version: u32,
    /// Optimizer steps made.
    pub step: u64,
    /// The latest evaluation's.
    pub accuracy: Option<Accuracy>,
    /// Best accuracy of the weights so far.
    pub best: Option<f64>,
    /// Best accuracy of their averages so far.
    pub best_ema: Option<f64>,
    /// Whether the evaluation that is due after these steps is still to be made: checkpoints are
    /// saved before it, whatever comes of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unevaluated: bool,
    /// Loss scaling, with float16.
    pub scaler: Option<GradScaler>,
    /// How many processes made the last steps.
    #[serde(default = "one")]
    pub processes: usize,
    /// Names of the classes, by number.
    pub classes: Vec<String>,
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
        classes: Vec<String>,
        scaler: Option<GradScaler>,
        processes: usize,
    ) -> Self {
        let version = Self::VERSION;
        let (accuracy, best, best_ema) = (None, None, None);
        Self {
            version,
            step: 0,
            accuracy,
            best,
            best_ema,
            unevaluated: false,
            scaler,
            processes,
            classes,
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
        (self.accuracy, self.best, self.best_ema) = (None, None, None);
    }

    /// Remembers an evaluation; whether it is the best so far, of the weights and
    /// of their averages.
    pub fn take_in(&mut self, accuracy: Accuracy) -> (bool, bool) {
        self.accuracy = Some(accuracy);
        self.unevaluated = false;
        let better = |new: f64, best: &mut Option<f64>| {
            let better = best.is_none_or(|best| new > best);
            if better {
                *best = Some(new);
            }
            better
        };
        let model = better(accuracy.model, &mut self.best);
        (model, accuracy.ema.is_some_and(|ema| better(ema, &mut self.best_ema)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_averages_have_their_own_best() {
        let mut state = TrainState::new(TrainConfig::default(), Vec::new(), None, 1);
        let mut take = |model, ema| state.take_in(Accuracy { model, ema });
        assert_eq!(take(0.5, Some(0.2)), (true, true));
        assert_eq!(take(0.4, Some(0.3)), (false, true));
        assert_eq!(take(0.6, Some(0.3)), (true, false));
        assert_eq!(take(0.7, None), (true, false));
        assert_eq!((state.best, state.best_ema), (Some(0.7), Some(0.3)));
    }
}
