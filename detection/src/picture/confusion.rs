//! The confusion matrix.

use engine::picture::CountMatrix;
use image::RgbImage;

use crate::evaluation::Confusion;
use crate::{Error, Result};

/// Counts of objects (rows) by what they were found as (columns), each row
/// shaded by its shares; the last column holds objects that were not found,
/// the last row detections where nothing is.
///
/// # Errors
/// Another number of counts than of cells.
pub fn confusion_matrix(title: &str, confusion: &Confusion) -> Result<RgbImage> {
    let named = |last: &str| -> Vec<String> {
        confusion.names.iter().cloned().chain([last.to_owned()]).collect()
    };
    let last = confusion.side() - 1;
    let matrix = CountMatrix {
        title,
        axes: "rows: labelled, columns: found, shade: share of the row",
        rows: &named("(nothing there)"),
        columns: &named("(not found)"),
        counts: &confusion.counts,
        // Nothing found where nothing is cannot be counted.
        impossible: Some((last, last)),
    };
    matrix.draw().map_err(Error::from)
}
