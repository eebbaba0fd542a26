//! Which sample comes when.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::rng::{Rng, purpose};
use crate::{Error, Result};

/// A new order every epoch, cut into batches and dealt out to ranks.
///
/// The order is a permutation of all samples by (seed, epoch), padded by its own head to a
/// multiple of the global batch (batch size · world size). Rank r has every world-size-th
/// sample from r on, so that one step of all ranks together covers the same samples as one step
/// of a single process with the global batch.
///
/// With repeats ([`EpochSampler::with_repeats`]) an epoch goes through the first r-th part of
/// the permutation only, each sample r times in a row; in order ([`EpochSampler::in_order`]) there is
/// no permutation and no padding.
#[derive(Debug)]
pub struct EpochSampler {
    len: usize,
    batch_size: usize,
    seed: u64,
    rank: usize,
    world_size: usize,
    arrangement: Arrangement,
    /// The last epoch asked for and its order: it is asked for once a batch.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

/// Which sample a position stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrangement {
    /// `repeats` positions in a row for each sample of the permutation.
    Shuffled { repeats: usize },
    /// The position itself.
    InOrder,
}

impl EpochSampler {
    /// Batches of `batch_size` out of `len` samples, for a single process.
    ///
    /// # Errors
    /// [`Error::Invalid`] when either is 0.
    pub fn new(len: usize, batch_size: usize, seed: u64) -> Result<Self> {
        Self::distributed(len, batch_size, seed, 0, 1)
    }

    /// The part of process `rank` out of `world_size`; `batch_size` is each process's.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a number is 0 or `rank` isn't below `world_size`.
    pub fn distributed(
        len: usize,
        batch_size: usize,
        seed: u64,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        for (name, value) in [("number of samples", len), ("batch size", batch_size)] {
            if value == 0 {
                return Err(Error::invalid(name, value, "at least 1 is needed"));
            }
        }
        if rank >= world_size {
            let rule = format!("it must be below the world size of {world_size}");
            return Err(Error::invalid("rank", rank, rule));
        }
        if batch_size.checked_mul(world_size).is_none_or(|global| global > u32::MAX as usize) {
            let rule = format!("times the world size of {world_size} it must be below 2^32");
            return Err(Error::invalid("batch size", batch_size, rule));
        }
        let arrangement = Arrangement::Shuffled { repeats: 1 };
        let order = Mutex::default();
        Ok(EpochSampler { len, batch_size, seed, rank, world_size, arrangement, order })
    }

    /// The samples in their own order, each once an epoch; the last batch is what is left. For
    /// evaluation, in a single process.
    ///
    /// # Errors
    /// [`Error::Invalid`] when either is 0.
    pub fn in_order(len: usize, batch_size: usize) -> Result<Self> {
        let shuffled = EpochSampler::new(len, batch_size, 0)?;
        Ok(EpochSampler { arrangement: Arrangement::InOrder, ..shuffled })
    }

    /// The part of process `rank` out of `world_size` of [`EpochSampler::in_order`].
    ///
    /// # Errors
    /// As [`EpochSampler::distributed`].
    pub fn in_order_among(
        len: usize,
        batch_size: usize,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        let shuffled = EpochSampler::distributed(len, batch_size, 0, rank, world_size)?;
        Ok(EpochSampler { arrangement: Arrangement::InOrder, ..shuffled })
    }

    /// Repeated augmentation (Berman et al.: "MultiGrain", arXiv 1902.05509; Hoffer et al.:
    /// "Augment your batch", CVPR 2020): each sample of the permutation `repeats` times in a row,
    /// and an epoch as long as without. So an epoch shows one in `repeats` of the samples, each in
    /// as many augmentations, which neighbouring ranks get one each of.
    ///
    /// As timm's `RepeatAugSampler`, but for two things: an epoch is not cut to a multiple of 256
    /// samples, and what fills the last batch is the continuation of the repeated permutation.
    ///
    /// # Errors
    /// [`Error::Invalid`] for 0 repeats, or for more than one of a sampler in order.
    pub fn with_repeats(self, repeats: usize) -> Result<Self> {
        if repeats == 0 {
            return Err(Error::invalid("number of repeats", repeats, "at least 1 is needed"));
        }
        if self.is_in_order() && repeats > 1 {
            let rule = "a sampler in order shows every sample once";
            return Err(Error::invalid("number of repeats", repeats, rule));
        }
        match self.arrangement {
            Arrangement::InOrder => Ok(self),
            Arrangement::Shuffled { .. } => {
                Ok(EpochSampler { arrangement: Arrangement::Shuffled { repeats }, ..self })
            }
        }
    }

    /// Whether this is a sampler of [`EpochSampler::in_order`].
    pub fn is_in_order(&self) -> bool {
        self.arrangement == Arrangement::InOrder
    }

    /// Number of samples in the data set.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none; the constructors refuse that.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The seed of the orders.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Samples in a batch of one process.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Steps in an epoch, the last one filled up unless in order.
    pub fn steps(&self) -> u64 {
        if self.is_in_order() {
            let own = self.len.saturating_sub(self.rank).div_ceil(self.world_size);
            return own.div_ceil(self.batch_size) as u64;
        }
        self.len.div_ceil(self.batch_size * self.world_size) as u64
    }

    /// Sample numbers within the (padded) epoch of this rank's batch at `step`.
    pub fn positions(&self, step: u64) -> impl Iterator<Item = u64> + use<> {
        let (rank, world_size) = (self.rank as u64, self.world_size as u64);
        let Range { start, end } =
            step * self.batch_size as u64..(step + 1) * self.batch_size as u64;
        let own = (self.len as u64).saturating_sub(rank).div_ceil(world_size);
        let (in_order, batch) = (self.is_in_order(), self.batch_size as u64);
        let end = if in_order { end.min(own) } else { end };
        (start..end).map(move |place| {
            let mirrored = !in_order && 2 * (place - start) >= batch;
            place * world_size + if mirrored { world_size - 1 - rank } else { rank }
        })
    }

