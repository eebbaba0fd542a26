//! What differences between runs say, paired by their seeds.

use serde::{Deserialize, Serialize};

/// Mean and spread of the values of several runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// By seed.
    pub values: Vec<f64>,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation, of a sample (divided by n − 1); none of one value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
}

/// What a difference is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The 95 % interval of the mean is above 0.
    Better,
    /// The mean exceeds the spread, but its interval reaches 0.
    LikelyBetter,
    /// The spread is as large as the mean.
    NoDifference,
    /// As [`Verdict::LikelyBetter`], below 0.
    LikelyWorse,
    /// As [`Verdict::Better`], below 0.
    Worse,
    /// One pair has no spread.
    Unknown,
}

/// Differences of runs with the same seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// The differences.
    #[serde(flatten)]
    pub of: Summary,
    /// The 95 % interval of their mean, by Student's t.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// What that says.
    pub verdict: Verdict,
}

impl Summary {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let spread = (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
        Self { values: values.to_vec(), mean, spread }
    }
}

impl Difference {
    /// Of `first` less `second`, by their places.
    pub fn of(first: &[f64], second: &[f64]) -> Self {
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
        let of = Summary::of(&differences);
        let interval = of.spread.map(|spread| {
            let half = student(differences.len() - 1) * spread / (differences.len() as f64).sqrt();
            [of.mean - half, of.mean + half]
        });
        let verdict = match (of.spread, interval) {
            (Some(_), Some([low, _])) if low > 0.0 => Verdict::Better,
            (Some(_), Some([_, high])) if high < 0.0 => Verdict::Worse,
            (Some(spread), _) if of.mean > spread => Verdict::LikelyBetter,
            (Some(spread), _) if of.mean < -spread => Verdict::LikelyWorse,
            (Some(_), _) => Verdict::NoDifference,
            (None, _) => Verdict::Unknown,
        };
        Self { of, interval, verdict }
    }
}

/// Student's t that 2.5 % of the distribution of so many degrees of freedom lie above.
fn student(freedom: usize) -> f64 {
    const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    match freedom {
        0 => f64::INFINITY,
        1..=10 => T[freedom - 1],
        // Cornish and Fisher's expansion around the normal distribution's 1.96: to 0.002 from 11 on.
        _ => {
            let (z, n) = (1.959_964_f64, freedom as f64);
            z + (z.powi(3) + z) / (4.0 * n)
                + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n)
        }
    }
}

/// Means of curves at the places that all of them have.
pub fn mean_curve(curves: &[&[(f64, f64)]]) -> Vec<(f64, f64)> {
    let length = curves.iter().map(|curve| curve.len()).min().unwrap_or(0);
    let mean = |at: usize| {
        let sum = |part: fn(&(f64, f64)) -> f64| -> f64 {
            curves.iter().map(|curve| part(&curve[at])).sum::<f64>() / curves.len() as f64
        };
        (sum(|point| point.0), sum(|point| point.1))
    };
    (0..length).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_spreads_are_those_of_a_sample() {
        let summary = Summary::of(&[2.0, 4.0, 9.0]);
        // Squares of −3, −1 and 4 over two.
        assert_eq!((summary.mean, summary.spread), (5.0, Some(13f64.sqrt())));
        assert_eq!(Summary::of(&[2.0]).spread, None);
    }

    #[test]
    fn seeds_are_paired() {
        // Runs differ by tens between seeds, and by two within them.
        let difference = Difference::of(&[52.0, 62.1, 71.9], &[50.0, 60.0, 70.0]);
        assert!((difference.of.mean - 2.0).abs() < 1e-12, "{difference:?}");
        let spread = difference.of.spread.unwrap();
        assert!((spread - 0.1).abs() < 1e-12, "{spread}");
        // 4.303 · 0.1 / √3.
        let [low, high] = difference.interval.unwrap();
        assert!((low - 1.7516).abs() < 1e-4 && (high - 2.2484).abs() < 1e-4, "{low} {high}");
        assert_eq!(difference.verdict, Verdict::Better);
    }

    #[test]
    fn a_spread_as_large_as_the_difference_is_no_difference() {
        let verdict = |differences: &[f64]| {
            Difference::of(differences, &vec![0.0; differences.len()]).verdict
        };
        assert_eq!(verdict(&[3.0, -1.0, 1.0]), Verdict::NoDifference);
        assert_eq!(verdict(&[3.0, 1.0, 2.0]), Verdict::LikelyBetter);
        assert_eq!(verdict(&[-3.0, -1.0, -2.0]), Verdict::LikelyWorse);
        assert_eq!(verdict(&[-2.1, -1.9, -2.0]), Verdict::Worse);
        assert_eq!(verdict(&[5.0]), Verdict::Unknown);
        // Equal runs, as of weights that nothing was learned in.
        assert_eq!(verdict(&[0.0, 0.0, 0.0]), Verdict::NoDifference);
        assert_eq!(verdict(&[1.0, 1.0, 1.0]), Verdict::Better);
    }

    #[test]
    fn students_t_is_that_of_tables() {
        for (freedom, t) in
            [(1, 12.706), (2, 4.303), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.0)]
        {
            assert!((student(freedom) - t).abs() < 0.003, "{freedom}: {}", student(freedom));
        }
    }

    #[test]
    fn curves_are_averaged_where_all_are() {
        let curves: [&[(f64, f64)]; 2] =
            [&[(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)], &[(1.0, 20.0), (2.0, 40.0)]];
        assert_eq!(mean_curve(&curves), [(1.0, 15.0), (2.0, 30.0)]);
        assert!(mean_curve(&[]).is_empty());
    }
}
