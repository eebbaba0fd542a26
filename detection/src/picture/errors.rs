//! What each kind of error costs, as bars.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, HEADING, INK};
use engine::picture::{Canvas, pale};
use image::RgbImage;

use crate::evaluation::{Analysis, ErrorKind, ErrorShare};

/// White around everything, in pixels.
const MARGIN: u32 = 18;
/// Length of the longest bar, in pixels.
const LENGTH: u32 = 360;
/// Height of a bar and of the white below it, in pixels.
const BAR: (u32, u32) = (18, 8);
const GAP: u32 = 10;

/// AP that would be gained without errors of each kind, and how many there
/// are. The two sums at the end have bars of their own shade.
pub fn error_bars(title: &str, analysis: &Analysis) -> RgbImage {
    let names = analysis.errors.iter().map(|error| BODY.width(error.kind.name()));
    let indent = names.max().unwrap_or(0);
    let labels = analysis.errors.iter().map(|error| BODY.width(&label(error)));
    let room = labels.max().unwrap_or(0);
    let subtitle = format!(
        "{} AP{:.0} {:.1}; gain in AP without errors of one kind",
        analysis.kind.name(),
        100.0 * analysis.iou,
        100.0 * analysis.ap
    );
    let row = BAR.0 + BAR.1;
    let top = MARGIN + HEADING.height() + 8 + BODY.height() + 14;
    let bars = indent + GAP + LENGTH + GAP + room;
    let width = bars.max(HEADING.width(title)).max(BODY.width(&subtitle)) + 2 * MARGIN;
    let height = top + analysis.errors.len() as u32 * row + GAP + MARGIN - BAR.1;
    let mut canvas = Canvas::new(width, height);
    let margin = MARGIN as i32;
    canvas.text(title, (margin, margin), HEADING, Alignment::Left, INK);
    let second = margin + HEADING.height() as i32 + 8;
    canvas.text(&subtitle, (margin, second), BODY, Alignment::Left, pale(INK, 0.3));

    let largest = analysis.errors.iter().map(|error| error.delta_ap).fold(1e-9, f64::max);
    let left = margin + (indent + GAP) as i32;
    let mut y = top as i32;
    for error in &analysis.errors {
        if error.kind == ErrorKind::FalsePositive {
            y += GAP as i32;
        }
        let text = y + (BAR.0 as i32 - BODY.height() as i32) / 2;
        let name = (left - GAP as i32, text);
        canvas.text(error.kind.name(), name, BODY, Alignment::Right, INK);
        let length = (f64::from(LENGTH) * (error.delta_ap / largest).max(0.0)).round() as u32;
        canvas.fill((left, y), (length.max(1), BAR.0), color(error.kind));
        let end = (left + length as i32 + GAP as i32, text);
        canvas.text(&label(error), end, BODY, Alignment::Left, INK);
        y += row as i32;
    }
    canvas.into_image()
}

fn label(error: &ErrorShare) -> String {
    let gain = format!("{:.1}", 100.0 * error.delta_ap);
    match error.count {
        Some(count) => format!("{gain}  ({count})"),
        None => gain,
    }
}

fn color(kind: ErrorKind) -> Rgb888 {
    match kind {
        ErrorKind::FalsePositive | ErrorKind::FalseNegative => Rgb888::new(150, 150, 150),
        _ => Rgb888::new(31, 100, 170),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{Confusion, Kind};

    #[test]
    fn bars_are_as_long_as_their_gain() {
        let gains = [0.1, 0.2, 0.0, 0.05, 0.0, 0.15, 0.3, 0.4];
        let errors = ErrorKind::ALL.into_iter().zip(gains);
        let errors = errors.map(|(kind, delta_ap)| ErrorShare { kind, delta_ap, count: Some(3) });
        let analysis = Analysis {
            kind: Kind::Bbox,
            iou: 0.5,
            ap: 0.4,
            errors: errors.collect(),
            confusion: Confusion { names: Vec::new(), counts: vec![0] },
            min_score: 0.3,
        };
        let image = error_bars("t", &analysis);
        let pixels =
            |color: [u8; 3]| image.pixels().filter(|pixel| pixel.0 == color).count() as u32;
        // Lengths in pixels; bars of nothing are a line.
        let blue = 90 + 180 + 1 + 45 + 1 + 135;
        assert_eq!(pixels([31, 100, 170]), blue * BAR.0);
        assert_eq!(pixels([150; 3]), (270 + 360) * BAR.0);
    }
}
