//! How the demo's things look: colours, stripes, pieces of photographs, shadows.

use engine::rng::Rng;
use image::{Rgb, RgbImage};

use super::photos::Photos;
use super::raster::Coverage;
use crate::Result;

/// A colour, 0 to 255.
type Colour = [f32; 3];

/// The least distance between a thing's mean colour and what is behind it, of at most 442: less
/// is hard to see.
const CONTRAST: f32 = 90.0;
/// Where shadows fall, in pixels, and how dark they are.
const SHADOW: (usize, f32) = (2, 0.45);

/// What a thing is made of.
pub(super) enum Fill {
    Plain { from: Colour, to: Colour },
    Stripes { one: Colour, two: Colour, across: (f32, f32) },
    Photo { piece: RgbImage, tint: Colour },
}

impl Fill {
    /// A fill whose colour differs from `behind`.
    pub(super) fn draw(
        behind: Colour,
        extent: (usize, usize),
        photos: &Photos,
        rng: &mut Rng,
    ) -> Result<Fill> {
        let base = contrasting(behind, rng);
        Ok(match rng.below(3) {
            0 => Fill::Plain { from: lighter(base, 0.85), to: lighter(base, 1.15) },
            1 => {
                let period = rng.between(5.0, 12.0);
                let (sin, cos) = (rng.uniform() * std::f64::consts::TAU).sin_cos();
                let across = ((cos / period) as f32, (sin / period) as f32);
                Fill::Stripes { one: base, two: contrasting(behind, rng), across }
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

/// A colour well away from `behind`.
fn contrasting(behind: Colour, rng: &mut Rng) -> Colour {
    loop {
        let colour: Colour = std::array::from_fn(|_| rng.between(20.0, 245.0) as f32);
        let squares = colour.iter().zip(behind).map(|(a, b)| (a - b) * (a - b));
        // Half of the colours or more are far enough, wherever `behind` is.
        if squares.sum::<f32>().sqrt() >= CONTRAST {
            return colour;
        }
    }
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
