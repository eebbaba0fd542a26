//! The loss curve of a run, from its `metrics.jsonl`.

use std::path::Path;

use anyhow::Result;
use image::RgbImage;

use super::{LineChart, moving_average};
use crate::metrics::series;

/// Of a curve's picture, in pixels.
pub const CURVE_SIZE: (u32, u32) = (900, 500);

/// Draws the training loss, called `label`, against step: the records of `metrics`, and their
/// moving average. `None` if there are fewer than two records.
///
/// # Errors
/// A file that cannot be read, or the chart's.
pub fn loss_curve(metrics: &Path, title: &str, label: &str) -> Result<Option<RgbImage>> {
    let points = series(metrics, "step", "loss")?;
    if points.len() < 2 {
        return Ok(None);
    }
    let chart = LineChart::new(title, "step", label)
        .faint_series("each record", &points)
        .series("moving average", &moving_average(&points));
    Ok(Some(chart.render(CURVE_SIZE.0, CURVE_SIZE.1)?))
}
