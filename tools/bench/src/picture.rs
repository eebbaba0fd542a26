//! The ratios as bars.

use anyhow::Result;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::RgbColor as _;
use embedded_graphics::text::Alignment;
use engine::picture::canvas::{BODY, Canvas, HEADING, INK, SMALL};
use engine::picture::png;

use crate::duel::{Outcome, RoundResult, three_digits};
use crate::report::{Report, percent};

/// Pixels of the whole.
const WIDTH: u32 = 1200;
/// White at the edges.
const MARGIN: i32 = 24;
/// From a bar to the next.
const ROW: i32 = 44;
/// Thickness of a bar.
const BAR: i32 = 20;
/// Width of a column of figures at the right.
const FIGURE: i32 = 72;
/// From the top to the first bar: title, subtitle, and the axis.
const HEAD: i32 = 96;

const FASTER: Rgb888 = Rgb888::new(31, 100, 170);
const SLOWER: Rgb888 = Rgb888::new(214, 92, 20);
const GRID: Rgb888 = Rgb888::new(226, 226, 226);
const QUIET: Rgb888 = Rgb888::new(110, 110, 110);

/// A PNG file with a horizontal bar for each comparison that was measured;
/// none if none was.
///
/// # Errors
/// The encoder refuses.
pub fn ratios(report: &Report) -> Result<Option<Vec<u8>>> {
    let rows: Vec<(&Outcome, &RoundResult)> = report
        .duels
        .iter()
        .filter_map(|outcome| Some((outcome, outcome.measured.as_ref()?)))
        .collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let height = HEAD + rows.len() as i32 * ROW + MARGIN;
    let mut canvas = Canvas::new(WIDTH, height as u32);
    let labels = rows.iter().map(|(outcome, _)| label_width(outcome)).max().unwrap_or(0);
    let left = MARGIN + labels as i32 + 24;
    let scale = Scale::new(&rows, left, WIDTH as i32 - MARGIN - 3 * FIGURE - 12);
    head(&mut canvas, report);
    axis(&mut canvas, &scale, height);
    for (index, (outcome, measured)) in rows.iter().enumerate() {
        bar(&mut canvas, &scale, HEAD + index as i32 * ROW, outcome, measured);
    }
    // The line that decides lies over the bars.
    canvas.fill((scale.x(1.0) - 1, HEAD - 6), (2, (height - MARGIN - HEAD + 6) as u32), INK);
    Ok(Some(png(&canvas.into_image())?))
}

fn label_width(outcome: &Outcome) -> u32 {
    BODY.width(&latin(&outcome.work)).max(SMALL.width(&latin(&outcome.opponent)) + 18)
}

/// The fonts are Latin-1.
fn latin(text: &str) -> String {
    text.replace('–', "-").replace('→', "to")
}

/// From ratios to pixels, logarithmic: twice as fast is as far from the line at
/// 1 as half as fast.
struct Scale {
    left: i32,
    /// Pixels of a factor of two.
    per_doubling: f64,
    /// Powers of two at the ends.
    ends: (f64, f64),
}

impl Scale {
    fn new(rows: &[(&Outcome, &RoundResult)], left: i32, right: i32) -> Self {
        let least = rows.iter().map(|(_, measured)| measured.ratio.min).fold(1.0, f64::min);
        let most = rows.iter().map(|(_, measured)| measured.ratio.max).fold(1.0, f64::max);
        // To the next power of two, and one doubling on either side at least.
        let ends = (least.log2().floor().min(-1.0), most.log2().ceil().max(1.0));
        Self { left, per_doubling: f64::from(right - left) / (ends.1 - ends.0), ends }
    }

    fn x(&self, ratio: f64) -> i32 {
        self.left + ((ratio.log2() - self.ends.0) * self.per_doubling).round() as i32
    }
}

fn head(canvas: &mut Canvas, report: &Report) {
    let title = "Their time by ours, and their peak memory by ours: above 1× we need less; of CPU: \
                 our share of its peak";
    canvas.text(title, (MARGIN, 16), HEADING, Alignment::Left, INK);
    let machine = &report.machine;
    let commit = machine.commit.as_deref().map(|commit| format!(", commit {commit}"));
    let subtitle = format!(
        "{}, {} threads a side, torch {}{}; bars are medians of {} alternating rounds, whiskers \
         the smallest and largest",
        machine.processor,
        report.threads,
        machine.libtorch,
        commit.unwrap_or_default(),
        report.rounds,
    );
    canvas.text(&latin(&subtitle), (MARGIN, 42), SMALL, Alignment::Left, QUIET);
}

