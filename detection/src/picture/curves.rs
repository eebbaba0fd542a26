//! Precision–recall curves.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, INK, shorten};
use engine::picture::{Canvas, LineChart, pale};
use image::RgbImage;

use super::palette::{class_color, on_paper};
use crate::evaluation::{PrecisionRecall, RECALLS};
use crate::{Error, Result};

/// Of the chart itself, in pixels.
const CHART: (u32, u32) = (640, 520);
/// Up to here every class has a colour and a line in the legend.
const NAMED: usize = 20;
/// Of more classes, so many of the best and of the worst have.
const EXTREMES: usize = 8;
/// Length of a line in the legend, in pixels.
const SAMPLE: u32 = 24;
/// Letters of a name in the legend.
const LETTERS: usize = 22;
const GREY: Rgb888 = Rgb888::new(218, 218, 218);

/// A line of the legend.
struct Entry {
    name: String,
    /// Area under the curve.
    ap: f64,
    color: Rgb888,
    width: u32,
}

/// Precision against recall: each class in its colour, their mean in bold ink. Of more than 20
/// classes the best and the worst eight are coloured, the others grey. `names`
/// by class.
///
/// # Errors
/// Another number of names than of classes, or no class with objects.
pub fn pr_curves(title: &str, curves: &PrecisionRecall, names: &[String]) -> Result<RgbImage> {
    if names.len() != curves.classes.len() {
        let rule = format!("there are {} classes", curves.classes.len());
        return Err(Error::invalid("number of class names", names.len(), rule));
    }
    let Some(mean) = curves.mean() else {
        let rule = "at least one class must have objects";
        return Err(Error::invalid("precision–recall curves", "without data", rule));
    };
    let mut ranked: Vec<(usize, f64)> = (0..names.len())
        .filter_map(|class| Some((class, curves.average_precision(class)?)))
        .collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));

    let many = ranked.len() > NAMED;
    let middle = if many { EXTREMES..ranked.len() - EXTREMES } else { 0..0 };
    let mut chart = LineChart::new(title, "recall", "precision").within((0.0, 1.0), (0.0, 1.02));
    for &(class, _) in &ranked[middle.clone()] {
        chart = chart.line(&points(curves, class), GREY, 1);
    }
    let mut legend = Vec::new();
    for (rank, &(class, ap)) in ranked.iter().enumerate() {
        if middle.contains(&rank) {
            continue;
        }
        let shown = (rank.min(ranked.len() - 1 - rank), rank >= middle.end);
        let color = if many { extreme_color(shown) } else { on_paper(class_color(class)) };
        chart = chart.line(&points(curves, class), color, if many { 1 } else { 2 });
        legend.push(Entry { name: shorten(&names[class], LETTERS), ap, color, width: 2 });
    }
    let ap = mean.iter().sum::<f64>() / mean.len() as f64;
    let all = Entry { name: "mean of all".into(), ap, color: INK, width: 4 };
    chart = chart.line(&curve_points(&mean), INK, 3);
    let picture = chart.render(CHART.0, CHART.1)?;
    let hidden = many.then(|| format!("{} between", middle.len()));
    Ok(with_legend(&picture, &all, &legend, hidden))
}

/// Best ones from blue to green, worst ones from red to yellow.
fn extreme_color((rank, worst): (usize, bool)) -> Rgb888 {
    let (from, to) =
        if worst { ([190, 20, 40], [250, 180, 60]) } else { ([20, 60, 170], [90, 200, 150]) };
    let share = rank as f64 / (EXTREMES - 1) as f64;
    let [r, g, b] = std::array::from_fn(|at| {
        let (from, to): (i32, i32) = (from[at], to[at]);
        (f64::from(from) + share * f64::from(to - from)).round() as u8
    });
    Rgb888::new(r, g, b)
}

fn points(curves: &PrecisionRecall, class: usize) -> Vec<(f64, f64)> {
    curves.classes[class].as_deref().map(curve_points).unwrap_or_default()
}

fn curve_points(curve: &[f64]) -> Vec<(f64, f64)> {
    let recall = |at: usize| at as f64 / (RECALLS - 1) as f64;
    curve.iter().enumerate().map(|(at, precision)| (recall(at), *precision)).collect()
}

