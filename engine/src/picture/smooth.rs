//! Smoothed curves.

/// Share of the points that a smoothed value averages over.
const SMOOTHING: f64 = 0.03;

/// Means of y over a window of 3 % of the points, which is centred on each point and
/// shrinks at the ends.
pub fn moving_average(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() as f64 * SMOOTHING / 2.0).ceil() as usize;
    let mean = |at: usize| {
        let reach = reach.min(at).min(points.len() - 1 - at);
        let window = &points[at - reach..=at + reach];
        window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64
    };
    points.iter().enumerate().map(|(at, point)| (point.0, mean(at))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_keep_the_ends_and_straight_lines() {
        let line: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), 2.0 * f64::from(i))).collect();
        for (smooth, point) in moving_average(&line).iter().zip(&line) {
            assert!((smooth.1 - point.1).abs() < 1e-12);
        }
        let zigzag: Vec<(f64, f64)> = (0..200).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        assert!((moving_average(&zigzag)[100].1 - 0.5).abs() < 0.1);
    }
}
