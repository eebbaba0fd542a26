//! The loss curve of a run, from its `metrics.jsonl`.

use std::path::Path;

use anyhow::Result;
use engine::metrics::series;
use engine::picture::moving_average;
use image::RgbImage;

use crate::picture::LineChart;

/// Pixels.
const SIZE: (u32, u32) = (900, 500);

/// Draws loss against step: the records, and their moving average. `None` if
/// there are fewer than two records.
pub fn loss_curve(metrics: &Path, title: &str) -> Result<Option<RgbImage>> {
    let points = series(metrics, "step", "loss")?;
    if points.len() < 2 {
        return Ok(None);
    }
    let chart = LineChart::new(title, "step", "loss on masked patches")
        .faint_series("each record", &points)
        .series("moving average", &moving_average(&points));
    Ok(Some(chart.render(SIZE.0, SIZE.1)?))
}
