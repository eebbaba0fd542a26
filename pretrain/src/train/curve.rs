//! The loss curve of a run, from its `metrics.jsonl`.

use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use serde::Deserialize;

use crate::picture::LineChart;

/// Pixels.
const SIZE: (u32, u32) = (900, 500);
/// Share of the records that a smoothed value averages over.
const SMOOTHING: f64 = 0.03;

#[derive(Deserialize)]
struct Record {
    step: f64,
    loss: Option<f64>,
}

/// Draws loss against step: the records, and their moving average. `None` if
/// there are fewer than two records.
pub fn loss_curve(metrics: &Path, title: &str) -> Result<Option<RgbImage>> {
    let text = std::fs::read_to_string(metrics)
        .with_context(|| format!("cannot read {}", metrics.display()))?;
    let points: Vec<(f64, f64)> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Record>(line).ok())
        .filter_map(|record| Some((record.step, record.loss?)))
        .collect();
    if points.len() < 2 {
        return Ok(None);
    }
    let chart = LineChart::new(title, "step", "loss on masked patches")
        .faint_series("each record", &points)
        .series("moving average", &moving_average(&points));
    Ok(Some(chart.render(SIZE.0, SIZE.1)?))
}

/// Means over a window that is centred on each point and shrinks at the ends.
fn moving_average(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
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
