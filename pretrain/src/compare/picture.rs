//! The curves, as a picture: one panel a share, and one against time.

use anyhow::Result;
use engine::picture::LineChart;
use image::{RgbImage, imageops};

use super::statistics::mean_curve;

/// Of a panel, in pixels.
const PANEL: (u32, u32) = (1000, 420);

/// A curve: of evaluations the step or minute, and the figure.
pub type Curve = Vec<(f64, f64)>;

/// Lines over a common axis.
pub struct Panel {
    /// What stands above it.
    pub title: String,
    /// What runs to the right.
    pub x: &'static str,
    /// What rises.
    pub y: String,
    /// Names, and a curve for each seed.
    pub lines: Vec<(&'static str, Vec<Curve>)>,
}

impl Panel {
    fn draw(&self) -> Result<RgbImage> {
        let mut chart = LineChart::new(&self.title, self.x, &self.y);
        for (name, curves) in &self.lines {
            for curve in curves {
                chart = chart.faint_series("", curve);
            }
            let curves: Vec<&[(f64, f64)]> = curves.iter().map(Vec::as_slice).collect();
            chart = chart.series(name, &mean_curve(&curves));
        }
        Ok(chart.render(PANEL.0, PANEL.1)?)
    }
}

/// The panels, one below the other.
///
/// # Errors
/// A panel without a point.
pub fn draw(panels: &[Panel]) -> Result<RgbImage> {
    let (width, height) = PANEL;
    let mut sheet = RgbImage::new(width, height * panels.len() as u32);
    for (at, panel) in (0i64..).zip(panels) {
        imageops::replace(&mut sheet, &panel.draw()?, 0, at * i64::from(height));
    }
    Ok(sheet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_stand_below_each_other() {
        let panel = |up: f64| Panel {
            title: "10 % of the labels".into(),
            x: "step",
            y: "top-1 in %".into(),
            lines: vec![("random", vec![vec![(1.0, 0.0), (2.0, up)], vec![(1.0, 1.0), (2.0, up)]])],
        };
        let sheet = draw(&[panel(3.0), panel(9.0)]).unwrap();
        assert_eq!(sheet.dimensions(), (PANEL.0, 2 * PANEL.1));
        let part =
            |at: u32| imageops::crop_imm(&sheet, 0, at * PANEL.1, PANEL.0, PANEL.1).to_image();
        assert_ne!(part(0), part(1));
        assert!(draw(&[Panel { lines: vec![("random", vec![vec![]])], ..panel(1.0) }]).is_err());
    }
}
