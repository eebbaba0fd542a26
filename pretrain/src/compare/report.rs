//! The result: a table as text and JSON.

use serde::Serialize;
use words::counted;

use super::plan::Plan;
use super::statistics::{Difference, Summary, Verdict};
use super::words::{clock, headline, percent, recommendation, signed, spread};

/// What was found of one figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The figure, in points of 0 to 100: top-1, box AP, mask AP.
    pub metric: String,
    /// Whether it is a share of validation images.
    #[serde(skip)]
    pub counts_images: bool,
    /// Images to validate with.
    pub images_of_validation: usize,
    /// Epochs of pretraining.
    pub epochs_of_pretraining: u64,
    /// For each share of the labels, ascending.
    pub rows: Vec<Row>,
    /// Of the largest share: pretrained weights against random ones with as much time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longer: Option<Row>,
}

/// Random and pretrained weights with the same labels.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Of the labels.
    pub share: f64,
    /// Images that these are of.
    pub images: usize,
    /// From random weights.
    pub random: Summary,
    /// From pretrained weights.
    pub pretrained: Summary,
    /// Pretrained less random, by seed.
    pub difference: Difference,
}

impl Row {
    /// Of values by seed.
    pub fn new(share: f64, images: usize, random: &[f64], pretrained: &[f64]) -> Self {
        Self {
            share,
            images,
            random: Summary::of(random),
            pretrained: Summary::of(pretrained),
            difference: Difference::of(pretrained, random),
        }
    }

    /// Pairs that are compared.
    pub fn seeds(&self) -> usize {
        self.difference.of.values.len()
    }
}

/// Everything, as `report.json` has it.
#[derive(Debug, Serialize)]
pub struct Document<'a> {
    /// The first sentence.
    pub headline: String,
    /// What to do.
    pub recommendation: Vec<String>,
    /// Seconds that all runs took.
    pub seconds: f64,
    /// The runs that were made.
    pub plan: &'a Plan,
    /// Of each figure, the first being the one that is spoken of.
    pub results: &'a [Report],
}

impl<'a> Document<'a> {
    /// Of at least one figure.
    pub fn new(plan: &'a Plan, results: &'a [Report], seconds: f64) -> Self {
        let first = results.first();
        Self {
            headline: first.map(headline).unwrap_or_default(),
            recommendation: first.map(recommendation).unwrap_or_default(),
            seconds,
            plan,
            results,
        }
    }

    /// The same to be read.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.headline);
        for report in self.results {
            text += &format!("\n{}", table(report));
        }
        text += "\nMean ± standard deviation over seeds; differences are of runs with the same \
                 seed,\nwith the 95 % interval of their mean in brackets.\n\n";
        for sentence in &self.recommendation {
            text += &format!("{sentence}\n");
        }
        if !self.plan.cut.is_empty() {
            text += &format!("Cut to fit the budget: {}.\n", self.plan.cut.join("; "));
        }
        text + &format!("All runs took {}.\n", clock(self.seconds))
    }
}

fn table(report: &Report) -> String {
    let title = format!("{}, labels", report.metric);
    let mut lines =
        vec![[title, "random".into(), "pretrained".into(), "worth".into(), String::new()]];
    for row in &report.rows {
        let images = counted(row.images, "image");
        lines.push(line(format!("{}, {images}", percent(row.share)), row));
    }
    if let Some(longer) = &report.longer {
        lines.push(line(format!("{}, as much time", percent(longer.share)), longer));
    }
    let widths: Vec<usize> = (0..5)
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text += "\n";
    }
    text
}

fn line(what: String, row: &Row) -> [String; 5] {
    let Difference { of, interval, verdict } = &row.difference;
    let mut worth = signed(of.mean);
    if let Some(spread) = of.spread {
        worth += &format!(" ± {spread:.1}");
    }
    if let Some([low, high]) = interval {
        worth += &format!(" [{}, {}]", signed(*low), signed(*high));
    }
    let verdict = match verdict {
        Verdict::Better => "better",
        Verdict::LikelyBetter => "probably better",
        Verdict::NoDifference => "no difference seen",
        Verdict::LikelyWorse => "probably worse",
        Verdict::Worse => "worse",
        Verdict::Unknown => "one seed",
    };
    [what, spread(&row.random), spread(&row.pretrained), worth, verdict.into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(rows: Vec<Row>, longer: Option<Row>) -> Report {
        Report {
            metric: "top-1".into(),
            counts_images: true,
            images_of_validation: 500,
            epochs_of_pretraining: 12,
            rows,
            longer,
        }
    }

    fn said(report: &Report) -> String {
        [vec![headline(report)], recommendation(report)].concat().join("\n")
    }

    #[test]
    fn what_helps_is_recommended() {
        let few = Row::new(0.1, 27, &[30.0, 31.0, 29.0], &[36.0, 37.2, 34.9]);
        let all = Row::new(1.0, 270, &[50.0, 51.0, 52.0], &[52.3, 53.5, 54.2]);
        let longer = Row::new(1.0, 270, &[51.0, 51.5, 52.4], &[52.3, 53.5, 54.2]);
        let text = said(&report(vec![few, all], Some(longer)));
        for part in [
            "is worth +2.3 points of top-1 (± 0.2, 3 seeds)",
            "Pretrain: with as many steps",
            "is +1.7 points (± 0.4, 3 seeds): the time of pretraining is well spent",
            "With few labels it is worth more: +6.0 points with 10 % of them",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("One of the 500"), "{text}");
    }

    #[test]
    fn what_does_not_help_is_not() {
        let none = Row::new(1.0, 270, &[50.0, 52.0, 51.0], &[51.0, 51.5, 51.2]);
        let text = said(&report(vec![none], None));
        assert!(text.starts_with("no difference seen at this budget"), "{text}");
        assert!(text.contains("saw each image 12 times"), "{text}");
        assert!(text.contains("500 validation images is 0.20 points"), "{text}");
        let worse = Row::new(1.0, 270, &[50.0, 52.0, 51.0], &[45.0, 46.9, 46.0]);
        let text = said(&report(vec![worse], None));
        assert!(
            text.contains("is worth -5.0 points") && text.contains("Do not pretrain"),
            "{text}"
        );
    }

    #[test]
    fn time_is_compared_too() {
        let all = Row::new(1.0, 270, &[50.0, 51.0], &[53.0, 54.1]);
        let longer = Row::new(1.0, 270, &[56.0], &[53.0]);
        let text = said(&report(vec![all.clone()], Some(longer)));
        assert!(text.contains("-3.0 points (one seed, so that chance"), "{text}");
        assert!(text.contains("seems better spent on training longer"), "{text}");
        let longer = Row::new(1.0, 270, &[56.0, 57.0], &[53.0, 54.1]);
        let text = said(&report(vec![all], Some(longer)));
        assert!(text.contains("for a single model the time is better spent"), "{text}");
    }

    #[test]
    fn the_table_has_a_line_for_each_comparison() {
        let rows = vec![Row::new(0.3, 81, &[30.0, 31.0], &[33.0, 35.0])];
        let table = table(&report(rows, Some(Row::new(0.3, 81, &[32.0], &[33.0]))));
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].starts_with("30 %, 81 images"), "{table}");
        assert!(lines[1].contains("30.50 ± 0.71") && lines[1].contains("34.00 ± 1.41"), "{table}");
        assert!(lines[1].contains("+3.5 ± 0.7 [-2.9, +9.9]"), "{table}");
        assert!(lines[1].ends_with("probably better") && lines[2].ends_with("one seed"), "{table}");
    }
}
