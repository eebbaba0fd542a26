//! Outlines of what the demo's pictures show.

use std::f64::consts::TAU;

use data::rng::Rng;

/// Corners of a round outline.
const ROUND: usize = 48;

/// A class of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Disc,
    Triangle,
    Star,
    Cross,
    Ring,
    Rectangle,
}

impl Shape {
    /// All, in the order in which a smaller number of classes takes them.
    pub(super) const ALL: [Shape; 6] =
        [Shape::Disc, Shape::Triangle, Shape::Star, Shape::Cross, Shape::Ring, Shape::Rectangle];

    pub(super) fn name(self) -> &'static str {
        match self {
            Shape::Disc => "disc",
            Shape::Triangle => "triangle",
            Shape::Star => "star",
            Shape::Cross => "cross",
            Shape::Ring => "ring",
            Shape::Rectangle => "rectangle",
        }
    }

    /// The category id: with gaps, as COCO's have.
    pub(super) fn id(self) -> u64 {
        match self {
            Shape::Disc => 1,
            Shape::Triangle => 2,
            Shape::Star => 3,
            Shape::Cross => 5,
            Shape::Ring => 8,
            Shape::Rectangle => 13,
        }
    }

    /// The hue of most of the class, in degrees: as with real things, colour tells much, but
    /// things of no class have every colour.
    pub(super) fn hue(self) -> f64 {
        match self {
            Shape::Disc => 0.0,
            Shape::Triangle => 120.0,
            Shape::Star => 55.0,
            Shape::Cross => 235.0,
            Shape::Ring => 300.0,
            Shape::Rectangle => 180.0,
        }
    }

    /// One of the class's many forms, turned and moved.
    pub(super) fn draw(self, centre: (f64, f64), radius: f64, rng: &mut Rng) -> Outline {
        let mut hole = Vec::new();
        let outer = match self {
            Shape::Disc => ellipse(1.0, rng.between(0.8, 1.0)),
            Shape::Ring => {
                let inner = rng.between(0.5, 0.65);
                hole = ellipse(inner, inner);
                ellipse(1.0, 1.0)
            }
            Shape::Triangle => {
                let stretch = rng.between(0.85, 1.2);
                let mut corners = regular(3, |_| 1.0);
                corners.iter_mut().for_each(|corner| corner.0 *= stretch);
                corners
            }
            Shape::Rectangle => {
                let flatness = rng.between(0.45, 0.95);
                let (x, y) = (0.95, 0.95 * flatness);
                vec![(x, y), (-x, y), (-x, -y), (x, -y)]
            }
            Shape::Star => {
                let inner = rng.between(0.38, 0.46);
                regular(10, |corner| if corner % 2 == 0 { 1.1 } else { 1.1 * inner })
            }
            Shape::Cross => {
                let (arm, a) = (1.0, rng.between(0.27, 0.36));
                let quarter = [(arm, -a), (arm, a), (a, a)];
                (0..4).flat_map(|turn| quarter.map(|point| quarter_turns(point, turn))).collect()
            }
        };
        let angle = rng.uniform() * TAU;
        let place = |corners: Vec<(f64, f64)>| place(&corners, centre, radius, angle);
        Outline { outer: place(outer), hole: place(hole) }
    }
}

/// Something that is of no class: an amoeba or a bolt.
pub(super) fn clutter(centre: (f64, f64), radius: f64, rng: &mut Rng) -> Outline {
    let corners = if rng.uniform() < 0.6 {
        let waves: Vec<(f64, f64, f64)> = (2..6)
            .map(|wave| {
                let amplitude = rng.between(0.1, 0.3);
                (f64::from(wave), amplitude, rng.uniform() * TAU)
            })
            .collect();
        regular(ROUND, |corner| {
            let angle = corner as f64 / ROUND as f64 * TAU;
            let bumps: f64 = waves.iter().map(|&(k, size, at)| size * (k * angle + at).cos()).sum();
            (0.7 + bumps).max(0.15)
        })
    } else {
        let thick = rng.between(0.1, 0.2);
        let upper = [(-1.1, 0.5), (-0.2, -0.4), (0.2, 0.4), (1.1, -0.5)];
        let lower = upper.iter().rev().map(|&(x, y)| (x, y + 2.0 * thick));
        upper.iter().copied().chain(lower).collect()
    };
    let angle = rng.uniform() * TAU;
    Outline { outer: place(&corners, centre, radius, angle), hole: Vec::new() }
}

/// The edge of a flat thing, and of the hole in it if it has one, as corners in pixels.
#[derive(Debug, Clone)]
pub(super) struct Outline {
    pub(super) outer: Vec<(f64, f64)>,
    pub(super) hole: Vec<(f64, f64)>,
}

impl Outline {
    /// The area inside, in pixels.
    pub(super) fn area(&self) -> f64 {
        enclosed(&self.outer) - enclosed(&self.hole)
    }

    /// Whether all of it is inside an image.
    pub(super) fn is_inside(&self, width: usize, height: usize) -> bool {
        let (width, height) = (width as f64, height as f64);
        self.outer.iter().all(|&(x, y)| x >= 0.0 && y >= 0.0 && x <= width && y <= height)
    }
}

fn enclosed(corners: &[(f64, f64)]) -> f64 {
    let next = corners.iter().cycle().skip(1);
    let twice: f64 = corners.iter().zip(next).map(|(a, b)| a.0 * b.1 - b.0 * a.1).sum();
    twice.abs() / 2.0
}

fn regular(corners: usize, radius: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
    (0..corners)
        .map(|corner| {
            let (sin, cos) = (corner as f64 / corners as f64 * TAU).sin_cos();
            (cos * radius(corner), sin * radius(corner))
        })
        .collect()
}

fn ellipse(a: f64, b: f64) -> Vec<(f64, f64)> {
    regular(ROUND, |_| 1.0).into_iter().map(|(x, y)| (a * x, b * y)).collect()
}

fn quarter_turns((x, y): (f64, f64), turns: usize) -> (f64, f64) {
    (0..turns).fold((x, y), |(x, y), _| (-y, x))
}

fn place(corners: &[(f64, f64)], centre: (f64, f64), radius: f64, angle: f64) -> Vec<(f64, f64)> {
    let (sin, cos) = angle.sin_cos();
    corners
        .iter()
        .map(|&(x, y)| {
            let (x, y) = (radius * x, radius * y);
            (centre.0 + cos * x - sin * y, centre.1 + sin * x + cos * y)
        })
        .collect()
}