    /// Data set indices of this rank's batch at `step` < [`EpochSampler::steps`] of `epoch`.
    pub fn batch(&self, epoch: u64, step: u64) -> Vec<usize> {
        let positions = self.positions(step);
        match self.arrangement {
            Arrangement::InOrder => positions.map(|position| position as usize).collect(),
            Arrangement::Shuffled { repeats } => {
                let order = self.order(epoch);
                let place = |position: u64| position / repeats as u64 % self.len as u64;
                positions.map(|position| order[place(position) as usize]).collect()
            }
        }
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, order)) if *at == epoch => Arc::clone(order),
            _ => {
                let mut rng = Rng::new(self.seed, &[purpose::ORDER, epoch]);
                let order = Arc::new(rng.permutation(self.len));
                *cached = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(sampler: &EpochSampler, epoch: u64) -> Vec<usize> {
        (0..sampler.steps()).flat_map(|step| sampler.batch(epoch, step)).collect()
    }

    #[test]
    fn an_epoch_has_every_sample_and_then_its_own_head() {
        let sampler = EpochSampler::new(10, 4, 7).unwrap();
        let order = epoch(&sampler, 3);
        assert_eq!(order.len(), 12);
        assert_eq!(order[10..], order[..2]);
        let mut once = order[..10].to_vec();
        once.sort_unstable();
        assert_eq!(once, (0..10).collect::<Vec<_>>());
        assert_eq!(order, epoch(&EpochSampler::new(10, 4, 7).unwrap(), 3));
        assert_ne!(order, epoch(&sampler, 4));
        assert_ne!(order, epoch(&EpochSampler::new(10, 4, 8).unwrap(), 3));
    }

    #[test]
    fn a_batch_larger_than_the_data_goes_round() {
        let sampler = EpochSampler::new(3, 8, 0).unwrap();
        let order = epoch(&sampler, 0);
        assert_eq!(sampler.steps(), 1);
        assert_eq!(order[3..6], order[..3]);
        assert_eq!(order[6..], order[..2]);
    }

    #[test]
    fn ranks_together_make_the_global_batch() {
        let single = EpochSampler::new(23, 6, 1).unwrap();
        let ranks: Vec<_> =
            (0..3).map(|rank| EpochSampler::distributed(23, 2, 1, rank, 3).unwrap()).collect();
        assert_eq!(single.steps(), ranks[0].steps());
        for step in 0..single.steps() {
            let (mut joined, mut positions) = (vec![0; 6], vec![0; 6]);
            for (rank, sampler) in ranks.iter().enumerate() {
                let of_rank = sampler.batch(5, step).into_iter().zip(sampler.positions(step));
                for (place, (index, position)) in of_rank.enumerate() {
                    joined[place * 3 + rank] = index;
                    positions[place * 3 + rank] = position;
                }
            }
            assert_eq!(joined, single.batch(5, step));
            assert_eq!(positions, single.positions(step).collect::<Vec<_>>());
        }
    }

    #[test]
    fn repeats_stand_in_a_row_and_leave_the_epoch_as_long() {
        let plain = EpochSampler::new(10, 4, 7).unwrap();
        let repeated = EpochSampler::new(10, 4, 7).unwrap().with_repeats(3).unwrap();
        assert_eq!(repeated.steps(), plain.steps());
        let (order, shown) = (epoch(&plain, 2), epoch(&repeated, 2));
        let expected: Vec<usize> = (0..12).map(|position| order[position / 3]).collect();
        assert_eq!(shown, expected);
        assert_ne!(shown, epoch(&repeated, 3));
        // Three ranks get one augmentation each.
        for rank in 0..3 {
            let sampler = EpochSampler::distributed(10, 4, 7, rank, 3).unwrap();
            assert_eq!(sampler.with_repeats(3).unwrap().batch(2, 0), order[..4]);
        }
        // More positions than repeats have: on to the head again.
        let round = EpochSampler::new(2, 9, 0).unwrap().with_repeats(2).unwrap().batch(0, 0);
        assert_eq!(round[4..8], round[..4]);
    }

    #[test]
    fn in_order_everything_comes_once() {
        let sampler = EpochSampler::in_order(10, 4).unwrap();
        assert_eq!(epoch(&sampler, 0), (0..10).collect::<Vec<_>>());
        assert_eq!(sampler.batch(5, 2), [8, 9]);
        assert_eq!(sampler.positions(2).collect::<Vec<_>>(), [8, 9]);
        assert!(sampler.is_in_order() && sampler.with_repeats(1).unwrap().is_in_order());
    }

    #[test]
    fn refuses_numbers_that_make_no_sense() {
        let message = |sampler: Result<EpochSampler>| sampler.unwrap_err().to_string();
        assert!(message(EpochSampler::new(0, 4, 0)).contains("number of samples is 0"));
        assert!(message(EpochSampler::new(4, 0, 0)).contains("batch size is 0"));
        assert!(message(EpochSampler::distributed(4, 2, 0, 2, 2)).contains("rank is 2"));
        assert!(message(EpochSampler::new(4, usize::MAX, 0)).contains("2^32"));
        let repeated = |sampler: Result<EpochSampler>, n| message(sampler.unwrap().with_repeats(n));
        assert!(repeated(EpochSampler::new(4, 2, 0), 0).contains("number of repeats is 0"));
        assert!(repeated(EpochSampler::in_order(4, 2), 3).contains("in order"));
    }
}
