//! Random numbers that depend on nothing but a seed and a place.
//!
//! Every draw of a program comes from `Rng::new(seed, &[purpose, epoch, index, …])`:
//! there is no generator whose state would have to be saved, so a run resumed at any
//! step, or spread over any number of threads, draws the same values.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
//! generators", OOPSLA 2014), written out here because a resumed run needs the same
//! values from every later build, and the `rand` crates keep the right to change theirs
//! between versions.

/// First stream word of each kind of draw, so that no two kinds share a stream.
pub mod purpose {
    /// The order of the samples in an epoch.
    pub const ORDER: u64 = 1;
    /// The augmentation of one sample.
    pub const AUGMENT: u64 = 2;
    /// The sample that takes the place of one that cannot be read.
    pub const SUBSTITUTE: u64 = 3;
    /// How the images of a batch are mixed.
    pub const MIX: u64 = 4;
    /// The order of images in shards.
    pub const SHARDS: u64 = 5;
}

/// The fractional part of the golden ratio times 2⁶⁴: SplitMix64's increment.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// One stream of random numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// The stream that `seed` and the words of `stream` name.
    ///
    /// Streams with different words, or the same words in another order or number, are
    /// unrelated.
    pub fn new(seed: u64, stream: &[u64]) -> Self {
        let start = mix(seed.wrapping_add(GOLDEN));
        let state =
            stream.iter().fold(start, |state, &word| mix(state ^ mix(word.wrapping_add(GOLDEN))));
        Rng { state }
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in [0, 1), a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [`low`, `high`).
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in 0..n without bias (Lemire's multiplication, arXiv 1805.10941); 0 for n = 0.
    pub fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let rejected = n.wrapping_neg().checked_rem(n).unwrap_or(0);
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as usize;
            }
        }
    }

    /// Normal with mean 0 and standard deviation 1 (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Beta(`a`, `b`) for positive finite `a` and `b`: the first one's share of two gamma
    /// variables.
    pub fn beta(&mut self, a: f64, b: f64) -> f64 {
        let (first, second) = (self.ln_gamma(a), self.ln_gamma(b));
        1.0 / (1.0 + (second - first).exp())
    }

    /// The logarithm of a Gamma(`shape`, 1) variable (Marsaglia, Tsang: "A simple method for
    /// generating gamma variables", TOMS 2000). The variables themselves are 0 in floating point
    /// for most draws of a small shape.
    fn ln_gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.uniform()).ln() / shape;
            return self.ln_gamma(shape + 1.0) + boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            let accepted = 0.5 * x * x + d * (1.0 - v + v.ln());
            if v > 0.0 && (1.0 - self.uniform()).ln() < accepted {
                return d.ln() + v.ln();
            }
        }
    }

    /// Puts `items` in a random order (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }

    /// 0..n in a random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..n).collect();
        self.shuffle(&mut order);
        order
    }
}

/// SplitMix64's output function: a bijection whose every output bit depends on every input bit.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_splitmix64s_published_values() {
        // Reference output of the algorithm for state 1234567, as listed by Rosetta Code.
        let mut rng = Rng { state: 1_234_567 };
        let drawn: Vec<u64> = (0..5).map(|_| rng.next_u64()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(drawn, published);
    }

    #[test]
    fn values_never_change() {
        // Resumed runs rely on these; a change here breaks every checkpoint there is.
        let mut rng = Rng::new(7, &[purpose::AUGMENT, 3, 11]);
        assert_eq!(rng.next_u64(), PINNED_WORD);
        assert_eq!(Rng::new(0, &[]).permutation(8), PINNED_ORDER);
    }
    // Computed by an independent Python implementation of the documented scheme.
    const PINNED_WORD: u64 = 1_591_383_621_329_504_739;
    const PINNED_ORDER: [usize; 8] = [7, 1, 0, 6, 3, 2, 4, 5];

    #[test]
    fn streams_differ_in_every_word_and_its_place() {
        let streams: [&[u64]; 8] = [&[], &[0], &[0, 0], &[1], &[0, 1], &[1, 0], &[1, 1], &[2]];
        let mut first: Vec<u64> = streams.iter().map(|s| Rng::new(5, s).next_u64()).collect();
        first.push(Rng::new(6, &[]).next_u64());
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 9);
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut rng = Rng::new(1, &[]);
        let mut counts = [0u32; 7];
        (0..70_000).for_each(|_| counts[rng.below(7)] += 1);
        // Binomial(70000, 1/7) has standard deviation 93; five of them.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 465), "{counts:?}");
        assert_eq!(rng.below(1), 0);
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn uniform_covers_the_unit_interval() {
        let mut rng = Rng::new(2, &[]);
        let draws: Vec<f64> = (0..100_000).map(|_| rng.uniform()).collect();
        assert!(draws.iter().all(|u| (0.0..1.0).contains(u)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        // Standard deviation of the mean is 1/sqrt(12·100000) = 0.0009; five of them.
        assert!((mean - 0.5).abs() < 0.0046, "{mean}");
    }

    /// Mean and variance of `draws`.
    fn moments(draws: &[f64]) -> (f64, f64) {
        let count = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / count;
        (mean, draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / count)
    }

    #[test]
    fn normal_has_its_moments_and_tails() {
        let mut rng = Rng::new(4, &[]);
        let draws: Vec<f64> = (0..100_000).map(|_| rng.normal()).collect();
        let (mean, variance) = moments(&draws);
        // Standard errors are 1/sqrt(100000) = 0.0032 and sqrt(2/100000) = 0.0045; five of each.
        assert!(mean.abs() < 0.016 && (variance - 1.0).abs() < 0.023, "{mean} {variance}");
        // 4.55 % lie beyond two deviations; standard error 0.066 %.
        let tails = draws.iter().filter(|draw| draw.abs() > 2.0).count() as f64 / 1e5;
        assert!((tails - 0.0455).abs() < 0.0033, "{tails}");
    }

    #[test]
    fn beta_has_its_moments_for_small_and_large_parameters() {
        let mut rng = Rng::new(5, &[]);
        for (a, b) in [(0.1, 0.1), (0.8, 0.8), (1.0, 1.0), (2.0, 5.0), (0.001, 0.001)] {
            let draws: Vec<f64> = (0..100_000).map(|_| rng.beta(a, b)).collect();
            assert!(draws.iter().all(|draw| (0.0..=1.0).contains(draw)));
            let (mean, variance) = moments(&draws);
            let sum: f64 = a + b;
            let expected = a * b / (sum * sum * (sum + 1.0));
            // Deviations are at most 1/2, fourth moments at most 1/16: five standard errors of
            // the mean and of the variance are below 5/2/316 and 5/4/316.
            assert!((mean - a / sum).abs() < 0.008, "{a} {b}: {mean}");
            assert!((variance - expected).abs() < 0.004, "{a} {b}: {variance}");
        }
    }

    #[test]
    fn permutation_holds_every_index_once() {
        let mut order = Rng::new(3, &[1]).permutation(1000);
        assert_ne!(order, (0..1000).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<_>>());
        assert!(Rng::new(3, &[1]).permutation(0).is_empty());
    }
}
