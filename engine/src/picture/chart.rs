//! A line chart: loss against steps.

use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::text::Alignment;
use image::RgbImage;
use plotters::coord::ranged1d::{BoldPoints, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use words::counted;

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
/// Widths of lines, in pixels.
const BOLD: u32 = 2;
const THIN: u32 = 1;
/// How far a faint line's colour is moved towards white.
const FAINT: f64 = 0.65;
/// White at the edges, in pixels.
const MARGIN: u32 = 18;
/// Length of a line in the legend, in pixels.
const LEGEND_LINE: u32 = 24;
/// Most labels along an axis.
const TICKS: usize = 10;
/// Smallest size that leaves room for data between labels, in pixels.
const SMALLEST: (u32, u32) = (240, 180);

/// A chart of one or more lines over a common axis.
#[derive(Debug, Clone)]
pub struct LineChart {
    title: String,
    x_label: String,
    y_label: String,
    series: Vec<Series>,
    /// (x, y), where not as wide as the data.
    bounds: Option<[(f64, f64); 2]>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    /// Finite, in the order given.
    points: Vec<(f64, f64)>,
    color: Rgb888,
    /// [`BOLD`] or [`THIN`].
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
            bounds: None,
        }
    }

    /// Adds a line through `points` (x, y); those that are not finite (in
    /// float32) are left out.
    pub fn series(self, name: &str, points: &[(f64, f64)]) -> Self {
        let color = self.next_color();
        self.add(name, points, color, BOLD)
    }

    /// Adds a thin line in a pale shade of the next line's colour: raw values
    /// behind the smoothed line that is added next.
    pub fn faint_series(self, name: &str, points: &[(f64, f64)]) -> Self {
        let color = self.next_color();
        let pale = |value: u8| (f64::from(value) * (1.0 - FAINT) + 255.0 * FAINT) as u8;
        let color = Rgb888::new(pale(color.r()), pale(color.g()), pale(color.b()));
        self.add(name, points, color, THIN)
    }

    /// Adds a line of a given colour and width in pixels that the legend does
    /// not name.
    pub fn line(mut self, points: &[(f64, f64)], color: Rgb888, width: u32) -> Self {
        self.push("", points, color, width);
        self
    }

    /// Axes from the first to the second value, whatever the data: x, then y.
    pub fn within(mut self, x: (f64, f64), y: (f64, f64)) -> Self {
        self.bounds = Some([x, y]);
        self
    }

    fn next_color(&self) -> Rgb888 {
        COLORS[self.series.iter().filter(|series| series.width == BOLD).count() % COLORS.len()]
    }

    fn add(mut self, name: &str, points: &[(f64, f64)], color: Rgb888, width: u32) -> Self {
        self.push(name, points, color, width);
        self
    }

    fn push(&mut self, name: &str, points: &[(f64, f64)], color: Rgb888, width: u32) {
        // Beyond float32 lies no loss, and the range of two such values might
        // not be finite itself.
        let finite = |(x, y): &(f64, f64)| (*x as f32).is_finite() && (*y as f32).is_finite();
        let points = points.iter().copied().filter(finite).collect();
        self.series.push(Series { name: name.to_owned(), points, color, width });
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
            let value = format!("without data ({})", counted(self.series.len(), "line"));
            let rule = "it needs at least one point that is finite";
            return Err(backbone::Error::invalid("chart", value, rule).into());
        }
        let (x, y) = match self.bounds {
            Some([x, y]) => (Axis::between(x.0, x.1), Axis::between(y.0, y.1)),
            None => (
                Axis::around(points().map(|point| point.0), 0.0),
                Axis::around(points().map(|point| point.1), 0.05),
            ),
        };
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

        let area = sketch.into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(fine(MARGIN))
            .margin_top(fine(head_height()))
            .set_label_area_size(LabelAreaPosition::Left, fine(y.labels_width() + 12))
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
            .x_labels(TICKS)
            .y_labels(TICKS)
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

    /// Title, name of the vertical axis, and legend. Where a long legend leaves no
    /// room beside it, the axis' name stands in the title.
    fn head(&self, canvas: &mut Canvas) {
        let margin = MARGIN as i32;
        let second_line = margin + HEADING.height() as i32 + 8;
        let mut right = canvas.size().width as i32 - margin;
        let named = || self.series.iter().rev().filter(|series| !series.name.is_empty());
        let legend: u32 = named().map(|s| BODY.width(&s.name) + 6 + LEGEND_LINE + 20).sum();
        let title = if margin + (BODY.width(&self.y_label) + legend) as i32 > right {
            format!("{}: {}", self.title, self.y_label)
        } else {
            canvas.text(&self.y_label, (margin, second_line), BODY, Alignment::Left, INK);
            self.title.clone()
        };
        canvas.text(&title, (margin, margin), HEADING, Alignment::Left, INK);
        for series in named() {
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
    /// Values that are labelled.
    ticks: Vec<f64>,
    /// Digits after the point; `None` for the notation 1.2e-7.
    decimals: Option<usize>,
}

impl Axis {
    /// Around `values`, wider by `margin` of their range on either side.
    fn around(values: impl Iterator<Item = f64> + Clone, margin: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        let largest = low.abs().max(high.abs());
        // Equal values (a run's first step) still need an axis of some length.
        let pad = match high - low {
            range if range > 1e-6 * largest => range * margin,
            _ if largest > 0.0 => 0.1 * largest,
            _ => 1.0,
        };
        Self::between(low - pad, high + pad)
    }

    /// From `low` to `high`.
    fn between(low: f64, high: f64) -> Self {
        let largest = low.abs().max(high.abs());
        let ticks = RangedCoordf64::from(low..high).key_points(BoldPoints(TICKS));
        let exact = |decimals: &usize| {
            let scale = 10f64.powi(*decimals as i32);
            // Ticks are multiples of a decimal fraction, up to rounding.
            let error = |tick: &f64| ((tick * scale).round() / scale - tick).abs();
            ticks.iter().all(|tick| error(tick) < 1e-6 * (high - low))
        };
        let decimals = if largest < 1e9 { (0..=6).find(exact) } else { None };
        Self { low, high, ticks, decimals }
    }

    fn format(&self, value: f64) -> String {
        // Adding zero turns a negative zero into a positive one.
        match self.decimals {
            Some(decimals) => {
                let scale = 10f64.powi(decimals as i32);
                format!("{:.decimals$}", (value * scale).round() / scale + 0.0)
            }
            None => format!("{value:.1e}"),
        }
    }

    /// Width of the widest label in pixels.
    fn labels_width(&self) -> u32 {
        self.ticks.iter().map(|tick| BODY.width(&self.format(*tick))).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], margin: f64) -> Vec<String> {
        let axis = Axis::around(values.iter().copied(), margin);
        axis.ticks.iter().map(|tick| axis.format(*tick)).collect()
    }

    #[test]
    fn labels_have_as_many_digits_as_they_need() {
        assert_eq!(labels(&[0.0, 9.0], 0.0).join(" "), "0 1 2 3 4 5 6 7 8 9");
        assert_eq!(labels(&[0.0, 1200.0], 0.0).join(" "), "0 200 400 600 800 1000 1200");
        assert_eq!(labels(&[0.4, 1.0], 0.0).join(" "), "0.4 0.5 0.6 0.7 0.8 0.9 1.0");
        assert_eq!(labels(&[-0.1, 0.1], 0.0).join(" "), "-0.10 -0.05 0.00 0.05 0.10");
        assert_eq!(labels(&[2e9, 4e9], 0.0)[0], "2.0e9");
        assert_eq!(labels(&[1e-9, 3e-9], 0.0)[0], "1.0e-9");
    }

    #[test]
    fn equal_values_get_an_axis_of_some_length() {
        for value in [0.0, 1.0, -3.0, 1e30] {
            let axis = Axis::around([value, value].into_iter(), 0.05);
            assert!(axis.low < value && value < axis.high && !axis.ticks.is_empty(), "{axis:?}");
        }
    }

    /// Pixels of the colour within the plot, below the legend.
    fn drawn(image: &RgbImage, color: Rgb888) -> Vec<(u32, u32)> {
        let color = [color.r(), color.g(), color.b()];
        let found = image.enumerate_pixels().filter(|(_, y, c)| *y > head_height() && c.0 == color);
        found.map(|(x, y, _)| (x, y)).collect()
    }

    #[test]
    fn a_falling_loss_falls_across_the_plot() {
        let falling: Vec<_> = (0..50).map(|i| (f64::from(i), 1.0 - 0.01 * f64::from(i))).collect();
        let image = LineChart::new("t", "step", "loss").series("a", &falling).render(900, 500);
        let image = image.unwrap();
        assert_eq!(image.dimensions(), (900, 500));
        let line = drawn(&image, COLORS[0]);
        let (first, last) = (line.iter().min().unwrap(), line.iter().max().unwrap());
        // It spans the plot but for margins and labels of about 20 and 60 pixels.
        assert!(
            first.0 < 80 && last.0 > 870 && first.1 < 110 && last.1 > 400,
            "{first:?} {last:?}"
        );
        // Straight: halfway along it is halfway down, to the pixel's rounding.
        let middle = ((first.0 + last.0) / 2, (first.1 + last.1) / 2);
        let near = |(x, y): &(u32, u32)| x.abs_diff(middle.0) <= 1 && y.abs_diff(middle.1) <= 1;
        assert!(line.iter().any(near), "{middle:?}");
    }

    #[test]
    fn lines_keep_apart_by_colour_and_appear_in_the_legend() {
        let flat = |y: f64| [(0.0, y), (1.0, y)];
        let chart = LineChart::new("t", "step", "loss");
        let chart = chart.faint_series("raw", &flat(1.0)).series("mean", &flat(2.0));
        let image = chart.clone().series("validation", &flat(3.0)).render(600, 300).unwrap();
        assert!(drawn(&image, COLORS[0]).len() > 400 && drawn(&image, COLORS[1]).len() > 400);
        let legend = |image: &RgbImage, color: Rgb888| {
            let rows = 0..head_height();
            let color = [color.r(), color.g(), color.b()];
            rows.flat_map(|y| (0..600).map(move |x| (x, y)))
                .filter(|(x, y)| image.get_pixel(*x, *y).0 == color)
                .count() as u32
        };
        assert_eq!(legend(&image, COLORS[0]), LEGEND_LINE * (BOLD + 1));
        assert_eq!(legend(&image, COLORS[1]), LEGEND_LINE * (BOLD + 1));
        assert_eq!(legend(&image, chart.series[0].color), LEGEND_LINE * (THIN + 1));
        let without = chart.render(600, 300).unwrap();
        assert_eq!(legend(&without, COLORS[1]), 0);
    }

    #[test]
    fn a_single_point_is_a_dot_and_what_is_not_finite_is_left_out() {
        let points = [(0.0, f64::NAN), (1.0, 0.7), (2.0, f64::INFINITY), (3.0, 1e300)];
        let image = LineChart::new("t", "x", "y").series("a", &points).render(400, 260).unwrap();
        let dot = drawn(&image, COLORS[0]);
        // A disc of radius 4 pixels, less its blended edge.
        assert!((30..60).contains(&dot.len()), "{} pixels", dot.len());
    }

    #[test]
    fn nothing_to_draw_and_too_little_room_are_refused() {
        let chart = LineChart::new("t", "x", "y").series("a", &[(0.0, f64::NAN)]);
        let message = chart.render(400, 300).unwrap_err().to_string();
        assert_eq!(
            message,
            "chart is without data (1 line), but it needs at least one point that is finite"
        );
        let chart = LineChart::new("t", "x", "y").series("a", &[(0.0, 1.0)]);
        let message = chart.render(100, 300).unwrap_err().to_string();
        assert_eq!(message, "chart size is 100×300, but a chart needs at least 240×180 pixels");
    }
}
