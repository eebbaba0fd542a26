//! Orders, dealing and refusals.

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

/// The samplers of all of `size` ranks.
fn ranks(size: usize, of_rank: impl Fn(usize) -> Result<EpochSampler>) -> Vec<EpochSampler> {
    (0..size).map(|rank| of_rank(rank).unwrap()).collect()
}

#[test]
fn ranks_together_make_the_global_batch() {
    for (world, size) in [(3, 2), (2, 3), (4, 5), (1, 4)] {
        let global = world * size;
        let single = EpochSampler::new(23, global, 1).unwrap();
        let ranks = ranks(world, |rank| EpochSampler::distributed(23, size, 1, rank, world));
        assert_eq!(single.steps(), ranks[0].steps());
        for step in 0..single.steps() {
            let mut joined = vec![usize::MAX; global];
            for sampler in &ranks {
                let of_rank = sampler.batch(5, step).into_iter().zip(sampler.positions(step));
                for (place, (index, position)) in of_rank.enumerate() {
                    let within = position as usize - step as usize * global;
                    assert_eq!(within / world, place, "the j-th samples are the j-th block");
                    assert_eq!(joined[within], usize::MAX, "a position comes once");
                    joined[within] = index;
                }
            }
            assert_eq!(joined, single.batch(5, step));
        }
    }
}

#[test]
fn what_mixup_pairs_is_one_ranks() {
    for (world, size) in [(2, 4), (3, 2), (4, 6)] {
        let global = (world * size) as u64;
        for rank in 0..world {
            let sampler = EpochSampler::distributed(100, size, 0, rank, world).unwrap();
            for step in 0..sampler.steps() {
                let positions: Vec<u64> = sampler.positions(step).collect();
                let mirrored = positions.iter().rev().map(|position| {
                    let within = position - step * global;
                    step * global + global - 1 - within
                });
                assert!(mirrored.eq(positions.iter().copied()), "{positions:?}");
            }
        }
    }
    // The middle block of an odd number is dealt like the first ones.
    let positions = |rank| EpochSampler::distributed(9, 3, 0, rank, 2).unwrap().positions(0);
    assert_eq!(positions(0).collect::<Vec<_>>(), [0, 2, 5]);
    assert_eq!(positions(1).collect::<Vec<_>>(), [1, 3, 4]);
}

#[test]
fn ranks_with_shards_of_their_own_take_equally_many_steps() {
    let lens = [7, 10, 1];
    let ranks = ranks(3, |rank| EpochSampler::own_shards(lens[rank], 10, 4, 9, rank, 3));
    let mut positions = Vec::new();
    for (sampler, len) in ranks.iter().zip(lens) {
        assert_eq!(sampler.steps(), 3);
        let order = epoch(sampler, 2);
        assert_eq!(order.len(), 12);
        let mut once = order[..len].to_vec();
        once.sort_unstable();
        assert_eq!(once, (0..len).collect::<Vec<_>>());
        assert!((len..12).all(|place| order[place] == order[place - len]), "{order:?}");
        assert!(len == 1 || order != epoch(sampler, 3));
        positions.extend((0..3).flat_map(|step| sampler.positions(step)));
    }
    positions.sort_unstable();
    assert_eq!(positions, (0..36).collect::<Vec<_>>());
    // Ranks with as many samples go through them in orders of their own.
    let of_rank = |rank| epoch(&EpochSampler::own_shards(20, 20, 4, 9, rank, 2).unwrap(), 0);
    assert_ne!(of_rank(0), of_rank(1));
    // Repeats are a rank's own.
    let repeated = EpochSampler::own_shards(20, 20, 4, 9, 1, 2).unwrap();
    let repeated = epoch(&repeated.with_repeats(2).unwrap(), 0);
    assert!((0..20).all(|place| repeated[place] == of_rank(1)[place / 2]));
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
fn in_order_among_ranks_everything_comes_once() {
    for (len, world, batch) in [(10, 3, 2), (3, 4, 2), (1, 2, 5), (12, 4, 3), (7, 1, 3)] {
        let ranks = ranks(world, |rank| EpochSampler::in_order_among(len, batch, rank, world));
        let mut shown = Vec::new();
        for (rank, sampler) in ranks.iter().enumerate() {
            let order = epoch(sampler, 0);
            assert!(order.iter().enumerate().all(|(n, &index)| index == n * world + rank));
            let positions = (0..sampler.steps()).flat_map(|step| sampler.positions(step));
            assert!(positions.eq(order.iter().map(|&index| index as u64)));
            shown.extend(order);
        }
        shown.sort_unstable();
        assert_eq!(shown, (0..len).collect::<Vec<_>>());
    }
    let none = EpochSampler::in_order_among(3, 2, 3, 4).unwrap();
    assert_eq!((none.steps(), none.batch(0, 0)), (0, vec![]));
    let sampler = EpochSampler::in_order_among(10, 2, 0, 3).unwrap();
    assert_eq!((sampler.batch(0, 0), sampler.batch(0, 1)), (vec![0, 3], vec![6, 9]));
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
    let own = |len, most| message(EpochSampler::own_shards(len, most, 2, 0, 0, 2));
    assert!(own(5, 4).contains("samples of a process is 4, but this process has 5"));
    assert!(own(0, 4).contains("number of samples is 0"));
    assert!(message(EpochSampler::in_order_among(4, 2, 4, 4)).contains("rank is 4"));
}
