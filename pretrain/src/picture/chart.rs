//! A line chart: loss against steps.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::Alignment;
use image::RgbImage;
use plotters::prelude::*;

use super::canvas::{BODY, Canvas, HEADING, INK};
use super::chart_backend::{OVERSAMPLING, Sketch};
use super::{Error, Result};

/// Line colours in order; chosen to stay apart for the colour-blind.
const COLORS: [Rgb888; 4] = [
    Rgb888::new(31, 100, 170),
    Rgb888::new(214, 92, 20),
    Rgb888::new(34, 139, 84),
    Rgb888::new(136, 78, 160),
];
/// How far a faint line's colour is moved towards white.
const FAINT: f64 = 0.65;
/// White at the edges, in pixels.
const MARGIN: u32 = 18;
/// Length of a line in the legend, in pixels.
const LEGEND_LINE: u32 = 24;
/// Smallest size that leaves room for data between labels, in pixels.
const SMALLEST: (u32, u32) = (240, 180);

/// A chart of one or more lines over a common axis.
#[derive(Debug, Clone)]
pub struct LineChart {
    title: String,
    x_label: String,
    y_label: String,
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    /// Finite, in the order given.
    points: Vec<(f64, f64)>,
    color: Rgb888,
    /// Width in pixels.
    width: u32,
}

impl LineChart {
    /// A chart without lines.
    pub fn new(title: &str, x_label: &str, y_label: &str) -> Self {
        Self {
            title: title.to_owned(),
            x_label: x_label.to_owned(),
            y_label: y_label.to_owned(),
            series: Vec::new(),
        }
    }

    /// Adds a line through `points` (x, y); those that are not finite are left
    /// out.
    pub fn series(self, name: &str, points: &[(f64, f64)]) -> Self {
        let color = COLORS[self.series.len() % COLORS.len()];
        self.add(name, points, color, 2)
    }

    /// Adds a thin pale line: raw values behind a smoothed line that is added
    /// next.
    pub fn faint_series(self, name: &str, points: &[(f64, f64)]) -> Self {
        let color = COLORS[self.series.len() % COLORS.len()];
        let pale = |value: u8| (f64::from(value) * (1.0 - FAINT) + 255.0 * FAINT) as u8;
        let color = Rgb888::new(pale(color.r()), pale(color.g()), pale(color.b()));
        self.add(name, points, color, 1)
    }

    fn add(mut self, name: &str, points: &[(f64, f64)], color: Rgb888, width: u32) -> Self {
        let finite = |(x, y): &(f64, f64)| x.is_finite() && y.is_finite();
        let points = points.iter().copied().filter(finite).collect();
        self.series.push(Series { name: name.to_owned(), points, color, width });
        self
    }

    /// The chart as a picture of `width × height` pixels.
    ///
    /// # Errors
    /// No finite point to draw, or a picture smaller than 240 × 180 pixels.
    pub fn render(&self, width: u32, height: u32) -> Result<RgbImage> {
        if width < SMALLEST.0 || height < SMALLEST.1 {
            let rule = format!("a chart needs at least {}×{} pixels", SMALLEST.0, SMALLEST.1);
            let value = format!("{width}×{height}");
            return Err(backbone::Error::invalid("chart size", value, rule).into());
        }
        let points = || self.series.iter().flat_map(|series| &series.points);
        if points().next().is_none() {
            let value = format!("{} lines", self.series.len());
            let rule = "a chart needs at least one point that is finite";
            return Err(backbone::Error::invalid("chart", value, rule).into());
        }
        let x = Axis::around(points().map(|point| point.0), 0.0);
        let y = Axis::around(points().map(|point| point.1), 0.05);
        let mut sketch = Sketch::new(width, height);
        self.plot(&mut sketch, &x, &y).map_err(|error| Error::Chart(error.to_string()))?;
        let mut canvas = sketch.into_canvas();
        self.head(&mut canvas);
        Ok(canvas.into_image())
    }

