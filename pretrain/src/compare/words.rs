//! Numbers as a person reads them, and what a comparison's result recommends.

use words::{counted, grouped};

use super::report::{Report, Row};
use super::statistics::{Summary, Verdict};

/// Hours, minutes and seconds.
pub fn clock(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A share: "10 %", "0.5 %".
pub fn percent(share: f64) -> String {
    // Of a decimal fraction the digits that were typed, and not those of its binary one.
    let rounded = (share * 1e6).round() / 1e4;
    format!("{rounded} %")
}

/// "51.04 ± 0.15"; of one value without a spread.
pub fn spread(summary: &Summary) -> String {
    let mean = format!("{:.2}", summary.mean);
    summary.spread.map_or(mean.clone(), |spread| format!("{mean} ± {spread:.2}"))
}

/// With its sign.
pub fn signed(value: f64) -> String {
    // Adding zero turns a negative zero into a positive one.
    format!("{:+.1}", (value * 10.0).round() / 10.0 + 0.0)
}

/// The first sentence: what pretraining is worth.
pub fn headline(report: &Report) -> String {
    let Some(row) = report.rows.last() else { return String::new() };
    let difference = &row.difference;
    let spread = difference
        .of
        .spread
        .map(|spread| format!(" (± {spread:.1}, {})", counted(row.seeds(), "seed")));
    let spread = spread.unwrap_or_default();
    let worth = signed(difference.of.mean);
    let metric = &report.metric;
    let labels = if row.share < 1.0 {
        format!(" with {} of the labels", percent(row.share))
    } else {
        String::new()
    };
    match difference.verdict {
        Verdict::NoDifference => format!(
            "no difference seen at this budget{labels}: pretraining on your images changed \
             {metric} by {worth} points{spread}"
        ),
        _ => format!(
            "pretraining on your images is worth {worth} points of {metric}{labels}{spread}"
        ),
    }
}

/// What to do, in sentences.
pub fn recommendation(report: &Report) -> Vec<String> {
    let Some(row) = report.rows.last() else { return Vec::new() };
    let mut said = vec![of_steps(report, row)];
    said.extend(of_time(report));
    said.extend(of_shares(report));
    said.extend(of_resolution(report, row));
    said
}

fn of_steps(report: &Report, row: &Row) -> String {
    let seen = report.epochs_of_pretraining;
    match row.difference.verdict {
        Verdict::Better => {
            "Pretrain: with as many steps of fine-tuning it is better beyond the spread of the \
             seeds (95 % interval above 0)."
                .into()
        }
        Verdict::LikelyBetter => {
            "Pretraining probably helps: the difference is larger than its spread, but with so few \
             seeds chance is not ruled out (the 95 % interval reaches 0); more --seeds would tell."
                .into()
        }
        Verdict::NoDifference => format!(
            "The spread of the seeds is as large as the difference: nothing can be said at this \
             budget. Pretraining saw each image {}; it needs hundreds of epochs on small sets to \
             show what it can. Give more --minutes, or leave it out.",
            times(seen)
        ),
        Verdict::LikelyWorse | Verdict::Worse => format!(
            "Do not pretrain like this: random weights did better. Pretraining saw each image {}: \
             give it more --minutes, or images that are more like the labelled ones, before it is \
             given up.",
            times(seen)
        ),
        Verdict::Unknown => "One seed says nothing of chance.".into(),
    }
}

fn times(count: u64) -> String {
    match count {
        1 => "once".into(),
        2 => "twice".into(),
        count => format!("{} times", grouped(count)),
    }
}

/// Whether the time of pretraining had been better spent on training.
fn of_time(report: &Report) -> Option<String> {
    let longer = report.longer.as_ref()?;
    let difference = &longer.difference;
    let ahead = signed(difference.of.mean);
    let spread = match difference.of.spread {
        Some(spread) => format!("± {spread:.1}, {}", counted(longer.seeds(), "seed")),
        None => "one seed, so that chance is not ruled out".into(),
    };
    let helps = report.rows.last().is_some_and(|row| row.difference.of.mean > 0.0);
    let advice = match difference.verdict {
        Verdict::Better | Verdict::LikelyBetter => "the time of pretraining is well spent, too",
        Verdict::Worse | Verdict::LikelyWorse if helps => {
            "for a single model the time is better spent on training longer; pretraining pays where \
             its weights are used several times"
        }
        Verdict::Worse | Verdict::LikelyWorse => "the time is better spent on training longer",
        Verdict::NoDifference if helps => {
            "training longer does as well; pretraining pays where its weights are used several times"
        }
        Verdict::NoDifference => "training longer does as well",
        Verdict::Unknown if difference.of.mean > 0.0 => "the time of pretraining seems well spent",
        Verdict::Unknown => "the time seems better spent on training longer",
    };
    Some(format!(
        "Against random weights that train as long as pretraining and fine-tuning together it is \
         {ahead} points ({spread}): {advice}."
    ))
}

/// Where few labels gain more than many.
fn of_shares(report: &Report) -> Option<String> {
    let (first, last) = (report.rows.first()?, report.rows.last()?);
    let gain = |row: &Row| row.difference.of.mean;
    let clear = matches!(first.difference.verdict, Verdict::Better | Verdict::LikelyBetter);
    (report.rows.len() > 1 && clear && gain(first) > gain(last)).then(|| {
        format!(
            "With few labels it is worth more: {} points with {} of them.",
            signed(gain(first)),
            percent(first.share)
        )
    })
}

/// How much of a difference one image of the validation set is.
fn of_resolution(report: &Report, row: &Row) -> Option<String> {
    let image = 100.0 / report.images_of_validation as f64;
    let coarse = report.counts_images && row.difference.of.mean.abs() < 3.0 * image;
    coarse.then(|| {
        format!(
            "One of the {} is {image:.2} points: differences of a few images say little, more \
             images in val would tell more.",
            counted(report.images_of_validation, "validation image")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        assert_eq!(clock(3725.6), "1:02:06");
        assert_eq!([0.1, 0.3, 1.0, 0.005].map(percent), ["10 %", "30 %", "100 %", "0.5 %"]);
        assert_eq!([1.26, -0.04, -2.0].map(signed), ["+1.3", "+0.0", "-2.0"]);
    }
}