fn axis(canvas: &mut Canvas, scale: &Scale, height: i32) {
    let label = |power: i32| format!("{}×", 2f64.powi(power));
    let powers = scale.ends.0 as i32..=scale.ends.1 as i32;
    let widest = powers.clone().map(|power| BODY.width(&label(power))).max().unwrap_or(0);
    // As many as have room, 1× among them.
    let every = (f64::from(widest + 10) / scale.per_doubling).ceil().max(1.0) as i32;
    for power in powers.filter(|power| power % every == 0) {
        let ratio = 2f64.powi(power);
        let x = scale.x(ratio);
        canvas.fill((x, HEAD - 6), (1, (height - MARGIN - HEAD + 6) as u32), GRID);
        canvas.text(&label(power), (x, HEAD - 22), BODY, Alignment::Center, QUIET);
    }
    for (name, right) in ["time", "memory", "of CPU"].into_iter().zip(columns()) {
        canvas.text(name, (right, HEAD - 22), BODY, Alignment::Right, QUIET);
    }
}

fn bar(canvas: &mut Canvas, scale: &Scale, top: i32, outcome: &Outcome, measured: &RoundResult) {
    let ratio = measured.ratio;
    let color = if ratio.median >= 1.0 { FASTER } else { SLOWER };
    let y = top + (ROW - BAR) / 2;
    let (one, end) = (scale.x(1.0), scale.x(ratio.median));
    let right = scale.left - 14;
    canvas.text(&latin(&outcome.work), (right, top + 7), BODY, Alignment::Right, INK);
    let against = format!("vs {}", latin(&outcome.opponent));
    canvas.text(&against, (right, top + 24), SMALL, Alignment::Right, QUIET);
    canvas.fill((one.min(end), y), ((end - one).unsigned_abs().max(1), BAR as u32), color);
    whisker(canvas, (scale.x(ratio.min), scale.x(ratio.max)), y + BAR / 2, color);
    let figure = format!("{}×", three_digits(ratio.median));
    let [time, memory, peak] = columns();
    canvas.text(&figure, (time, y + 1), HEADING, Alignment::Right, color);
    let ratio = measured.theirs.peak_mb / measured.ours.peak_mb.max(1e-3);
    let figure = format!("{}×", three_digits(ratio));
    canvas.text(&figure, (memory, y + 4), BODY, Alignment::Right, QUIET);
    if let Some(roofline) = &measured.roofline {
        canvas.text(&percent(roofline.ours), (peak, y + 4), BODY, Alignment::Right, QUIET);
    }
}

/// Right edges of the figures: time, memory, our share of the processor's peak.
fn columns() -> [i32; 3] {
    [2, 1, 0].map(|from_right| WIDTH as i32 - MARGIN - from_right * FIGURE)
}

/// A line from end to end, darker than its bar.
fn whisker(canvas: &mut Canvas, (from, to): (i32, i32), y: i32, color: Rgb888) {
    let dark = |value: u8| (f64::from(value) * 0.55) as u8;
    let dark = Rgb888::new(dark(color.r()), dark(color.g()), dark(color.b()));
    canvas.fill((from, y - 1), ((to - from).max(1) as u32, 2), dark);
    for end in [from, to] {
        canvas.fill((end - 1, y - 5), (2, 10), dark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::duel::Unit;
    use crate::report::tests::{outcome, report};

    /// Pixels of this colour in the bar of row `index`, off its whisker.
    fn drawn(image: &image::RgbImage, index: i32, color: Rgb888) -> usize {
        let y = (HEAD + index * ROW + (ROW - BAR) / 2 + 1) as u32;
        let color = [color.r(), color.g(), color.b()];
        (0..WIDTH).filter(|x| image.get_pixel(*x, y).0 == color).count()
    }

    #[test]
    fn a_bar_is_as_long_as_the_ratio_has_doublings() {
        let duels = vec![
            outcome("fast", Unit::Step, &[1.0], &[4.0]),
            outcome("slow", Unit::Step, &[1.0], &[0.5]),
        ];
        let picture = ratios(&report(duels)).unwrap().unwrap();
        let image = image::load_from_memory(&picture).unwrap().to_rgb8();
        let (fast, slow) = (drawn(&image, 0, FASTER), drawn(&image, 1, SLOWER));
        // The line at 1 and the figure have a few pixels in the row too.
        let lengths = fast as f64 / slow as f64;
        assert!((1.9..2.1).contains(&lengths), "{fast} and {slow} pixels");
        assert!(drawn(&image, 1, FASTER) == 0);
    }

    #[test]
    fn nothing_measured_draws_nothing() {
        assert!(ratios(&report(Vec::new())).unwrap().is_none());
    }
}
