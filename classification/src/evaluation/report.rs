//! The figures of an evaluation.

use std::fmt;

use serde::Serialize;
use words::counted;

/// Classes that a table for people lists from either end.
const EXTREMES: usize = 5;

/// Figures of all images and of every class; shares are in 0–1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Images counted.
    pub images: u64,
    /// Share whose class came first.
    pub top1: f64,
    /// Share whose class was among the first five.
    pub top5: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// By class.
    pub classes: Vec<ClassFigures>,
    /// Row by row, images of class `row` taken for class `column`.
    #[serde(skip)]
    pub confusion: Vec<u64>,
}

/// Figures of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassFigures {
    /// Its name.
    pub name: String,
    /// Its images.
    pub images: u64,
    /// Share of them whose class came first; none without images.
    pub top1: Option<f64>,
    /// Share of them whose class was among the first five.
    pub top5: Option<f64>,
}

impl Report {
    /// Images of class `truth` taken for class `found`.
    pub fn count(&self, truth: usize, found: usize) -> u64 {
        self.confusion[truth * self.classes.len() + found]
    }

    /// The classes as comma-separated values, with a head.
    pub fn class_csv(&self) -> String {
        let number = |share: Option<f64>| share.map_or(String::new(), |share| share.to_string());
        let row = |class: &ClassFigures| {
            let ClassFigures { name, images, top1, top5 } = class;
            format!("{},{images},{},{}\n", csv_field(name), number(*top1), number(*top5))
        };
        let rows = self.classes.iter().map(row);
        std::iter::once("class,images,top1,top5\n".to_owned()).chain(rows).collect()
    }
}

/// `text` as a field of comma-separated values (RFC 4180).
pub(super) fn csv_field(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

impl fmt::Display for Report {
    /// The figures in percent, and the classes that do worst and best.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:6.2} %", 100.0 * share);
        writeln!(f, "images   {}", self.images)?;
        writeln!(f, "top-1  {}", percent(self.top1))?;
        writeln!(f, "top-5  {}", percent(self.top5))?;
        writeln!(f, "loss     {:.4}", self.loss)?;
        let mut ranked: Vec<(&ClassFigures, f64)> =
            self.classes.iter().filter_map(|class| Some((class, class.top1?))).collect();
        ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
        let hidden = ranked.len().saturating_sub(2 * EXTREMES);
        for (rank, (class, top1)) in ranked.iter().enumerate() {
            if hidden > 0 && rank == EXTREMES {
                writeln!(f, "         … {} between", counted(hidden, "class"))?;
            }
            if hidden == 0 || rank < EXTREMES || rank >= EXTREMES + hidden {
                writeln!(f, "       {}  of {:>5}  {}", percent(*top1), class.images, class.name)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(classes: usize) -> Report {
        let class = |number: usize| ClassFigures {
            name: format!("c{number}, \"x\""),
            images: 10,
            top1: Some(number as f64 / 100.0),
            top5: None,
        };
        Report {
            images: 10,
            top1: 0.5,
            top5: 1.0,
            loss: 0.25,
            classes: (0..classes).map(class).collect(),
            confusion: vec![0; classes * classes],
        }
    }

    #[test]
    fn names_with_commas_stay_one_field() {
        let csv = report(2).class_csv();
        assert_eq!(csv.lines().nth(2), Some("\"c1, \"\"x\"\"\",10,0.01,"));
    }

    #[test]
    fn of_many_classes_the_worst_and_best_are_listed() {
        let text = report(30).to_string();
        assert!(text.contains("20 classes between"), "{text}");
        assert!(text.contains("c4,") && !text.contains("c5,") && text.contains("c25,"), "{text}");
        assert!(!report(10).to_string().contains("between"));
    }
}
