//! Which runs fit a budget of time, and how long each of them is.

mod choice;
mod costs;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use words::counted;

use self::choice::Choice;
pub use self::choice::LEAST_SEEDS;
pub use self::costs::{Cost, Epochs};
use self::costs::{Length, Measured};

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wishes {
    /// Seconds that everything may take.
    pub budget: f64,
    /// Seconds of them that are spent already.
    pub spent: f64,
    /// Shares of the labels, ascending.
    pub shares: Vec<f64>,
    /// Runs of each kind.
    pub seeds: u64,
    /// Epochs of pretraining and of fine-tuning at most.
    pub most: [u64; 2],
}

/// Part of the budget that pretraining has, and the longer training that is compared with it.
const PRETRAINING_PART: f64 = 0.5;
/// Kept for what takes longer than was measured.
const RESERVE: f64 = 0.05;
/// Evaluations of a run at most: the points of its curve.
const EVALUATIONS: u64 = 10;
/// Part of a run that its evaluations may take.
const EVALUATION_PART: f64 = 0.2;

/// The runs that are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Shares of the labels, ascending, by their place among those asked for.
    pub shares: Vec<usize>,
    /// Seeds of random and of pretrained weights with as many steps.
    pub seeds: u64,
    /// Seeds of random weights with as much time, of the largest share.
    pub longer_seeds: u64,
    /// Epochs of pretraining.
    pub pretraining_epochs: u64,
    /// Steps of pretraining.
    pub pretraining_steps: u64,
    /// Steps of fine-tuning.
    pub steps: u64,
    /// Steps of random weights that take as long as pretraining and fine-tuning.
    pub longer_steps: u64,
    /// Evaluations of each run.
    pub evaluations: u64,
    /// Seconds of pretraining, of a fine-tuning, of the longer training, of everything.
    pub seconds: Seconds,
    /// What was cut to fit the budget, in sentences.
    pub cut: Vec<String>,
}

/// What is expected to take how many seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Seconds {
    /// The pretraining.
    pub pretraining: f64,
    /// One fine-tuning.
    pub finetuning: f64,
    /// One training of random weights for as long as both.
    pub longer: f64,
    /// All runs.
    pub all: f64,
}

impl Plan {
    /// The most that fits the budget: in this order longer runs of random weights are left out, then
    /// shares, then seeds. What is left shares the time.
    ///
    /// # Errors
    /// Not even the least fits; the sentence says what would.
    pub fn new(
        wishes: &Wishes,
        [pretraining, finetuning]: [Cost; 2],
        epochs: &Epochs,
    ) -> Result<Self> {
        let measured = Measured { pretraining, finetuning, epochs, most: wishes.most };
        let budget = (wishes.budget - wishes.spent) * (1.0 - RESERVE);
        let choices = Choice::of(wishes);
        let fits = |choice: &&Choice| measured.all(choice, Length::Good) <= budget;
        let Some(choice) = choices.iter().find(fits).or(choices.last()) else {
            bail!("nothing is to be compared: there are no shares");
        };
        let least = measured.all(choice, Length::Least);
        if least > budget {
            let minutes = (least / (1.0 - RESERVE) + wishes.spent) / 60.0;
            bail!(
                "--minutes {} is too short: the least that says anything ({} of pretraining, and \
                 {} of fine-tuning from random and from pretrained weights with {}) needs \
                 --minutes {} here, where a step of pretraining takes {:.2} s, one of fine-tuning \
                 {:.2} s, its start {:.1} s and an evaluation {:.1} s; a smaller --model, smaller \
                 images or fewer of them take less",
                wishes.budget / 60.0,
                counted(measured.pretraining_steps(Length::Least), "step"),
                counted(measured.finetuning_steps(choice, Length::Least), "step"),
                counted(choice.seeds, "seed"),
                minutes.ceil(),
                pretraining.step,
                finetuning.step,
                finetuning.start,
                finetuning.end,
            );
        }
        Ok(Self::fill(&measured, choice, budget, choice.cuts(wishes)))
    }

    /// Shares the budget out between pretraining and fine-tuning.
    fn fill(measured: &Measured, choice: &Choice, budget: f64, cut: Vec<String>) -> Self {
        let between = |seconds: f64, least: f64, most: f64| seconds.min(most).max(least);
        let [p_least, p_most] = [Length::Least, Length::Most]
            .map(|length| measured.pretraining(measured.pretraining_steps(length)));
        let least_steps = measured.finetuning_steps(choice, Length::Least);
        let f_least = measured.finetuning(least_steps, 1);
        let most_steps = measured.finetuning_steps(choice, Length::Most);
        let f_most = measured.finetuning(most_steps, EVALUATIONS);
        let (runs, pretrainings) = (choice.runs(), choice.pretrainings());
        let finetuning = between(budget * (1.0 - PRETRAINING_PART) / runs, f_least, f_most);
        let pretraining = between((budget - runs * finetuning) / pretrainings, p_least, p_most);
        let finetuning = between((budget - pretrainings * pretraining) / runs, f_least, f_most);

        let evaluations = (EVALUATION_PART * finetuning / measured.finetuning.end) as u64;
        let evaluations = evaluations.clamp(1, EVALUATIONS);
        let Cost { start, step, end } = measured.finetuning;
        let steps = (finetuning - start - evaluations as f64 * end) / step;
        // Fewer evaluations than were allowed for leave time for more than the most.
        let steps = (steps as u64).clamp(least_steps, most_steps);
        let epoch = measured.epochs.pretraining;
        let epochs = (pretraining - measured.pretraining.start - measured.pretraining.end)
            / measured.pretraining.step
            / epoch as f64;
        // By whole epochs, and never below the least: that fits.
        let least = measured.pretraining_steps(Length::Least).div_ceil(epoch);
        let pretraining_epochs = (epochs as u64).max(least);
        let pretraining_steps = pretraining_epochs * epoch;
        let pretraining = measured.pretraining(pretraining_steps);
        let finetuning = measured.finetuning(steps, evaluations);
        let longer_steps = steps + (pretraining / step) as u64;
        let longer = measured.finetuning(longer_steps, evaluations);
        let of_seeds = (choice.runs() - choice.longer_seeds as f64) * finetuning;
        let all = pretraining + of_seeds + choice.longer_seeds as f64 * longer;
        Self {
            shares: choice.shares.clone(),
            seeds: choice.seeds,
            longer_seeds: choice.longer_seeds,
            pretraining_epochs,
            pretraining_steps,
            steps,
            longer_steps,
            evaluations,
            seconds: Seconds { pretraining, finetuning, longer, all },
            cut,
        }
    }

