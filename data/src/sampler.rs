//! Which sample comes when.

use std::sync::{Arc, Mutex, PoisonError};

use crate::rng::{Rng, purpose};
use crate::{Error, Result};

/// A new order every epoch, cut into batches and dealt out to ranks.
///
/// The order is a permutation of all samples by (seed, epoch), padded by its own head to a
/// multiple of the global batch (batch size · world size). It is cut into global batches and
/// these into blocks of one sample a rank, so that one step of all ranks together covers the same
/// samples as one step of a single process with the global batch, and the j-th samples of all
/// ranks are the j-th block. So a step that is taken in parts has the same samples in each.
///
/// The first half of a batch's blocks is dealt to ranks in ascending order, the second in
/// descending order. Then the samples i and B − 1 − i of a global batch of B, which
/// [`Mixup`](super::Mixup) pairs, belong to one rank, and are paired in its own batch too, as its
/// samples j and n − 1 − j of n; but for the middle block where n is odd.
///
/// With repeats ([`EpochSampler::with_repeats`]) an epoch goes through the first r-th part of
/// the permutation only, each sample r times in a row; in order ([`EpochSampler::in_order`]) there is
/// no permutation and no padding. With shards of its own ([`EpochSampler::own_shards`]) a rank
/// permutes and pads its own samples.
#[derive(Debug)]
pub struct EpochSampler {
    len: usize,
    batch_size: usize,
    seed: u64,
    rank: usize,
    world_size: usize,
    arrangement: Arrangement,
    /// Positions in a row for each sample of a permutation.
    repeats: usize,
    /// The last epoch asked for and its order: it is asked for once a batch.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

/// Which sample a position stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrangement {
    /// One of a permutation of all samples.
    Dealt,
    /// One of a permutation of this rank's samples, of which `most` is the largest number of a
    /// rank.
    Own { most: usize },
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
        let (arrangement, repeats) = (Arrangement::Dealt, 1);
        let order = Mutex::default();
        Ok(EpochSampler { len, batch_size, seed, rank, world_size, arrangement, repeats, order })
    }

    /// The samples that process `rank` out of `world_size` has for itself, `len` of them, where
    /// the one that has most has `most`
    /// ([`Dataset::most_samples`](super::Dataset::most_samples)); `batch_size` is each process's.
    ///
    /// Every process permutes its own samples, by (seed, epoch, rank), and goes round until the
    /// one that has most has shown all of its own: all take equally many steps.
    ///
    /// # Errors
    /// As [`EpochSampler::distributed`], and when `most` is below `len`.
    pub fn own_shards(
        len: usize,
        most: usize,
        batch_size: usize,
        seed: u64,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        if most < len {
            let rule = format!("this process has {len}");
            return Err(Error::invalid("largest number of samples of a process", most, rule));
        }
        let dealt = Self::distributed(len, batch_size, seed, rank, world_size)?;
        Ok(EpochSampler { arrangement: Arrangement::Own { most }, ..dealt })
    }

    /// The samples in their own order, each once an epoch; the last batch is what is left. For
    /// evaluation, in a single process.
    ///
    /// # Errors
    /// [`Error::Invalid`] when either is 0.
    pub fn in_order(len: usize, batch_size: usize) -> Result<Self> {
        Self::in_order_among(len, batch_size, 0, 1)
    }

    /// As [`EpochSampler::in_order`], the part of process `rank` out of `world_size`: every
    /// world-size-th sample from `rank` on. Processes may have different numbers of steps, and 0
    /// where there are fewer samples than processes.
    ///
    /// # Errors
    /// As [`EpochSampler::distributed`].
    pub fn in_order_among(
        len: usize,
        batch_size: usize,
        rank: usize,
        world_size: usize,
    ) -> Result<Self> {
        let dealt = Self::distributed(len, batch_size, 0, rank, world_size)?;
        Ok(EpochSampler { arrangement: Arrangement::InOrder, ..dealt })
    }

    /// Repeated augmentation (Berman et al.: "MultiGrain", arXiv 1902.05509; Hoffer et al.:
    /// "Augment your batch", CVPR 2020): each sample of the permutation `repeats` times in a row,
    /// and an epoch as long as without. So an epoch shows one in `repeats` of the samples, each in
    /// as many augmentations, which neighbouring ranks get one each of, unless each has samples of
    /// its own.
    ///
    /// As timm's `RepeatAugSampler`, but for three things: an epoch is not cut to a multiple of
    /// 256 samples, what fills the last batch is the continuation of the repeated permutation, and
    /// the second half of a batch is dealt to ranks in descending order.
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
        Ok(EpochSampler { repeats, ..self })
    }

    /// Whether this is a sampler of [`EpochSampler::in_order`] or
    /// [`EpochSampler::in_order_among`].
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

    /// Steps in an epoch, the last one filled up unless in order; the same for all ranks unless
    /// in order.
    pub fn steps(&self) -> u64 {
        let steps = match self.arrangement {
            Arrangement::Dealt => self.len.div_ceil(self.batch_size * self.world_size),
            Arrangement::Own { most } => most.div_ceil(self.batch_size),
            Arrangement::InOrder => self.in_turn().div_ceil(self.batch_size),
        };
        steps as u64
    }

    /// How many of the samples are this rank's in order.
    fn in_turn(&self) -> usize {
        self.len.saturating_sub(self.rank).div_ceil(self.world_size)
    }

    /// Sample numbers within the (padded) epoch, over all ranks, of this rank's batch at `step`.
    pub fn positions(&self, step: u64) -> impl Iterator<Item = u64> + use<> {
        let (rank, world_size) = (self.rank as u64, self.world_size as u64);
        let size = self.batch_size as u64;
        let (size_now, ascending) = match self.arrangement {
            Arrangement::InOrder => {
                let left = (self.in_turn() as u64).saturating_sub(step * size).min(size);
                (left, left)
            }
            Arrangement::Dealt | Arrangement::Own { .. } => (size, size.div_ceil(2)),
        };
        (0..size_now).map(move |place| {
            let within_block = if place < ascending { rank } else { world_size - 1 - rank };
            (step * size + place) * world_size + within_block
        })
    }

    /// Data set indices of this rank's batch at `step` < [`EpochSampler::steps`] of `epoch`.
    pub fn batch(&self, epoch: u64, step: u64) -> Vec<usize> {
        let places: Vec<u64> = match self.arrangement {
            Arrangement::InOrder => {
                return self.positions(step).map(|position| position as usize).collect();
            }
            Arrangement::Dealt => self.positions(step).collect(),
            // Of its own samples, which no other rank counts.
            Arrangement::Own { .. } => {
                let size = self.batch_size as u64;
                (step * size..(step + 1) * size).collect()
            }
        };
        let order = self.order(epoch);
        let place = |place: u64| place / self.repeats as u64 % self.len as u64;
        places.into_iter().map(|position| order[place(position) as usize]).collect()
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, order)) if *at == epoch => Arc::clone(order),
            _ => {
                let of_all = [purpose::ORDER, epoch];
                let of_rank = [purpose::ORDER, epoch, self.rank as u64];
                let mut rng = match self.arrangement {
                    Arrangement::Own { .. } => Rng::new(self.seed, &of_rank),
                    _ => Rng::new(self.seed, &of_all),
                };
                let order = Arc::new(rng.permutation(self.len));
                *cached = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }
}

#[cfg(test)]
mod tests;