/// The chart with names and areas to its right.
fn with_legend(
    chart: &RgbImage,
    all: &Entry,
    classes: &[Entry],
    hidden: Option<String>,
) -> RgbImage {
    let names = classes.iter().chain([all]).map(|entry| BODY.width(&entry.name)).max();
    let number = BODY.width("100.0");
    let width = SAMPLE + 8 + names.unwrap_or(0) + 16 + number;
    let line = BODY.height() + 7;
    // A heading, the mean, the classes, and a note of those not named.
    let height = 60 + (classes.len() as u32 + 2 + u32::from(hidden.is_some())) * line + 18;
    let mut canvas = Canvas::new(chart.width() + width + 24, chart.height().max(height));
    canvas.paste(chart, (0, 0), 1);

    let left = chart.width() as i32;
    let right = left + width as i32;
    let mut y = 48;
    canvas.text("AP", (right, y), BODY, Alignment::Right, pale(INK, 0.3));
    y += line as i32;
    let row = |canvas: &mut Canvas, entry: &Entry, y: i32| {
        let middle = y + (BODY.height() as i32 - entry.width as i32) / 2;
        canvas.fill((left, middle), (SAMPLE, entry.width), entry.color);
        let name = (left + SAMPLE as i32 + 8, y);
        canvas.text(&entry.name, name, BODY, Alignment::Left, INK);
        let ap = format!("{:.1}", 100.0 * entry.ap);
        canvas.text(&ap, (right, y), BODY, Alignment::Right, INK);
    };
    row(&mut canvas, all, y);
    for (at, entry) in classes.iter().enumerate() {
        y += line as i32;
        if let Some(hidden) = hidden.as_ref().filter(|_| at == EXTREMES) {
            canvas.fill((left, y + BODY.height() as i32 / 2), (SAMPLE, 2), GREY);
            let note = (left + SAMPLE as i32 + 8, y);
            canvas.text(hidden, note, BODY, Alignment::Left, pale(INK, 0.3));
            y += line as i32;
        }
        row(&mut canvas, entry, y);
    }
    canvas.into_image()
}

#[cfg(test)]
mod tests {
    use embedded_graphics::pixelcolor::RgbColor;

    use super::*;

    fn curve(level: f64) -> Option<Vec<f64>> {
        Some((0..RECALLS).map(|r| if (r as f64) < 100.0 * level { level } else { 0.0 }).collect())
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|class| format!("class {class}")).collect()
    }

    fn count(image: &RgbImage, color: Rgb888) -> usize {
        let color = [color.r(), color.g(), color.b()];
        image.pixels().filter(|pixel| pixel.0 == color).count()
    }

    #[test]
    fn each_of_few_classes_is_named_in_its_colour() {
        let classes = vec![curve(0.9), None, curve(0.5)];
        let curves = PrecisionRecall { iou: 0.5, classes };
        let image = pr_curves("t", &curves, &names(3)).unwrap();
        // The legend's sample alone has 24×2 pixels.
        assert!(count(&image, on_paper(class_color(0))) > 250);
        assert!(count(&image, on_paper(class_color(2))) > 150);
        assert_eq!(count(&image, on_paper(class_color(1))), 0);
    }

    #[test]
    fn of_many_classes_the_extremes_are_coloured() {
        let classes: Vec<_> = (0..80).map(|class| curve(f64::from(class) / 80.0)).collect();
        let curves = PrecisionRecall { iou: 0.5, classes };
        let image = pr_curves("t", &curves, &names(80)).unwrap();
        for extreme in [(0, false), (7, false), (0, true), (7, true)] {
            assert!(count(&image, extreme_color(extreme)) >= 48, "{extreme:?}");
        }
        assert!(count(&image, GREY) > 1000);
    }

    #[test]
    fn nothing_to_draw_and_wrong_names_are_refused() {
        let empty = PrecisionRecall { iou: 0.5, classes: vec![None, None] };
        let message = pr_curves("t", &empty, &names(2)).unwrap_err().to_string();
        assert!(message.contains("at least one class must have objects"), "{message}");
        let message = pr_curves("t", &empty, &names(3)).unwrap_err().to_string();
        assert_eq!(message, "number of class names is 3, but there are 2 classes");
    }
}