    /// Fine-tunings in all, the longer ones apart.
    pub fn runs(&self) -> u64 {
        2 * self.seeds * self.shares.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COSTS: [Cost; 2] =
        [Cost { start: 2.0, step: 0.5, end: 3.0 }, Cost { start: 1.0, step: 0.2, end: 4.0 }];

    fn plan(minutes: f64, shares: &[f64], seeds: u64) -> Result<Plan> {
        let wishes = Wishes {
            budget: 60.0 * minutes,
            spent: 0.0,
            shares: shares.to_vec(),
            seeds,
            most: [1600, 100],
        };
        let finetuning = shares.iter().map(|share| (40.0 * share) as u64).collect();
        Plan::new(&wishes, COSTS, &Epochs { pretraining: 100, finetuning })
    }

    /// Of all that a plan says what it takes.
    fn seconds(plan: &Plan) -> f64 {
        let [p, f] = COSTS;
        let evaluations = plan.evaluations as f64 * f.end;
        let pretraining = p.start + plan.pretraining_steps as f64 * p.step + p.end;
        let finetuning = |steps: u64| f.start + steps as f64 * f.step + evaluations;
        pretraining
            + plan.runs() as f64 * finetuning(plan.steps)
            + plan.longer_seeds as f64 * finetuning(plan.longer_steps)
    }

    #[test]
    fn a_plan_fits_its_budget_and_uses_it() {
        for minutes in [60.0, 120.0, 300.0, 720.0] {
            let plan = plan(minutes, &[0.1, 0.3, 1.0], 3).unwrap();
            let all = seconds(&plan);
            assert!((plan.seconds.all - all).abs() < 1e-6, "{plan:?}");
            // An epoch of pretraining, 50 s, counts once for it and for each longer run.
            let slack = 0.05 * 60.0 * minutes + 4.0 * 55.0;
            assert!(all <= 60.0 * minutes && all > 60.0 * minutes - slack, "{minutes}: {all} s");
        }
    }

    #[test]
    fn random_weights_get_the_time_of_pretraining() {
        let plan = plan(120.0, &[1.0], 3).unwrap();
        let together = plan.seconds.pretraining + plan.seconds.finetuning;
        // To a step.
        assert!((plan.seconds.longer - together).abs() <= 0.2, "{plan:?}");
        assert!(plan.longer_steps > plan.steps);
    }

    #[test]
    fn what_does_not_fit_is_cut_and_told() {
        let whole = plan(720.0, &[0.1, 0.3, 1.0], 3).unwrap();
        assert_eq!((whole.shares.len(), whole.seeds, whole.longer_seeds), (3, 3, 3));
        assert!(whole.cut.is_empty());
        // Good runs are of 505 s and of 85 s. All of them, 4 × 505 + 21 × 85 s, take 67 minutes with
        // the reserve; with one longer run 46, without the middle share 38, with one share 29.
        let less = plan(60.0, &[0.1, 0.3, 1.0], 3).unwrap();
        assert_eq!((less.shares.len(), less.seeds, less.longer_seeds), (3, 3, 1), "{less:?}");
        assert_eq!(less.cut, ["random weights with as much time: 1 seed of 3"]);
        let ends = plan(40.0, &[0.1, 0.3, 1.0], 3).unwrap();
        assert_eq!(ends.shares, [0, 2]);
        assert_eq!(ends.cut[1], "30 % of the labels");
        let one = plan(30.0, &[0.1, 0.3, 1.0], 3).unwrap();
        assert_eq!((one.shares.as_slice(), one.seeds), ([2].as_slice(), 3));
        let two = plan(21.0, &[0.1, 0.3, 1.0], 3).unwrap();
        assert_eq!((two.seeds, two.longer_seeds), (2, 0), "{two:?}");
        assert_eq!(two.cut[2], "1 seed of 3");
    }

    #[test]
    fn lengths_keep_their_bounds() {
        // A thousand hours for a small set: no run is longer than it makes sense.
        let long = plan(60_000.0, &[1.0], 2).unwrap();
        assert_eq!(long.steps, 4000);
        assert_eq!(long.pretraining_epochs, 1600);
        let short = plan(7.0, &[1.0], 2).unwrap();
        assert!(short.steps >= 120 && short.pretraining_steps >= 200, "{short:?}");
    }

    #[test]
    fn a_budget_that_is_too_small_is_told_what_fits() {
        // 105 s of pretraining and four times 29 s: 3.7 minutes with the reserve.
        let told = plan(3.0, &[1.0], 3).unwrap_err().to_string();
        for part in
            ["--minutes 3 is", "200 steps of pretraining", "120 steps", "needs --minutes 4 "]
        {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(plan(4.0, &[1.0], 3).is_ok());
    }
}
