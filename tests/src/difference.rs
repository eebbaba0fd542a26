//! How far pictures are apart.

use data::Interpolation;

/// How far samples are from a reference, in levels of 255.
#[derive(Debug)]
pub struct Difference {
    /// Of any sample.
    pub largest: f64,
    /// Over all samples.
    pub mean: f64,
    /// Share of samples more than one level away.
    pub beyond_one: f64,
}

impl Difference {
    /// Between samples in levels.
    ///
    /// # Panics
    /// When their numbers differ.
    pub fn of(ours: &[f64], reference: &[f64]) -> Self {
        assert_eq!(ours.len(), reference.len());
        let count = ours.len() as f64;
        let apart = || ours.iter().zip(reference).map(|(a, b)| (a - b).abs());
        Difference {
            largest: apart().fold(0.0, f64::max),
            mean: apart().sum::<f64>() / count,
            beyond_one: apart().filter(|&levels| levels > 1.01).count() as f64 / count,
        }
    }

    /// Between bytes.
    ///
    /// # Panics
    /// When their numbers differ.
    pub fn of_bytes(ours: &[u8], reference: &[u8]) -> Self {
        let levels = |bytes: &[u8]| bytes.iter().map(|&byte| byte.into()).collect::<Vec<f64>>();
        Self::of(&levels(ours), &levels(reference))
    }

    /// Two passes rounded to whole levels, with kernels in fixed point of different precision,
    /// leave one level between us and Pillow. Cubic kernels overshoot at edges, and the result
    /// of the first pass is cut to 0..=255; Pillow's first pass is along the rows, ours along
    /// the columns, so a few samples at the ends of the range differ by more.
    pub fn is_rounding_of_a_resize(&self, filter: Interpolation) -> bool {
        match filter {
            Interpolation::Bilinear => self.largest <= 1.01 && self.mean < 0.25,
            Interpolation::Bicubic => {
                self.largest <= 12.0 && self.mean < 0.25 && self.beyond_one < 0.005
            }
        }
    }
}
