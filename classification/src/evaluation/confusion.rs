//! The confusion matrix as a picture and as a table.

use engine::picture::{CountMatrix, Result};
use image::RgbImage;

use super::Report;
use super::report::csv_field;

/// Images by their class (rows) and what they were taken for (columns), each row
/// shaded by its shares.
///
/// # Errors
/// A picture too large to be held.
pub fn confusion_picture(title: &str, report: &Report) -> Result<RgbImage> {
    let names: Vec<String> = report.classes.iter().map(|class| class.name.clone()).collect();
    CountMatrix {
        title,
        axes: "rows: labelled, columns: predicted, shade: share of the row",
        rows: &names,
        columns: &names,
        counts: &report.confusion,
        impossible: None,
    }
    .draw()
}

/// The same counts as comma-separated values: the columns' names first, then a
/// line for each class.
pub fn confusion_csv(report: &Report) -> String {
    let side = report.classes.len();
    let mut csv = String::from("labelled \\ predicted");
    for class in &report.classes {
        csv += &format!(",{}", csv_field(&class.name));
    }
    csv.push('\n');
    for (row, class) in report.classes.iter().enumerate() {
        csv += &csv_field(&class.name);
        for count in &report.confusion[row * side..][..side] {
            csv += &format!(",{count}");
        }
        csv.push('\n');
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::Evaluator;

    #[test]
    fn rows_are_the_labels() {
        let mut evaluator = Evaluator::new(vec!["cat".into(), "a,b".into()]);
        let logits = tch::Tensor::from_slice(&[0f32, 1.0]).view([1, 2]);
        evaluator.add(&logits, &[0]);
        let report = evaluator.finish().unwrap();
        let csv = confusion_csv(&report);
        assert_eq!(csv, "labelled \\ predicted,cat,\"a,b\"\ncat,0,1\n\"a,b\",0,0\n");
        assert!(confusion_picture("t", &report).unwrap().width() > 100);
    }
}
