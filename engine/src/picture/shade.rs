//! Lighter colours, and colours that can be read on others.

use embedded_graphics::pixelcolor::{Rgb888, RgbColor};

/// `color` moved towards white by `share`.
pub fn pale(color: Rgb888, share: f64) -> Rgb888 {
    let mix = |value: u8| (f64::from(value) * (1.0 - share) + 255.0 * share).round() as u8;
    Rgb888::new(mix(color.r()), mix(color.g()), mix(color.b()))
}

/// Black or white, whichever is easier to read on `background`.
pub fn text_color(background: Rgb888) -> Rgb888 {
    if lightness(background) > 140.0 { Rgb888::BLACK } else { Rgb888::WHITE }
}

/// Perceived lightness, 0 to 255 (Rec. 601).
pub fn lightness(color: Rgb888) -> f64 {
    let [r, g, b] = [color.r(), color.g(), color.b()].map(f64::from);
    0.299 * r + 0.587 * g + 0.114 * b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_contrasts() {
        assert_eq!(text_color(Rgb888::new(255, 230, 90)), Rgb888::BLACK);
        assert_eq!(text_color(Rgb888::new(20, 40, 160)), Rgb888::WHITE);
        assert_eq!(pale(Rgb888::BLACK, 1.0), Rgb888::WHITE);
    }
}
