//! Which runs fit a budget of time, and how long each of them is.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::words::{counted, percent};

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
enum Length {
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

/// Part of the budget that pretraining has, and the longer training that is compared with it.
const PRETRAINING_PART: f64 = 0.5;
/// Kept for what takes longer than was measured.
const RESERVE: f64 = 0.05;
/// Evaluations of a run at most: the points of its curve.
const EVALUATIONS: u64 = 10;
/// Part of a run that its evaluations may take.
const EVALUATION_PART: f64 = 0.2;
/// Fewer seeds have no spread.
pub const LEAST_SEEDS: u64 = 2;

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

/// What is left of the wishes.
#[derive(Debug, Clone, PartialEq)]
struct Choice {
    shares: Vec<usize>,
    seeds: u64,
    longer_seeds: u64,
}

/// Costs and lengths of an epoch.
struct Measured<'a> {
    pretraining: Cost,
    finetuning: Cost,
    epochs: &'a Epochs,
    most: [u64; 2],
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
                 {} of fine-tuning from random and from pretrained weights with {} seeds) needs \
                 --minutes {} here, where a step of pretraining takes {:.2} s, one of fine-tuning \
                 {:.2} s, its start {:.1} s and an evaluation {:.1} s; a smaller --model, smaller \
                 images or fewer of them take less",
                wishes.budget / 60.0,
                counted(measured.pretraining_steps(Length::Least), "step"),
                counted(measured.finetuning_steps(choice, Length::Least), "step"),
                choice.seeds,
                minutes.ceil(),
                pretraining.step,
                finetuning.step,
                finetuning.start,
                finetuning.end,
            );
        }
        Ok(measured.fill(choice, budget, choice.cuts(wishes)))
    }

    /// Fine-tunings in all, the longer ones apart.
    pub fn runs(&self) -> u64 {
        2 * self.seeds * self.shares.len() as u64
    }
}

impl Choice {
    /// What could be made of the wishes, the most first.
    fn of(wishes: &Wishes) -> Vec<Self> {
        let mut shares: Vec<usize> = (0..wishes.shares.len()).collect();
        let mut choices = Vec::new();
        let mut add = |shares: &[usize], seeds, longer_seeds| {
            choices.push(Self { shares: shares.to_vec(), seeds, longer_seeds });
        };
        add(&shares, wishes.seeds, wishes.seeds);
        add(&shares, wishes.seeds, 1);
        // Those in the middle first: the ends say most.
        while shares.len() > 1 {
            let middle = if shares.len() > 2 { shares.len() / 2 } else { 0 };
            shares.remove(middle);
            add(&shares, wishes.seeds, 1);
        }
        for seeds in (LEAST_SEEDS..wishes.seeds).rev() {
            add(&shares, seeds, 1);
        }
        add(&shares, wishes.seeds.min(LEAST_SEEDS), 0);
        choices.dedup();
        choices
    }

    fn cuts(&self, wishes: &Wishes) -> Vec<String> {
        let mut cuts = Vec::new();
        if self.longer_seeds == 0 {
            cuts.push("random weights with as much time as pretraining had".to_owned());
        } else if self.longer_seeds < wishes.seeds {
            let of = format!("random weights with as much time: 1 seed of {}", wishes.seeds);
            cuts.push(of);
        }
        let left_out = (0..wishes.shares.len()).filter(|at| !self.shares.contains(at));
        let left_out: Vec<String> = left_out.map(|at| percent(wishes.shares[at])).collect();
        if !left_out.is_empty() {
            cuts.push(format!("{} of the labels", left_out.join(" and ")));
        }
        if self.seeds < wishes.seeds {
            let fewer = counted(wishes.seeds - self.seeds, "seed");
            cuts.push(format!("{fewer} of {}", wishes.seeds));
        }
        cuts
    }

    fn runs(&self) -> f64 {
        (2 * self.seeds * self.shares.len() as u64 + self.longer_seeds) as f64
    }

    /// How often pretraining's time is spent.
    fn pretrainings(&self) -> f64 {
        (1 + self.longer_seeds) as f64
    }
}

impl Measured<'_> {
    fn pretraining_steps(&self, length: Length) -> u64 {
        PRETRAINING.steps(length, self.epochs.pretraining, self.most[0])
    }

    /// Of all shares alike: epochs are those of the largest.
    fn finetuning_steps(&self, choice: &Choice, length: Length) -> u64 {
        let epoch = choice.shares.iter().map(|&at| self.epochs.finetuning[at]).max();
        FINETUNING.steps(length, epoch.unwrap_or(1), self.most[1])
    }

    fn pretraining(&self, steps: u64) -> f64 {
        let Cost { start, step, end } = self.pretraining;
        start + steps as f64 * step + end
    }

    fn finetuning(&self, steps: u64, evaluations: u64) -> f64 {
        let Cost { start, step, end } = self.finetuning;
        start + steps as f64 * step + evaluations as f64 * end
    }

    /// Seconds of everything with runs of such a length, evaluated at their ends alone.
    fn all(&self, choice: &Choice, length: Length) -> f64 {
        let finetuning = self.finetuning(self.finetuning_steps(choice, length), 1);
        let pretraining = self.pretraining(self.pretraining_steps(length));
        choice.pretrainings() * pretraining + choice.runs() * finetuning
    }

    /// Shares the budget out between pretraining and fine-tuning.
    fn fill(&self, choice: &Choice, budget: f64, cut: Vec<String>) -> Plan {
        let between = |seconds: f64, least: f64, most: f64| seconds.min(most).max(least);
        let [p_least, p_most] = [Length::Least, Length::Most]
            .map(|length| self.pretraining(self.pretraining_steps(length)));
        let least_steps = self.finetuning_steps(choice, Length::Least);
        let f_least = self.finetuning(least_steps, 1);
        let most_steps = self.finetuning_steps(choice, Length::Most);
        let f_most = self.finetuning(most_steps, EVALUATIONS);
        let (runs, pretrainings) = (choice.runs(), choice.pretrainings());
        let finetuning = between(budget * (1.0 - PRETRAINING_PART) / runs, f_least, f_most);
        let pretraining = between((budget - runs * finetuning) / pretrainings, p_least, p_most);
        let finetuning = between((budget - pretrainings * pretraining) / runs, f_least, f_most);

        let evaluations = (EVALUATION_PART * finetuning / self.finetuning.end) as u64;
        let evaluations = evaluations.clamp(1, EVALUATIONS);
        let Cost { start, step, end } = self.finetuning;
        let steps = (finetuning - start - evaluations as f64 * end) / step;
        // Fewer evaluations than were allowed for leave time for more than the most.
        let steps = (steps as u64).clamp(least_steps, most_steps);
        let epoch = self.epochs.pretraining;
        let epochs = (pretraining - self.pretraining.start - self.pretraining.end)
            / self.pretraining.step
            / epoch as f64;
        // By whole epochs, and never below the least: that fits.
        let least = self.pretraining_steps(Length::Least).div_ceil(epoch);
        let pretraining_epochs = (epochs as u64).max(least);
        let pretraining_steps = pretraining_epochs * epoch;
        let pretraining = self.pretraining(pretraining_steps);
        let finetuning = self.finetuning(steps, evaluations);
        let longer_steps = steps + (pretraining / step) as u64;
        let longer = self.finetuning(longer_steps, evaluations);
        let of_seeds = (choice.runs() - choice.longer_seeds as f64) * finetuning;
        let all = pretraining + of_seeds + choice.longer_seeds as f64 * longer;
        Plan {
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