    /// Axes, grid and lines.
    fn plot(&self, sketch: &mut Sketch, x: &Axis, y: &Axis) -> std::result::Result<(), PlotError> {
        let fine = |pixels: u32| pixels * OVERSAMPLING;
        let text = ("monospace", f64::from(BODY.height())).into_font();
        let pen = |color: RGBColor| color.stroke_width(OVERSAMPLING);
        let ticks = y.format(y.low.max(-y.high)).len().max(y.format(y.high).len()) as u32;

        let area = sketch.into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(fine(MARGIN))
            .margin_top(fine(head_height()))
            .set_label_area_size(LabelAreaPosition::Left, fine((ticks + 1) * 8 + 10))
            .set_label_area_size(LabelAreaPosition::Bottom, fine(2 * BODY.height() + 16))
            .build_cartesian_2d(x.low..x.high, y.low..y.high)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE.mix(0.0))
            .bold_line_style(pen(RGBColor(226, 226, 226)))
            .axis_style(pen(RGBColor(INK.r(), INK.g(), INK.b())))
            .set_all_tick_mark_size(fine(5))
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_desc(&self.x_label)
            .x_labels(10)
            .y_labels(8)
            .x_label_formatter(&|value| x.format(*value))
            .y_label_formatter(&|value| y.format(*value))
            .draw()?;
        for series in &self.series {
            let Series { color, width, .. } = series;
            let color = RGBColor(color.r(), color.g(), color.b());
            let style = color.stroke_width(fine(*width));
            chart.draw_series(LineSeries::new(series.points.iter().copied(), style))?;
            // A line of one point would not be seen.
            if let [point] = series.points[..] {
                chart.draw_series([Circle::new(point, fine(2 * width), color.filled())])?;
            }
        }
        area.present()
    }

    /// Title, name of the vertical axis, and legend.
    fn head(&self, canvas: &mut Canvas) {
        let margin = MARGIN as i32;
        let second_line = margin + HEADING.height() as i32 + 8;
        canvas.text(&self.title, (margin, margin), HEADING, Alignment::Left, INK);
        canvas.text(&self.y_label, (margin, second_line), BODY, Alignment::Left, INK);
        let mut right = canvas.size().width as i32 - margin;
        for series in self.series.iter().rev() {
            canvas.text(&series.name, (right, second_line), BODY, Alignment::Right, INK);
            right -= (BODY.width(&series.name) + 6 + LEGEND_LINE) as i32;
            let middle = second_line + BODY.height() as i32 / 2;
            canvas.fill((right, middle), (LEGEND_LINE, series.width + 1), series.color);
            right -= 20;
        }
    }
}

type PlotError = DrawingAreaErrorKind<std::convert::Infallible>;

/// Title, second line, and room above the plot.
fn head_height() -> u32 {
    MARGIN + HEADING.height() + 8 + BODY.height() + 12
}

/// A range of values and how its labels are written.
#[derive(Debug)]
struct Axis {
    low: f64,
    high: f64,
    decimals: usize,
}

impl Axis {
    /// Around `values`, wider by `margin` of their range on either side.
    fn around(values: impl Iterator<Item = f64> + Clone, margin: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        // Equal values (a run's first step) still need an axis of some length.
        let least = (low.abs().max(high.abs()) * 0.1).max(1e-12);
        let pad = if high - low > 1e-9 * least { (high - low) * margin } else { least };
        let range = high - low + 2.0 * pad;
        // About ten labels to the range: they differ in the digit of a tenth.
        let decimals = (1.0 - range.log10()).ceil().clamp(0.0, 12.0) as usize;
        Self { low: low - pad, high: high + pad, decimals }
    }

    fn format(&self, value: f64) -> String {
        let text = format!("{value:.*}", self.decimals);
        // Rounding may leave a sign on zero.
        if text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.') {
            return text.trim_start_matches('-').to_owned();
        }
        text
    }
}
