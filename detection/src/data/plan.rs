//! The order of an epoch, with images of one orientation in a batch.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use data::rng::{Rng, purpose};
use engine::distributed::ProcessGroup;

/// Which part of every batch is read here: of `size` processes, that with number `rank` has every
/// `size`th image from its own number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0, below `size`.
    pub rank: usize,
    /// Not 0.
    pub size: usize,
}

impl Share {
    /// All of it.
    pub const ALL: Self = Self { rank: 0, size: 1 };

    /// The numbers in `range` that are read here.
    pub(super) fn of(self, range: Range<usize>) -> impl Iterator<Item = usize> {
        range.skip(self.rank).step_by(self.size)
    }
}

impl From<&ProcessGroup> for Share {
    fn from(world: &ProcessGroup) -> Self {
        Self { rank: world.rank(), size: world.size() }
    }
}

/// Batches of wide images and of tall ones, so that little of a batch is padding (detectron2's
/// `AspectRatioGroupedDataset`), as a pure function of (seed, epoch).
///
/// Images come in a random order; a batch goes out when it has gathered enough of one
/// orientation. What remains at the end of the epoch of both is joined, wide ones first, and
/// filled up with the epoch's first images. So every epoch has every image, no more than
/// `batch − 1` images twice, and the same number of steps.
#[derive(Debug)]
pub(super) struct GroupedPlan {
    images: Vec<usize>,
    /// Whether each of `images` is wider than high.
    wide: Vec<bool>,
    batch: usize,
    seed: u64,
    /// The last epoch asked for and its order.
    order: Mutex<Option<(u64, Arc<Vec<usize>>)>>,
}

impl GroupedPlan {
    /// Of `images` with their orientation, neither empty nor in batches of 0.
    pub(super) fn new(images: Vec<usize>, wide: Vec<bool>, batch: usize, seed: u64) -> Self {
        Self { images, wide, batch, seed, order: Mutex::default() }
    }

    pub(super) fn images(&self) -> &[usize] {
        &self.images
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    pub(super) fn steps(&self) -> u64 {
        // Joined remainders fill the fewest batches, so grouping costs none.
        self.images.len().div_ceil(self.batch) as u64
    }

    /// The images of the batch at `step` of `epoch`.
    pub(super) fn batch(&self, epoch: u64, step: u64) -> Vec<usize> {
        let order = self.order(epoch);
        order[step as usize * self.batch..][..self.batch].to_vec()
    }

    /// The number in the epoch of the batch's first image.
    pub(super) fn first_position(&self, step: u64) -> u64 {
        step * self.batch as u64
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut cached = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((at, order)) if *at == epoch => Arc::clone(order),
            _ => {
                let order = Arc::new(self.draw(epoch));
                *cached = Some((epoch, Arc::clone(&order)));
                order
            }
        }
    }

    fn draw(&self, epoch: u64) -> Vec<usize> {
        let mut rng = Rng::new(self.seed, &[purpose::ORDER, epoch]);
        let mut order = Vec::with_capacity(self.images.len() + self.batch);
        let (mut wide, mut tall) = (Vec::new(), Vec::new());
        for place in rng.permutation(self.images.len()) {
            let group = if self.wide[place] { &mut wide } else { &mut tall };
            group.push(self.images[place]);
            if group.len() == self.batch {
                order.append(group);
            }
        }
        order.append(&mut wide);
        order.append(&mut tall);
        let full = self.steps() as usize * self.batch;
        let head: Vec<usize> = order.iter().copied().cycle().take(full - order.len()).collect();
        order.extend(head);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(wide: usize, tall: usize, batch: usize) -> GroupedPlan {
        let orientation = (0..wide + tall).map(|place| place < wide).collect();
        GroupedPlan::new((100..100 + wide + tall).collect(), orientation, batch, 5)
    }

    fn epoch(plan: &GroupedPlan, epoch: u64) -> Vec<Vec<usize>> {
        (0..plan.steps()).map(|step| plan.batch(epoch, step)).collect()
    }

    #[test]
    fn an_epoch_has_every_image_and_at_most_two_mixed_batches() {
        for (wide, tall, batch) in [(10, 7, 4), (8, 4, 4), (1, 1, 4), (3, 0, 2), (5, 6, 1)] {
            let plan = plan(wide, tall, batch);
            let batches = epoch(&plan, 3);
            assert!(batches.iter().all(|images| images.len() == batch));
            let is_mixed = |images: &&Vec<usize>| {
                images.iter().any(|&i| i < 100 + wide) && images.iter().any(|&i| i >= 100 + wide)
            };
            // Both remainders together are less than two batches.
            let mixed = batches.iter().filter(is_mixed).count();
            assert!(mixed <= 2, "{wide} wide, {tall} tall in batches of {batch}: {mixed} mixed");
            let all: Vec<usize> = batches.into_iter().flatten().collect();
            let mut once = all[..wide + tall].to_vec();
            once.sort_unstable();
            assert_eq!(once, (100..100 + wide + tall).collect::<Vec<_>>());
            assert!(all.len() - (wide + tall) < batch);
        }
    }

    #[test]
    fn full_batches_have_one_orientation() {
        let plan = plan(8, 12, 4);
        for images in epoch(&plan, 0) {
            let wide = images.iter().filter(|&&image| image < 108).count();
            assert!(wide == 0 || wide == 4, "{images:?}");
        }
    }

    #[test]
    fn shares_together_are_the_whole() {
        let shares: Vec<usize> =
            (0..3).flat_map(|rank| Share { rank, size: 3 }.of(5..13)).collect();
        assert_eq!(shares, [5, 8, 11, 6, 9, 12, 7, 10]);
        assert_eq!(Share::ALL.of(2..4).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(Share { rank: 2, size: 3 }.of(0..2).count(), 0);
    }

    #[test]
    fn orders_depend_on_seed_and_epoch_alone() {
        let (one, two) = (plan(9, 9, 4), plan(9, 9, 4));
        let later = epoch(&one, 7);
        assert_ne!(epoch(&one, 6), later);
        assert_eq!(epoch(&two, 7), later);
    }
}
