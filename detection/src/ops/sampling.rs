//! Which boxes a training step learns from.
//!
//! detectron2 `modeling/sampling.py`, torchvision's
//! `BalancedPositiveNegativeSampler`.

use data::rng::Rng;
use tch::Tensor;

/// Draws at most `count` of the boxes with these `labels` (`[N]`: −1 ignored,
/// `background`, anything else an object): objects up to `positive_fraction` of
/// `count`, the rest background. Returns the indices of both, int64, rising.
/// All of a kind are kept, and nothing is drawn, where they fit.
pub fn subsample(
    labels: &Tensor,
    count: i64,
    positive_fraction: f64,
    background: i64,
    rng: &mut Rng,
) -> (Tensor, Tensor) {
    let device = labels.device();
    let labels = Vec::<i64>::try_from(labels).expect("a vector of labels");
    let which = |wanted: fn(i64, i64) -> bool| -> Vec<i64> {
        let wanted = |&(_, &label): &(usize, &i64)| wanted(label, background);
        labels.iter().enumerate().filter(wanted).map(|(at, _)| at as i64).collect()
    };
    let positives = which(|label, background| label != -1 && label != background);
    let negatives = which(|label, background| label == background);
    // Truncated, as both references do.
    let most_positives = (count as f64 * positive_fraction) as usize;
    let positives = choose(positives, most_positives, rng);
    let negatives = choose(negatives, count as usize - positives.len(), rng);
    let to_device = |indices: Vec<i64>| Tensor::from_slice(&indices).to_device(device);
    (to_device(positives), to_device(negatives))
}

/// `count` of `items`, each as likely as the others, in their order.
fn choose(mut items: Vec<i64>, count: usize, rng: &mut Rng) -> Vec<i64> {
    if count >= items.len() {
        return items;
    }
    // The first steps of a Fisher–Yates shuffle.
    for at in 0..count {
        let other = at + rng.below(items.len() - at);
        items.swap(at, other);
    }
    items.truncate(count);
    items.sort_unstable();
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn run(labels: &[i64], count: i64, fraction: f64, seed: u64) -> (Vec<i64>, Vec<i64>) {
        let labels = Tensor::from_slice(labels);
        let (positives, negatives) =
            subsample(&labels, count, fraction, 0, &mut Rng::new(seed, &[]));
        (positives.try_into().unwrap(), negatives.try_into().unwrap())
    }

    #[test]
    fn all_are_kept_in_order_where_they_fit() {
        let kept = run(&[0, 1, -1, 0, 2], 10, 1.0, 0);
        assert_eq!(kept, (vec![1, 4], vec![0, 3]));
    }

    #[test]
    fn every_choice_is_as_likely() {
        let mut counts = [0u32; 6];
        let labels = [1, 1, 0, 1, 0, 0];
        for seed in 0..6000 {
            let (positives, negatives) = run(&labels, 2, 0.5, seed);
            assert_eq!((positives.len(), negatives.len()), (1, 1));
            counts[positives[0] as usize] += 1;
            counts[negatives[0] as usize] += 1;
        }
        // Binomial(6000, 1/3) has standard deviation 36.5; five of them.
        assert!(counts.iter().all(|&count| count.abs_diff(2000) < 183), "{counts:?}");
    }

    proptest! {
        #[test]
        fn budget_and_fraction_hold(
            labels in prop::collection::vec(-1i64..3, 0..60),
            count in 0i64..40,
            fraction in 0.0f64..1.0,
            seed: u64,
        ) {
            let (positives, negatives) = run(&labels, count, fraction, seed);
            let of = |wanted: fn(&i64) -> bool| labels.iter().filter(|l| wanted(l)).count();
            let most = (count as f64 * fraction) as usize;
            prop_assert_eq!(positives.len(), of(|&l| l > 0).min(most));
            prop_assert_eq!(negatives.len(), of(|&l| l == 0).min(count as usize - positives.len()));
            prop_assert!(positives.iter().all(|&at| labels[at as usize] > 0));
            prop_assert!(negatives.iter().all(|&at| labels[at as usize] == 0));
            prop_assert!(positives.is_sorted_by(|a, b| a < b));
            prop_assert!(negatives.is_sorted_by(|a, b| a < b));
        }
    }
}
