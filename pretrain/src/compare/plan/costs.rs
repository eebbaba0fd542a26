//! How long runs are, and what they take.

use serde::{Deserialize, Serialize};

use super::choice::Choice;

/// What a kind of run costs, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Until the first step.
    pub start: f64,
    /// Of a step.
    pub step: f64,
    /// From the last step to the end: in fine-tuning mostly an evaluation.
    pub end: f64,
}

/// Steps of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Epochs {
    /// Of pretraining.
    pub pretraining: u64,
    /// Of fine-tuning, for each share.
    pub finetuning: Vec<u64>,
}

/// How long a run is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Shorter says nothing.
    Least,
    /// Nothing is left out to make it longer.
    Good,
    /// Longer is not asked for.
    Most,
}

/// The lengths of a kind of run: epochs and steps, whichever is more.
struct Lengths {
    least: (u64, u64),
    good: (u64, u64),
}

const PRETRAINING: Lengths = Lengths { least: (2, 30), good: (10, 200) };
const FINETUNING: Lengths = Lengths { least: (3, 30), good: (10, 100) };

impl Lengths {
    /// Steps of a run, of which an epoch has so many and which has so many epochs `at_most`.
    fn steps(&self, length: Length, epoch: u64, at_most: u64) -> u64 {
        let of = |(epochs, steps): (u64, u64)| (epochs * epoch).max(steps);
        let most = of((at_most, self.least.1));
        match length {
            Length::Least => of(self.least).min(most),
            Length::Good => of(self.good).min(most),
            Length::Most => most,
        }
    }
}

/// Costs and lengths of an epoch.
pub(super) struct Measured<'a> {
    pub pretraining: Cost,
    pub finetuning: Cost,
    pub epochs: &'a Epochs,
    pub most: [u64; 2],
}

impl Measured<'_> {
    pub(super) fn pretraining_steps(&self, length: Length) -> u64 {
        PRETRAINING.steps(length, self.epochs.pretraining, self.most[0])
    }

    /// Of all shares alike: epochs are those of the largest.
    pub(super) fn finetuning_steps(&self, choice: &Choice, length: Length) -> u64 {
        let epoch = choice.shares.iter().map(|&at| self.epochs.finetuning[at]).max();
        FINETUNING.steps(length, epoch.unwrap_or(1), self.most[1])
    }

    /// Seconds of a pretraining.
    pub(super) fn pretraining(&self, steps: u64) -> f64 {
        let Cost { start, step, end } = self.pretraining;
        start + steps as f64 * step + end
    }

    /// Seconds of a fine-tuning.
    pub(super) fn finetuning(&self, steps: u64, evaluations: u64) -> f64 {
        let Cost { start, step, end } = self.finetuning;
        start + steps as f64 * step + evaluations as f64 * end
    }

    /// Seconds of everything with runs of such a length, evaluated at their ends alone.
    pub(super) fn all(&self, choice: &Choice, length: Length) -> f64 {
        let finetuning = self.finetuning(self.finetuning_steps(choice, length), 1);
        let pretraining = self.pretraining(self.pretraining_steps(length));
        choice.pretrainings() * pretraining + choice.runs() * finetuning
    }
}
