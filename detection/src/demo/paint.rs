//! How the demo's things look: colours, stripes, pieces of photographs, shadows.

use data::rng::Rng;
use image::{Rgb, RgbImage};

use super::photos::Photos;
use super::raster::Coverage;
use crate::Result;

/// A colour, 0 to 255.
type Colour = [f32; 3];

/// The least distance between a thing's mean colour and what is behind it, of at most 442: less
/// is hard to see.
const CONTRAST: f32 = 90.0;
/// Colours tried for it; then the one with the most contrast is taken.
const TRIES: usize = 40;
/// How far a colour's hue may be from its class's, in degrees.
const HUE_RANGE: f64 = 25.0;
/// Where shadows fall, in pixels, and how dark they are.
const SHADOW: (usize, f32) = (2, 0.45);

/// What a thing is made of.
pub(super) enum Fill {
    Plain { from: Colour, to: Colour },
    Stripes { one: Colour, two: Colour, across: (f32, f32) },
    Photo { piece: RgbImage, tint: Colour },
}

impl Fill {
    /// A fill whose colour differs from `behind`, and is near `hue` (in degrees) if a thing's
    /// class has one.
    pub(super) fn draw(
        behind: Colour,
        hue: Option<f64>,
        extent: (usize, usize),
        photos: &Photos,
        rng: &mut Rng,
    ) -> Result<Fill> {
        let base = contrasting(behind, hue, rng);
        Ok(match rng.below(3) {
            0 => Fill::Plain { from: lighter(base, 0.85), to: lighter(base, 1.15) },
            1 => {
                let period = rng.between(5.0, 12.0);
                let (sin, cos) = (rng.uniform() * std::f64::consts::TAU).sin_cos();
                let across = ((cos / period) as f32, (sin / period) as f32);
                Fill::Stripes { one: base, two: contrasting(behind, None, rng), across }
            }
            _ => {
                let piece = photos.cut(extent.0, extent.1, rng)?;
                Fill::Photo { piece, tint: base }
            }
        })
    }

    /// The colour at column `x` and row `y` of the thing's extent.
    fn at(&self, x: usize, y: usize, extent: (usize, usize)) -> Colour {
        match self {
            Fill::Plain { from, to } => mix(*from, *to, y as f32 / extent.1 as f32),
            Fill::Stripes { one, two, across } => {
                let phase = (x as f32 * across.0 + y as f32 * across.1).rem_euclid(1.0);
                if phase < 0.5 { *one } else { *two }
            }
            Fill::Photo { piece, tint } => {
                let texel = piece.get_pixel(x as u32, y as u32).0.map(f32::from);
                mix(texel, *tint, 0.6)
            }
        }
    }
}

/// Paints what `coverage` covers, and its shadow.
pub(super) fn paint(picture: &mut RgbImage, coverage: &Coverage, fill: &Fill) {
    let extent = (coverage.width, coverage.height);
    let (offset, darkness) = SHADOW;
    for (x, y, share) in coverage.cells() {
        let (x, y) = (x + coverage.left + offset, y + coverage.top + offset);
        if let Some(pixel) = picture.get_pixel_mut_checked(x as u32, y as u32) {
            let under = pixel.0.map(f32::from);
            *pixel = bytes(mix(under, [0.0; 3], share * darkness));
        }
    }
    for (x, y, share) in coverage.cells() {
        let colour = fill.at(x, y, extent);
        let (x, y) = ((x + coverage.left) as u32, (y + coverage.top) as u32);
        if let Some(pixel) = picture.get_pixel_mut_checked(x, y) {
            *pixel = bytes(mix(pixel.0.map(f32::from), colour, share));
        }
    }
}

/// The mean colour under what `coverage` covers.
pub(super) fn mean_under(picture: &RgbImage, coverage: &Coverage) -> Colour {
    let (mut sum, mut weight) = ([0.0f32; 3], 0.0f32);
    for (x, y, share) in coverage.cells() {
        let (x, y) = ((x + coverage.left) as u32, (y + coverage.top) as u32);
        if let Some(pixel) = picture.get_pixel_checked(x, y) {
            sum.iter_mut().zip(pixel.0).for_each(|(sum, value)| *sum += share * f32::from(value));
            weight += share;
        }
    }
    sum.map(|sum| sum / weight.max(1.0))
}

/// A colour well away from `behind`, of about the given hue or of any.
fn contrasting(behind: Colour, hue: Option<f64>, rng: &mut Rng) -> Colour {
    let distance = |colour: &Colour| {
        let squares = colour.iter().zip(behind).map(|(a, b)| (a - b) * (a - b));
        squares.sum::<f32>().sqrt()
    };
    let mut best = draw_colour(hue, rng);
    for _ in 1..TRIES {
        if distance(&best) >= CONTRAST {
            break;
        }
        let other = draw_colour(hue, rng);
        if distance(&other) > distance(&best) {
            best = other;
        }
    }
    best
}

/// A clear colour near `hue`, or any that is neither black nor white.
fn draw_colour(hue: Option<f64>, rng: &mut Rng) -> Colour {
    match hue {
        Some(hue) => {
            let hue = hue + rng.between(-HUE_RANGE, HUE_RANGE);
            from_hsv(hue, rng.between(0.6, 1.0), rng.between(0.45, 1.0))
        }
        None => std::array::from_fn(|_| rng.between(20.0, 245.0) as f32),
    }
}

/// The colour of a hue in degrees, and of a saturation and a value in 0–1.
fn from_hsv(hue: f64, saturation: f64, value: f64) -> Colour {
    [5.0, 3.0, 1.0].map(|sector| {
        let at = (sector + hue / 60.0).rem_euclid(6.0);
        let away = at.min(4.0 - at).clamp(0.0, 1.0);
        (255.0 * value * (1.0 - saturation * away)) as f32
    })
}

fn lighter(colour: Colour, factor: f32) -> Colour {
    colour.map(|value| (value * factor).min(255.0))
}

fn mix(one: Colour, two: Colour, share: f32) -> Colour {
    std::array::from_fn(|channel| one[channel] + (two[channel] - one[channel]) * share)
}

fn bytes(colour: Colour) -> Rgb<u8> {
    Rgb(colour.map(|value| value.round().clamp(0.0, 255.0) as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hues_of_pure_colours() {
        let colours = [
            (0.0, [255.0, 0.0, 0.0]),
            (60.0, [255.0, 255.0, 0.0]),
            (120.0, [0.0, 255.0, 0.0]),
            (-120.0, [0.0, 0.0, 255.0]),
            (390.0, [255.0, 127.5, 0.0]),
        ];
        for (hue, colour) in colours {
            assert_eq!(from_hsv(hue, 1.0, 1.0), colour, "{hue}");
        }
        assert_eq!(from_hsv(200.0, 0.0, 0.5), [127.5; 3]);
    }
}
