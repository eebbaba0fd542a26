//! Colours of classes.

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use engine::picture::lightness;

/// Hues step by the golden ratio, so that any number of classes in sequence
/// spread over the circle.
const STEP: f64 = 0.618_033_988_749_895;
/// (saturation, value) in turn: neighbours in hue differ in lightness.
const SHADES: [(f64, f64); 3] = [(0.85, 0.97), (0.55, 1.0), (0.95, 0.72)];

/// The colour of a class; always the same, and strong enough to be seen on a
/// photograph.
pub fn class_color(class: usize) -> Rgb888 {
    let hue = (0.58 + class as f64 * STEP).fract();
    let (saturation, value) = SHADES[class % SHADES.len()];
    hsv(hue, saturation, value)
}

/// The colour of object number `number`: a shade of its class's, or, of the only class there is,
/// any. Neighbours in number differ most.
pub(super) fn instance_color(class: Option<usize>, number: usize) -> Rgb888 {
    let Some(class) = class else { return class_color(number) };
    let base = class_color(class);
    // Lighter and darker by turns.
    let (towards, share) =
        [(255.0, 0.0), (255.0, 0.35), (0.0, 0.25), (255.0, 0.18), (0.0, 0.12)][number % 5];
    let mix = |value: u8| (f64::from(value) * (1.0 - share) + towards * share).round() as u8;
    Rgb888::new(mix(base.r()), mix(base.g()), mix(base.b()))
}

fn hsv(hue: f64, saturation: f64, value: f64) -> Rgb888 {
    // Each channel is a trapezoid over the circle of hues.
    let channel = |shift: f64| {
        let k = (shift + hue * 6.0) % 6.0;
        let dip = k.min(4.0 - k).clamp(0.0, 1.0);
        (255.0 * (value - value * saturation * dip)).round() as u8
    };
    Rgb888::new(channel(5.0), channel(3.0), channel(1.0))
}

/// `color`, darkened if it would be hard to see on white.
pub(super) fn on_paper(color: Rgb888) -> Rgb888 {
    let factor = (150.0 / lightness(color)).min(1.0);
    let scale = |value: u8| (f64::from(value) * factor).round() as u8;
    Rgb888::new(scale(color.r()), scale(color.g()), scale(color.b()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_are_where_they_belong() {
        assert_eq!(hsv(0.0, 1.0, 1.0), Rgb888::new(255, 0, 0));
        assert_eq!(hsv(1.0 / 3.0, 1.0, 1.0), Rgb888::new(0, 255, 0));
        assert_eq!(hsv(2.0 / 3.0, 1.0, 0.5), Rgb888::new(0, 0, 128));
        assert_eq!(hsv(0.2, 0.0, 0.5), Rgb888::new(128, 128, 128));
    }

    #[test]
    fn eighty_classes_have_colours_of_their_own() {
        let colors: Vec<Rgb888> = (0..80).map(class_color).collect();
        let apart = |a: Rgb888, b: Rgb888| {
            let [r, g, b] = [(a.r(), b.r()), (a.g(), b.g()), (a.b(), b.b())]
                .map(|(a, b)| i32::from(a) - i32::from(b));
            r.abs() + g.abs() + b.abs()
        };
        for (at, a) in colors.iter().enumerate() {
            // Among the first ten, at least a strong difference.
            let least = if at < 10 { 60 } else { 8 };
            for b in &colors[..at] {
                assert!(apart(*a, *b) >= least, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn colours_on_paper_are_dark_enough() {
        let yellow = on_paper(Rgb888::new(255, 255, 0));
        assert!(yellow.r() == yellow.g() && yellow.r() < 180 && yellow.b() == 0, "{yellow:?}");
        assert_eq!(on_paper(Rgb888::new(20, 40, 160)), Rgb888::new(20, 40, 160));
    }
}
