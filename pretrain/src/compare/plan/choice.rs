//! Which of the wished runs are made, where not all of them fit.

use words::counted;

use super::Wishes;
use crate::compare::words::percent;

/// Fewer seeds have no spread.
pub const LEAST_SEEDS: u64 = 2;

/// What is left of the wishes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    pub shares: Vec<usize>,
    pub seeds: u64,
    pub longer_seeds: u64,
}

impl Choice {
    /// What could be made of the wishes, the most first.
    pub(super) fn of(wishes: &Wishes) -> Vec<Self> {
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

    /// What is left out, in sentences.
    pub(super) fn cuts(&self, wishes: &Wishes) -> Vec<String> {
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

    /// Fine-tunings in all.
    pub(super) fn runs(&self) -> f64 {
        (2 * self.seeds * self.shares.len() as u64 + self.longer_seeds) as f64
    }

    /// How often pretraining's time is spent.
    pub(super) fn pretrainings(&self) -> f64 {
        (1 + self.longer_seeds) as f64
    }
}
